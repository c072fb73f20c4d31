//! What is told to whoever supervises us, as systemd wants it (`sd_notify(3)`): that we serve, and who does after us.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use config::paths;

/// Says that this process serves.
pub(crate) fn serving() {
    tell(&format!("MAINPID={}\nREADY=1\n", std::process::id()));
}

/// Says that another process is the one to look after; only the one before it is believed that.
pub(crate) fn succeeded_by(pid: u32) {
    tell(&format!("MAINPID={pid}\nREADY=1\n"));
}

/// Where nobody asked to be told, nothing is.
fn tell(words: &str) {
    let Some(socket) = paths::variable(paths::ENV_NOTIFY_SOCKET) else { return };
    if let Err(error) = send(&socket, words) {
        tracing::warn!(%error, socket, "the supervisor can't be told");
    }
}

fn send(socket: &str, words: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("bluegreen-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
            send(&address, "READY=1\n").unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\n");
        }
    }
}
