//! The port of a new instance: the wanted one, or the next that nobody has.

use std::net::{Ipv4Addr, TcpListener};

/// How far above the wanted port a free one is looked for.
const REACH: u16 = 1000;

/// Returns the wanted port where nothing listens on it and it is not in `reserved`, else the next such one above.
///
/// Not a port of the kernel's choice: those are from the range that outgoing connections use, and one of them may take it
/// between this look and the application's own bind.
pub(super) fn choose(wanted: u16, reserved: &[u16]) -> Option<u16> {
    (wanted..=wanted.saturating_add(REACH)).find(|port| !reserved.contains(port) && is_free(*port))
}

/// Tells whether an application could listen on this port of the loopback address now.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_or_reserved_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(!is_free(port));
        let first = choose(port, &[]).unwrap();
        assert!(first > port);
        assert!(choose(port, &[first]).unwrap() > first);
    }
}
