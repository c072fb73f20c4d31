//! A probe over HTTP/1: a GET that follows no redirect.

use std::io;

use bytes::BytesMut;
use config::health::HealthCheck;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Outcome;
use super::judge::judge;
use crate::upstream::codec;
use crate::upstream::socket::Socket;

/// No answer's head is longer than this.
const HEAD: usize = 64 * 1024;

/// Probes over a connection.
///
/// # Errors
/// Where no answer came.
pub(super) async fn ask(mut stream: Socket, host: &str, check: &HealthCheck) -> io::Result<Outcome> {
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bgproxy-health\r\n", check.path);
    for (name, value) in &check.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut read = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(Outcome::Dead("it closed the connection without an answer".to_owned()));
        }
        match codec::parse(&mut read, &Method::GET, config::defaults::HEADER_FIELDS) {
            Ok(Some(head)) if head.status.is_informational() => {}
            Ok(Some(head)) => return Ok(judge(head.status.as_u16(), &head.headers, host, check)),
            Ok(None) if read.len() > HEAD => return Ok(Outcome::Failed("the answer's head is too long".to_owned())),
            Ok(None) => {}
            Err(codec::Malformed(what)) => return Ok(Outcome::Failed(format!("the answer is malformed: {what}"))),
        }
    }
}
