//! A byte stream to the proxy's admin socket: an exec of `bgproxy relay` in its container.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::proxy_image::PROGRAM;
use super::refusal::{refusal, status};
use super::{Docker, labels};
use crate::engine::{AdminStream, EngineError};

/// Words on standard error beyond this are not kept.
const WORDS: usize = 4096;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// Both ends of an attached exec, as one stream; what it says on standard error becomes the error of an early end.
struct ExecStream {
    output: Output,
    input: Pin<Box<dyn AsyncWrite + Send>>,
    pending: Bytes,
    words: Vec<u8>,
    has_answered: bool,
}

impl Docker {
    /// Opens a stream to the proxy's admin socket; `None` where no proxy of ours runs.
    pub(super) async fn open_relay(&self) -> Result<Option<Box<dyn AdminStream>>, EngineError> {
        let name = self.names.proxy();
        let what = format!("reach the proxy in {name}");
        let Some(container) = self.inspect(&name).await? else { return Ok(None) };
        let own_labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        let is_running = container.state.and_then(|state| state.running).unwrap_or(false);
        if !is_running || !labels::is_ours(own_labels, &self.names.network()) {
            return Ok(None);
        }
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // With a terminal in between, control characters would not pass unchanged.
            tty: Some(false),
            cmd: Some(vec![PROGRAM.to_owned(), "relay".to_owned()]),
            ..ExecConfig::default()
        };
        let exec = match self.handles.call.create_exec(&name, config).await {
            Ok(exec) => exec,
            // It stopped just now, or it is between two restarts.
            Err(error) if matches!(status(&error), Some(404 | 409)) => return Ok(None),
            Err(error) => return Err(refusal(&what, error)),
        };
        let options = StartExecOptions { detach: false, tty: false, output_capacity: Some(64 * 1024) };
        match self.handles.call.start_exec(&exec.id, Some(options)).await {
            Ok(StartExecResults::Attached { output, input }) => Ok(Some(Box::new(ExecStream {
                output,
                input,
                pending: Bytes::new(),
                words: Vec::new(),
                has_answered: false,
            }))),
            Ok(StartExecResults::Detached) => Err(EngineError::Refused(format!("{what}: the engine did not attach"))),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(None),
            Err(error) => Err(refusal(&what, error)),
        }
    }
}

// === impl ExecStream ===

impl AsyncRead for ExecStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            match ready!(self.output.as_mut().poll_next(cx)) {
                Some(Ok(LogOutput::StdOut { message })) => {
                    self.has_answered |= !message.is_empty();
                    self.pending = message;
                }
                // A runtime that can't start the program says so without saying on which stream.
                Some(Ok(LogOutput::StdErr { message } | LogOutput::Console { message })) => {
                    let room = WORDS.saturating_sub(self.words.len());
                    self.words.extend(message.iter().take(room));
                }
                Some(Ok(LogOutput::StdIn { .. })) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None if self.has_answered || self.words.is_empty() => return Poll::Ready(Ok(())),
                None => {
                    let words = String::from_utf8_lossy(&self.words).trim().to_owned();
                    return Poll::Ready(Err(io::Error::other(words)));
                }
            }
        }
        let count = self.pending.len().min(buf.remaining());
        buf.put_slice(&self.pending[..count]);
        self.pending.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ExecStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.input.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn stream(outputs: Vec<LogOutput>) -> ExecStream {
        ExecStream {
            output: Box::pin(futures_util::stream::iter(outputs.into_iter().map(Ok))),
            input: Box::pin(tokio::io::sink()),
            pending: Bytes::new(),
            words: Vec::new(),
            has_answered: false,
        }
    }

    #[tokio::test]
    async fn what_the_socket_says_arrives_whole_and_without_the_words_beside_it() {
        let mut stream = stream(vec![
            LogOutput::StdOut { message: Bytes::from_static(b"HTTP/1.1 ") },
            LogOutput::StdErr { message: Bytes::from_static(b"a warning") },
            LogOutput::StdOut { message: Bytes::from_static(b"200 OK") },
        ]);
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK");
    }

    #[tokio::test]
    async fn an_end_before_the_first_byte_is_an_error_in_the_relays_words() {
        let mut stream = stream(vec![LogOutput::StdErr { message: Bytes::from_static(b"no proxy listens\n") }]);
        let error = stream.read_to_string(&mut String::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "no proxy listens");
    }
}
