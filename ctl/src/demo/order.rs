//! What a client of the demo asks, and the one answer that is right, byte for byte.

use super::uptimer;
use crate::traffic::wire::Wire;

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) path: &'static str,
    /// The id and the body of a POST; a GET has none.
    pub(super) post: Option<(String, Vec<u8>)>,
    /// Whether the connection is meant to live on.
    pub(super) keep_alive: bool,
}

/// An answer that was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Right {
    pub(super) version: u32,
    /// Whether the connection may be used again.
    pub(super) alive: bool,
}

impl Order {
    /// Sends it and reads its answer.
    ///
    /// # Errors
    /// In words: any other status than 200, a reset, a body that is short or wrong, a time-out.
    pub(super) async fn exchange(&self, wire: &mut Wire) -> Result<Right, String> {
        let answer = wire.exchange(&self.bytes()).await?;
        if answer.status != 200 {
            return Err(format!("answered {}", answer.status_line()));
        }
        Ok(Right { version: self.version(&String::from_utf8_lossy(&answer.body))?, alive: answer.alive })
    }

    /// Returns the request on the wire.
    fn bytes(&self) -> Vec<u8> {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let (method, fields, body) = match &self.post {
            None => ("GET", String::new(), &[][..]),
            Some((id, body)) => {
                let fields = format!("{}: {id}\r\nContent-Length: {}\r\n", uptimer::ID_HEADER, body.len());
                ("POST", fields, body.as_slice())
            }
        };
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: uptimer.demo\r\nConnection: {connection}\r\n{fields}\r\n",
            self.path
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Returns the version that gave this answer, which must be right in every byte.
    fn version(&self, body: &str) -> Result<u32, String> {
        let wrong = || format!("not the application's answer: {:?}", body.chars().take(80).collect::<String>());
        let rest = body.strip_prefix("Uptimer v").ok_or_else(wrong)?;
        let (version, rest) = rest.split_once(".0 ").ok_or_else(wrong)?;
        let version: u32 = version.parse().map_err(|_| wrong())?;
        let right = match &self.post {
            Some((id, sent)) => body == uptimer::echo(version, id, sent),
            None => rest
                .strip_prefix("is running for ")
                .and_then(|rest| rest.strip_suffix(" seconds.\n"))
                .is_some_and(|seconds| seconds.parse::<u64>().is_ok()),
        };
        if right { Ok(version) } else { Err(wrong()) }
    }
}
