//! From an endpoint's name to its addresses, by the system's resolver: in a container that is Docker's DNS.

use std::io;
use std::time::Duration;

use config::name::EndpointAddr;

use super::socket::Address;

/// Docker's DNS answers in a millisecond; one that is silent for this long has no answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the addresses of an endpoint, in the resolver's order; never an empty list.
///
/// # Errors
/// The resolver's reason: no answer means no endpoint.
pub(crate) async fn resolve(endpoint: &EndpointAddr) -> io::Result<Vec<Address>> {
    if let Some(address) = literal(endpoint) {
        return Ok(vec![address]);
    }
    let found = in_time(tokio::net::lookup_host((endpoint.host(), endpoint.port()))).await?;
    let mut addresses: Vec<Address> = found.map(Address::Tcp).collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", endpoint.host())));
    }
    Ok(addresses)
}

async fn in_time<T>(lookup: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, lookup).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Returns the address of an endpoint whose name is one, so that nothing must be resolved.
pub(crate) fn literal(endpoint: &EndpointAddr) -> Option<Address> {
    let tcp = || endpoint.literal().map(Address::Tcp);
    endpoint.socket().map(|path| Address::Unix(path.into())).or_else(tcp)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_resolver_that_is_silent_has_no_answer_after_three_seconds() {
        let began = Instant::now();
        let silent = in_time(std::future::pending::<io::Result<()>>()).await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
        assert!(resolve(&"localhost:80".parse().unwrap()).await.is_ok());
    }
}
