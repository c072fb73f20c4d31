//! A container's log, line by line.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt as _;

use super::Docker;
use super::refusal::refusal;
use crate::engine::wanted::Wanted;
use crate::engine::{EngineError, IsWanted, LogRange};

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

    /// Hands over the wanted lines of what a container writes on its standard output alone; a tail counts these.
    ///
    /// An engine counts a tail over both streams, so all is read here; and to go on where that ended it is asked once more, for what came
    /// at the last line's moment or later.
    pub(super) async fn read_output(
        &self,
        container: &str,
        range: LogRange,
        is_wanted: IsWanted<'_>,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let mut wanted = Wanted::new(is_wanted, range.tail);
        let mut seen = Seen::default();
        let options = LogsOptions { stdout: true, tail: "all".to_owned(), timestamps: true, ..LogsOptions::default() };
        self.read_stamped(container, options.clone(), &mut |stamp, text| {
            seen.note(stamp);
            wanted.take(text, line);
        })
        .await?;
        wanted.release(line);
        if !range.follow {
            return Ok(());
        }
        let options = LogsOptions { follow: true, since: seen.seconds(), ..options };
        self.read_stamped(container, options, &mut |stamp, text| {
            if !seen.had(stamp) {
                wanted.take(text, line);
            }
        })
        .await
    }

    /// Hands over each line with the moment that the engine noted for it.
    async fn read_stamped(
        &self,
        container: &str,
        options: LogsOptions,
        stamped: &mut (dyn FnMut(&str, &str) + Send),
    ) -> Result<(), EngineError> {
        let mut frames = std::pin::pin!(self.handles.call.logs(container, Some(options)));
        let mut lines = Lines::default();
        let mut cut = |whole: &str| {
            let (stamp, text) = whole.split_once(' ').unwrap_or((whole, ""));
            stamped(stamp, text);
        };
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| refusal(&format!("read the log of {container}"), error))?;
            lines.take(&frame.into_bytes(), &mut cut);
        }
        lines.finish(&mut cut);
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

/// Where a log was left off: the last moment, and how many lines had it.
#[derive(Default)]
struct Seen {
    last: String,
    count: usize,
}

impl Seen {
    fn note(&mut self, stamp: &str) {
        if stamp != self.last {
            stamp.clone_into(&mut self.last);
            self.count = 0;
        }
        self.count += 1;
    }

    /// Returns the second of the last moment, since 1970; 0 where there was none.
    fn seconds(&self) -> i32 {
        let moment = humantime::parse_rfc3339(&self.last).ok();
        let since = moment.and_then(|moment| moment.duration_since(std::time::UNIX_EPOCH).ok());
        since.and_then(|since| i32::try_from(since.as_secs()).ok()).unwrap_or(0)
    }

    /// Tells whether a line that comes again was there before.
    fn had(&mut self, stamp: &str) -> bool {
        let is_known = stamp < self.last.as_str() || stamp == self.last && self.count > 0;
        if is_known && stamp == self.last {
            self.count -= 1;
        }
        is_known
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
    fn a_log_is_gone_on_with_where_it_was_left_off() {
        let mut seen = Seen::default();
        assert!(seen.seconds() == 0 && !seen.had("2026-11-25T13:00:00.000000001Z"));
        let stamp = |nanos: u32| format!("2026-11-25T13:00:00.{nanos:09}Z");
        [1, 2, 2].iter().for_each(|nanos| seen.note(&stamp(*nanos)));
        assert_eq!(seen.seconds(), 1_795_611_600);
        let had: Vec<bool> = [1, 2, 2, 2, 3].iter().map(|nanos| seen.had(&stamp(*nanos))).collect();
        assert_eq!(had, [true, true, true, false, false]);
    }

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
