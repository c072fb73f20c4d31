//! One probe: a GET on a connection of its own; follows no redirect.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use config::health::HealthCheck;
use http::{HeaderMap, Method, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Outcome;
use crate::upstream::codec;

/// No answer's head is longer than this.
const HEAD: usize = 64 * 1024;

/// Probes one address within the check's time-out.
pub(crate) async fn probe(address: SocketAddr, host: &str, check: &HealthCheck) -> Outcome {
    match tokio::time::timeout(check.timeout, ask(address, host, check)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => error.to_string(),
        }),
        Err(_) => Outcome::Failed(format!("no answer within {}", config::duration::format(check.timeout))),
    }
}

async fn ask(address: SocketAddr, host: &str, check: &HealthCheck) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect(address).await?;
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bgproxy-health\r\n", check.path);
    for (name, value) in &check.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut read = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(Outcome::Failed("it closed the connection without an answer".to_owned()));
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

fn judge(status: u16, headers: &HeaderMap, host: &str, check: &HealthCheck) -> Outcome {
    if !check.status.contains(status) {
        return Outcome::Failed(status.to_string());
    }
    if (300..400).contains(&status) {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let elsewhere = location.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        let own = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // An application that sends visitors elsewhere is not the one that was asked for.
        if let Some(elsewhere) = elsewhere.filter(|elsewhere| !elsewhere.eq_ignore_ascii_case(own)) {
            return Outcome::Failed(format!("{status} to another host ({elsewhere})"));
        }
    }
    Outcome::Passed(status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(to: &str) -> Outcome {
        let headers = [(header::LOCATION, to.parse().unwrap())].into_iter().collect();
        judge(302, &headers, "shop.example", &HealthCheck::default())
    }

    #[test]
    fn a_redirect_passes_within_the_host_and_fails_to_another() {
        assert!(redirect("/login").passed());
        assert!(redirect("https://shop.example/login").passed());
        assert_eq!(redirect("https://other.example/").words(), "302 to another host (other.example)");
    }
}
