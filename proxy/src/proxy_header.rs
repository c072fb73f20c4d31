//! The PROXY protocol, versions 1 and 2: a load balancer in front of us tells in the first bytes of a connection whose it is
//! (haproxy.org/download/3.2/doc/proxy-protocol.txt).
//!
//! It is read from the networks that are said to send it, and from those it must come: guessing would let a client lie.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE: usize = 107;
/// Addresses and what senders commonly add to them in version 2; a longer one is nobody's.
const MOST: usize = 4096;

/// Takes the header off the front of a connection and returns the client's address; `None` where it says that the connection
/// is the load balancer's own, a health check, or of a kind that has none.
///
/// # Errors
/// Where it is not a header, or the connection ends within it.
///
/// # Cancel safety
/// What was read is lost: the connection can't be used any more.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return read_binary(stream).await;
    }
    let mut line = start.to_vec();
    if !line.starts_with(b"PROXY ") {
        return Err(malformed("it does not begin with a PROXY header"));
    }
    // Byte by byte: what comes behind the line is not ours to take. It is short, and one for each connection.
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE {
            return Err(malformed("its line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line)
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let [command, family] = [stream.read_u8().await?, stream.read_u8().await?];
    let length = usize::from(stream.read_u16().await?);
    if length > MOST {
        return Err(malformed("it is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    let address = |bytes: Option<IpAddr>, port: Option<&[u8]>| {
        let port = port.and_then(|port| Some(u16::from_be_bytes(port.try_into().ok()?)));
        bytes.zip(port).map(|(address, port)| SocketAddr::new(address, port))
    };
    let ip = |length: usize| -> Option<IpAddr> {
        let bytes = rest.get(..length)?;
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    match (command, family) {
        // PROXY, over TCP.
        (0x21, 0x11) => address(ip(4), rest.get(8..10)).map(Some).ok_or(malformed("its addresses are cut short")),
        (0x21, 0x21) => address(ip(16), rest.get(32..34)).map(Some).ok_or(malformed("its addresses are cut short")),
        // The sender's own (LOCAL); datagrams, Unix sockets, and what is not told.
        (0x20 | 0x21, _) => Ok(None),
        _ => Err(malformed("its version or command is unknown")),
    }
}

/// `PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`.
fn parse_line(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let text = std::str::from_utf8(line).map_err(|_| malformed("its line is not text"))?;
    let words: Vec<&str> = text.trim_end_matches("\r\n").split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, port, other] => {
            let is_family = |address: &IpAddr| address.is_ipv4() == (family == "TCP4");
            let source: Option<IpAddr> = source.parse().ok().filter(is_family);
            let destination: Option<IpAddr> = destination.parse().ok().filter(is_family);
            match (source, destination, port.parse(), other.parse::<u16>()) {
                (Some(source), Some(_), Ok(port), Ok(_)) => Ok(Some(SocketAddr::new(source, port))),
                _ => Err(malformed("its addresses can't be read")),
            }
        }
        _ => Err(malformed("its line can't be read")),
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of bytes, and how many are left behind it.
    fn take(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut rest = bytes;
        let outcome = runtime.block_on(read(&mut rest));
        (outcome, rest.len())
    }

    fn client(bytes: &[u8]) -> Option<String> {
        let (outcome, left) = take(&[bytes, b"GET /"].concat());
        assert_eq!(left, 5, "{}", bytes.escape_ascii());
        outcome.unwrap().map(|address| address.to_string())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_tell_the_client_and_take_nothing_of_the_request() {
        assert_eq!(client(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n").as_deref(), Some("192.0.2.1:4711"));
        assert_eq!(client(b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n").as_deref(), Some("[2001:db8::1]:4711"));
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(client(b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n"), None);
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        assert_eq!(client(&binary(0x21, 0x11, &v4)).as_deref(), Some("192.0.2.1:4711"));
        // What a sender adds is skipped.
        assert_eq!(client(&binary(0x21, 0x11, &[&v4[..], &[4, 0, 1, 9]].concat())).as_deref(), Some("192.0.2.1:4711"));
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0x12, 0x67, 0, 80]].concat();
        assert_eq!(client(&binary(0x21, 0x21, &v6)).as_deref(), Some("[2001:db8::1]:4711"));
        assert_eq!(client(&binary(0x20, 0, &[])), None);
        assert_eq!(client(&binary(0x21, 0x31, &[0; 216])), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1",
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 200], b"\r\n"].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 8]),
            &binary(0x21, 0x11, &[0; 5000]),
            &SIGNATURE[..],
            b"",
        ] {
            assert!(take(bytes).0.is_err(), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(begins: bool, bytes: Vec<u8>) {
            let start: &[u8] = if begins { SIGNATURE } else { b"PROXY TCP4 " };
            drop(take(&[start, &bytes].concat()));
        }
    }
}
