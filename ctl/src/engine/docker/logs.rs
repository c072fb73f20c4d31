//! A container's log, line by line.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt as _;

use super::Docker;
use super::refusal::refusal;
use crate::engine::{EngineError, LogRange};

/// A line longer than this is handed over in pieces.
const LINE: usize = 64 * 1024;

impl Docker {
    /// Hands the lines of a container's log to `line`, in the order in which the engine has them.
    pub(super) async fn read_log(
        &self,
        container: &str,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let options = LogsOptions {
            follow: range.follow,
            stdout: true,
            stderr: true,
            tail: range.tail.map_or_else(|| "all".to_owned(), |count| count.to_string()),
            ..LogsOptions::default()
        };
        let mut frames = std::pin::pin!(self.handles.call.logs(container, Some(options)));
        // Each stream has its own unfinished line.
        let (mut out, mut err) = (Lines::default(), Lines::default());
        while let Some(frame) = frames.next().await {
            match frame.map_err(|error| refusal(&format!("read the log of {container}"), error))? {
                LogOutput::StdErr { message } => err.take(&message, line),
                LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                    out.take(&message, line);
                }
            }
        }
        out.finish(line);
        err.finish(line);
        Ok(())
    }

    /// Returns the last lines of a container's log; an engine that has none gives none.
    pub(super) async fn last_words(&self, container: &str, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        let range = LogRange { tail: Some(count), follow: false };
        let _ = self.read_log(container, range, &mut |line| words.push(line.to_owned())).await;
        words
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], line: &mut (dyn FnMut(&str) + Send)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.unfinished.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.unfinished.len() > LINE {
                self.finish(line);
            }
        }
    }

    fn finish(&mut self, line: &mut (dyn FnMut(&str) + Send)) {
        if !self.unfinished.is_empty() {
            line(String::from_utf8_lossy(&self.unfinished).trim_end_matches(['\n', '\r']));
            self.unfinished.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_and_not_at_those_of_frames() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for frame in ["one\ntw", "o\r\n\nthr", "ee"] {
            lines.take(frame.as_bytes(), &mut |line| seen.push(line.to_owned()));
        }
        lines.finish(&mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "", "three"]);
    }
}
