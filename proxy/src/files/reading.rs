//! A file's bytes as an answer's body: read on a thread for the disk, one piece ahead of the client and no more.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::error::Error;

/// How much is read at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// What is left to be read of a file.
pub(crate) struct Reading {
    file: Arc<File>,
    left: Range<u64>,
    /// What was read already.
    ready: Option<Bytes>,
    /// What is being read.
    next: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reading {
    /// Returns the body of these bytes of a file, of which the first are at hand where they were read with its opening.
    pub(super) fn new(file: File, mut bytes: Range<u64>, start: Option<Bytes>) -> Self {
        let ready = start.filter(|start| !start.is_empty() && start.len() as u64 <= bytes.end - bytes.start);
        bytes.start += ready.as_ref().map_or(0, Bytes::len) as u64;
        Self { file: Arc::new(file), left: bytes, ready, next: None }
    }

    /// Returns how many bytes are still to come.
    pub(crate) fn remaining(&self) -> u64 {
        let ahead = self.left.end - self.left.start;
        ahead + self.ready.as_ref().map_or(0, Bytes::len) as u64
    }

    /// Returns the next piece.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(ready) = self.ready.take() {
            self.read_ahead();
            return Poll::Ready(Some(Ok(ready)));
        }
        self.read_ahead();
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let read = ready!(Pin::new(next).poll(cx));
        self.next = None;
        match read.map_err(io::Error::other).and_then(|read| read) {
            Ok(piece) => {
                self.left.start += piece.len() as u64;
                self.read_ahead();
                Poll::Ready(Some(Ok(piece)))
            }
            Err(error) => {
                self.left.start = self.left.end;
                Poll::Ready(Some(Err(Error::NotRead(error))))
            }
        }
    }

    fn read_ahead(&mut self) {
        if self.next.is_none() && !self.left.is_empty() {
            let (file, left) = (Arc::clone(&self.file), self.left.clone());
            self.next = Some(tokio::task::spawn_blocking(move || read_piece(&file, left)));
        }
    }
}

/// Reads the first of these bytes.
///
/// # Errors
/// Those of reading, and where the file has become shorter.
pub(super) fn read_piece(file: &File, bytes: Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let mut piece = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut piece[filled..], bytes.start + filled as u64) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter")),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use super::*;

    async fn all(mut reading: Reading) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(piece) = poll_fn(|cx| reading.poll_piece(cx)).await {
            let piece = piece?;
            assert!(piece.len() <= PIECE_BYTES);
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(reading.remaining(), 0);
        Ok(bytes)
    }

    #[tokio::test]
    async fn any_part_comes_as_it_is_with_and_without_its_beginning_at_hand() {
        let content: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for (from, to) in [(0, 300_000), (0, 0), (5, 6), (65_536, 131_072), (299_999, 300_000)] {
            for with_start in [false, true] {
                let start = with_start.then(|| read_piece(&file, from as u64..to as u64).unwrap());
                let reading = Reading::new(file.try_clone().unwrap(), from as u64..to as u64, start);
                assert_eq!(reading.remaining(), (to - from) as u64);
                assert_eq!(all(reading).await.unwrap(), &content[from..to], "{from}..{to}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_breaks_its_answer_off() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        let reading = Reading::new(file, 0..2000, None);
        assert!(matches!(all(reading).await, Err(Error::NotRead(_))));
    }
}
