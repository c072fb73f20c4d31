//! What `up` is asked for, and what it did.

/// What `up` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewaySpec {
    /// `--publish`; empty is 80:80, and 443:443 where free.
    pub publish: Vec<String>,
    /// `--trusted-proxy`.
    pub trusted_proxies: Vec<String>,
    /// `--volume`, on the proxy.
    pub volumes: Vec<String>,
    /// `--proxy-binary`.
    pub proxy_binary: Option<std::path::PathBuf>,
    /// Replaces a running proxy of another build.
    pub upgrade: bool,
}

/// What `up` did or found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gateway {
    /// True: something was created or started; false: all of it ran already.
    pub changed: bool,
    /// What was done, a sentence each.
    pub done: Vec<String>,
    /// What someone should know: another build runs, 443 is taken.
    pub warnings: Vec<String>,
    /// Where the proxy is reached, as `http://0.0.0.0:80`.
    pub addresses: Vec<String>,
}
