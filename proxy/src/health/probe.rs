//! One probe, on a connection of its own, within its time-out.

use std::io;

use config::health::HealthCheck;
use config::options::Protocol;

use super::{Outcome, http1, http2};
use crate::upstream::socket::{Address, Socket};

/// Probes one address within the check's time-out.
pub(crate) async fn probe(address: &Address, host: &str, check: &HealthCheck, protocol: Protocol) -> Outcome {
    let asked = async {
        let socket = Socket::connect(address, check.timeout).await?;
        if protocol == Protocol::H2c || http2::is_grpc(&check.path) {
            http2::ask(socket, host, check).await
        } else {
            http1::ask(socket, host, check).await
        }
    };
    match tokio::time::timeout(check.timeout, asked).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Outcome::Failed(words(&error)),
        Ok(Err(error)) => Outcome::Dead(words(&error)),
        Err(_) => Outcome::Failed(format!("no answer within {}", config::duration::format(check.timeout))),
    }
}

/// Returns an error of a connection in words.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
