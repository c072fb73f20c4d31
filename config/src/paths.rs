//! Default paths, and the name of every environment variable that is read.

/// The proxy's own file.
pub const PROXY_CONFIG: &str = "/etc/bluegreen/bgproxy.toml";
/// The admin socket.
pub const ADMIN_SOCKET: &str = "/run/bluegreen/admin.sock";
/// The folder of saved state.
pub const STATE_DIR: &str = "/var/lib/bluegreen";

/// Prefixes the names of everything on a Docker host, as `--gateway` does.
pub const ENV_GATEWAY: &str = "BG_GATEWAY";
/// The host to work on, as `--host` does.
pub const ENV_HOST: &str = "BGCTL_HOST";
/// Docker's own: the engine's URL.
pub const ENV_DOCKER_HOST: &str = "DOCKER_HOST";
/// Docker's own: the context's name.
pub const ENV_DOCKER_CONTEXT: &str = "DOCKER_CONTEXT";
/// systemd's own: the socket on which a service says that it serves.
pub const ENV_NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Set and not empty: no colour (no-color.org).
pub const ENV_NO_COLOR: &str = "NO_COLOR";

/// Returns an environment variable that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
