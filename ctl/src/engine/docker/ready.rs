//! Whether the proxy answers: asked on its admin socket, by the relay.

use std::time::Duration;

use config::admin::Call;
use config::admin::response::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::Docker;
use super::raising::{Raising, is_running};
use crate::engine::EngineError;

/// A proxy opens its socket within milliseconds; one with much saved state or a slow disk may take longer.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// Between two knocks at a socket that is not there yet.
const KNOCK: Duration = Duration::from_millis(25);

impl Docker {
    /// Asks the proxy for its version; `None` while it does not answer.
    pub(super) async fn proxy_version(&self) -> Result<Option<Version>, EngineError> {
        let Some(mut stream) = self.open_relay().await? else { return Ok(None) };
        let call = Call::Version;
        let request =
            format!("{} {} HTTP/1.1\r\nhost: bgproxy\r\nconnection: close\r\n\r\n", call.method(), call.path());
        let mut answer = Vec::new();
        let conversation = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            (&mut stream).take(64 * 1024).read_to_end(&mut answer).await
        };
        match timeout(Duration::from_secs(5), conversation).await {
            Ok(Ok(_)) => Ok(parse_version(&answer)),
            // The relay's complaint that nobody listens, or a proxy that is stopping: not ready.
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }
}

impl Raising<'_> {
    /// Waits until the proxy answers on its admin socket, or has ended.
    pub(super) async fn wait_ready(&self, id: &str) -> Result<(), EngineError> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            if self.docker.proxy_version().await?.is_some() {
                return Ok(());
            }
            let state = self.docker.inspect(id).await?;
            let has_ended =
                state.as_ref().is_none_or(|proxy| proxy.restart_count.unwrap_or(0) > 0 || !is_running(proxy));
            if has_ended || Instant::now() > deadline {
                let words = self.docker.last_words(id, 10).await;
                let what = if has_ended {
                    "ended by itself".to_owned()
                } else {
                    format!("gave no answer in {READY_DEADLINE:?}")
                };
                return Err(EngineError::NoProxy(format!(
                    "the proxy {} was started and {what}; its last words:\n  {}",
                    self.docker.names.proxy(),
                    if words.is_empty() { "(none)".to_owned() } else { words.join("\n  ") }
                )));
            }
            sleep(KNOCK).await;
        }
    }
}

fn parse_version(answer: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let is_ok = head.split(' ').nth(1) == Some("200");
    // The body may be chunked, so the document is taken by its braces.
    let document = &body[body.find('{')?..=body.rfind('}')?];
    if is_ok { serde_json::from_str(document).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_an_answer_in_one_piece_or_in_chunks() {
        let document = r#"{"program":"bgproxy","version":"0.1.0","protocol":1,"build":"ab","pid":7}"#;
        let plain = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
        assert_eq!(parse_version(plain.as_bytes()).unwrap().build, "ab");
        let chunked = format!("HTTP/1.1 200 OK\r\n\r\n{:x}\r\n{document}\r\n0\r\n\r\n", document.len());
        assert_eq!(parse_version(chunked.as_bytes()).unwrap().pid, 7);
        let refused = format!("HTTP/1.1 503 No\r\n\r\n{document}");
        assert!(parse_version(refused.as_bytes()).is_none());
        assert!(parse_version(b"").is_none() && parse_version(b"HTTP/1.1 200 OK\r\n\r\n}{").is_none());
    }
}
