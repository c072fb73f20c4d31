//! What a connection costs that nobody uses: a visitor who reads, and may come back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Target;
use crate::error::Error;

/// So many are opened; more, and what a process has anyway would count for nothing.
pub const CONNECTIONS: usize = 4000;
/// So long after the last request, and after the last connection went, is looked.
pub const REST: Duration = Duration::from_secs(10);

/// What idle connections took.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Resident bytes of one.
    pub bytes: f64,
    /// The share of them that was given back when they had gone; of a proxy that took less than a page for all of them, 1.
    pub given_back: f64,
}

/// Opens many connections, has each answer a request, and lets them rest.
///
/// # Errors
/// Where one isn't answered.
pub async fn measure(target: &Target) -> Result<Idle, Error> {
    // What a process takes once, with its first requests, is not of any connection.
    drop(open(target.address(), 256)?);
    tokio::time::sleep(REST).await;
    let before = target.resident()?;
    let connections = open(target.address(), CONNECTIONS)?;
    tokio::time::sleep(REST).await;
    let with = target.resident()?;
    drop(connections);
    tokio::time::sleep(REST).await;
    let after = target.resident()?;
    let taken = with.saturating_sub(before) as f64;
    let left = after.saturating_sub(before) as f64;
    let given_back = if taken < 4096.0 { 1.0 } else { 1.0 - left / taken };
    Ok(Idle { bytes: taken / CONNECTIONS as f64, given_back })
}

fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>, Error> {
    let failed = || Error::io("ask on a connection that is to rest");
    let mut connections = Vec::with_capacity(count);
    let mut answer = [0; 4096];
    for _ in 0..count {
        let mut connection = TcpStream::connect(address).map_err(failed())?;
        connection.write_all(b"GET /small HTTP/1.1\r\nHost: bench.test\r\n\r\n").map_err(failed())?;
        let mut length = 0;
        while !answer[..length].ends_with(b"small answer") {
            let more = connection.read(&mut answer[length..]).map_err(failed())?;
            if more == 0 {
                return Err(Error::Load(String::from_utf8_lossy(&answer[..length]).into_owned()));
            }
            length += more;
        }
        connections.push(connection);
    }
    Ok(connections)
}
