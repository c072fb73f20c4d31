//! The proxy of plain processes, asked at its socket: where it listens, who it is by now, and for a successor.

use std::path::Path;

use config::admin::request::Upgrade;
use config::admin::response::{Status, Upgraded, Version};
use config::admin::{AdminError, Call};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::identity::Identity;
use super::{Process, record};
use crate::engine::EngineError;

/// An answer of the admin socket is no longer than this.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

impl Process {
    /// Has the running proxy start another program in its place, and returns what happened in words.
    pub(super) async fn upgrade_proxy(&self, binary: &Path) -> Result<String, EngineError> {
        let Some(stream) = self.connect_admin().await? else {
            return Err(EngineError::NoProxy("the proxy ended at this very moment\nhint: run it again".to_owned()));
        };
        let wanted = Upgrade { program: Some(binary.to_owned()), arguments: None };
        let body = serde_json::to_vec(&wanted).map_err(|error| EngineError::Refused(error.to_string()))?;
        let (status, answer) = ask(stream, &Call::Upgrade, body).await?;
        if status != http::StatusCode::OK {
            let refusal = serde_json::from_slice::<AdminError>(&answer).ok();
            return Err(EngineError::NoProxy(match refusal {
                Some(AdminError { message, hint, .. }) if hint.is_empty() => message,
                Some(AdminError { message, hint, .. }) => format!("{message}\nhint: {hint}"),
                None => format!("the running proxy answered {status}, and serves on"),
            }));
        }
        let Upgraded { pid } = read(&answer)?;
        self.find_proxy_again().await?;
        Ok(format!("the old proxy handed over to {} (pid {pid}): no connection was refused", binary.display()))
    }

    /// Brings the record up to date where another process took the place of the one that it names.
    pub(super) async fn find_proxy_again(&self) -> Result<(), EngineError> {
        let recorded = record::read::<Identity>(&self.folders.proxy_record())?;
        let Some(stream) = self.connect_admin().await? else { return Ok(()) };
        // One that gives no answer is judged by its record, and by whoever asks it next.
        let Ok((_, answer)) = ask(stream, &Call::Version, Vec::new()).await else { return Ok(()) };
        let Ok(Version { pid, .. }) = read::<Version>(&answer) else { return Ok(()) };
        match Identity::of(pid) {
            Some(present) if recorded.is_none_or(|recorded| recorded != present) => {
                record::write(&self.folders.proxy_record(), &present)
            }
            _ => Ok(()),
        }
    }
}

/// Returns the addresses that the proxy behind a socket listens on.
pub(super) async fn listeners(stream: UnixStream) -> Result<Vec<String>, EngineError> {
    let (_, answer) = ask(stream, &Call::Status, Vec::new()).await?;
    let status: Status = read(&answer)?;
    let url = |address: String| format!("http://{}", address.trim_start_matches("http://"));
    Ok(status.listeners.into_iter().map(url).collect())
}

/// Makes a call, and returns status and body.
async fn ask(stream: UnixStream, call: &Call, body: Vec<u8>) -> Result<(http::StatusCode, bytes::Bytes), EngineError> {
    let ask = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(call.method())
            .uri(call.path())
            .header(http::header::HOST, "bgproxy")
            .body(Full::new(bytes::Bytes::from(body)))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, Limited::new(answer.into_body(), ANSWER_BYTES).collect().await?.to_bytes()))
    };
    ask.await.map_err(|error: Box<dyn std::error::Error + Send + Sync>| unclear(&error))
}

fn read<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(answer).map_err(|error| unclear(&error))
}

fn unclear(error: &dyn ToString) -> EngineError {
    EngineError::NoProxy(format!("the proxy's admin socket gave no status: {}", error.to_string()))
}
