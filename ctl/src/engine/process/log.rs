//! Reading a log file: its last lines, and what is added to it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncSeekExt as _, BufReader, SeekFrom};

/// How often a followed file is looked at; nobody reads faster.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// As much as is searched for the last lines at a time.
const CHUNK: u64 = 64 * 1024;

/// Hands the last `tail` lines of a file to `line`, or all of them.
///
/// Returns the reader, which stands at the end of the last whole line.
///
/// # Errors
/// Where the file can't be read.
pub(super) async fn read(path: &Path, tail: Option<usize>, line: &mut (dyn FnMut(&str) + Send)) -> io::Result<Reader> {
    let mut file = File::open(path).await?;
    let start = match tail {
        None => 0,
        Some(lines) => find_tail(&mut file, lines).await?,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let mut reader = Reader { file: BufReader::new(file), partial: Vec::new() };
    reader.drain(line).await?;
    Ok(reader)
}

/// A log file that may grow.
pub(super) struct Reader {
    file: BufReader<File>,
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
}

impl Reader {
    /// Hands over the lines that came since, for as long as `goes_on` and whole ones after it.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub(super) async fn follow(
        &mut self,
        goes_on: &(dyn Fn() -> bool + Send + Sync),
        line: &mut (dyn FnMut(&str) + Send),
    ) -> io::Result<()> {
        let mut look = tokio::time::interval(FOLLOW_INTERVAL);
        loop {
            look.tick().await;
            // Asked before reading, so that the last words of a process that ended in between are not missed.
            let goes_on = goes_on();
            self.drain(line).await?;
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Hands over the rest: the line that has no end.
    pub(super) fn finish(mut self, line: &mut (dyn FnMut(&str) + Send)) {
        if !self.partial.is_empty() {
            emit(&mut self.partial, line);
        }
    }

    async fn drain(&mut self, line: &mut (dyn FnMut(&str) + Send)) -> io::Result<()> {
        while self.file.read_until(b'\n', &mut self.partial).await? > 0 {
            if self.partial.ends_with(b"\n") {
                emit(&mut self.partial, line);
            }
        }
        Ok(())
    }
}

fn emit(bytes: &mut Vec<u8>, line: &mut (dyn FnMut(&str) + Send)) {
    let text = String::from_utf8_lossy(bytes);
    line(text.trim_end_matches(['\n', '\r']));
    bytes.clear();
}

/// Returns where the last `lines` lines begin, read backwards so that a long log is not read through.
async fn find_tail(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut chunk = Vec::new();
    let mut seen = 0;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start)).await?;
        chunk.clear();
        (&mut *file).take(end - start).read_to_end(&mut chunk).await?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            let place = start + index as u64;
            // The newline at the very end closes the last line; it begins none.
            if *byte == b'\n' && place + 1 < length {
                seen += 1;
                if seen == lines {
                    return Ok(place + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tail(text: &str, lines: Option<usize>) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut seen = Vec::new();
        read(file.path(), lines, &mut |line| seen.push(line.to_owned())).await.unwrap().finish(&mut |line| {
            seen.push(line.to_owned());
        });
        seen
    }

    #[tokio::test]
    async fn the_last_lines_are_found_in_short_and_in_long_logs() {
        assert_eq!(tail("a\nb\nc\n", Some(2)).await, ["b", "c"]);
        assert_eq!(tail("a\nb\nc", Some(2)).await, ["b", "c"]);
        assert_eq!(tail("a\n", Some(5)).await, ["a"]);
        assert_eq!(tail("a\nb\n", None).await, ["a", "b"]);
        assert!(tail("a\n", Some(0)).await.is_empty());
        let long: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        assert_eq!(tail(&long, Some(2)).await, ["line 49998", "line 49999"]);
        assert_eq!(tail(&long, Some(20_000)).await.len(), 20_000);
    }

    #[tokio::test]
    async fn the_last_words_before_the_end_are_followed_too() {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut seen = Vec::new();
        let mut reader = read(file.path(), None, &mut |line| seen.push(line.to_owned())).await.unwrap();
        file.write_all(b"last words\n").unwrap();
        reader.follow(&|| false, &mut |line| seen.push(line.to_owned())).await.unwrap();
        assert_eq!(seen, ["last words"]);
    }
}
