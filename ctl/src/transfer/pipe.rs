//! Bytes between what waits and what blocks: streams of an engine on one side, the rewriting of an archive on the other.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// So many pieces may be on their way in either direction.
const PIECES: usize = 16;
/// What is written is passed on in pieces of this size.
const PIECE: usize = 64 * 1024;

/// The end that blocks and reads.
pub(super) struct Source {
    pieces: Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

/// Feeds a stream to a reader on another thread, for as long as that reads.
pub(super) fn source<E>(stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Source
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (send, pieces) = channel(PIECES);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.next().await {
            if send.send(piece.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    });
    Source { pieces, rest: Bytes::new() }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The end that blocks and writes; what is not flushed at its end is lost.
pub(super) struct Sink {
    pieces: Sender<io::Result<Bytes>>,
    filling: BytesMut,
    sent: Arc<AtomicU64>,
}

/// Returns a writer for another thread, and what it writes as a stream; `sent` counts the bytes that were passed on.
pub(super) fn sink(sent: Arc<AtomicU64>) -> (Sink, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (send, receive) = channel(PIECES);
    let stream =
        futures_util::stream::unfold(receive, async |mut receive| receive.recv().await.map(|piece| (piece, receive)));
    (Sink { pieces: send, filling: BytesMut::with_capacity(PIECE), sent }, stream)
}

impl Sink {
    /// Ends the stream with a failure, so that nobody takes it for a whole one.
    pub(super) fn fail(self, error: &io::Error) {
        // Who reads may have gone, and knows then.
        drop(self.pieces.blocking_send(Err(io::Error::new(error.kind(), error.to_string()))));
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let piece = self.filling.split().freeze();
        let count = piece.len() as u64;
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.sent.fetch_add(count, Ordering::Relaxed);
        self.filling.reserve(PIECE);
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.filling.len());
        self.filling.extend_from_slice(&bytes[..count]);
        if self.filling.len() == PIECE {
            self.pass_on()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_read_on_one_thread_and_written_arrives_whole_and_is_counted() {
        let pieces: Vec<Result<Bytes, io::Error>> =
            (0..40_u8).map(|number| Ok(Bytes::from(vec![number; 10_000]))).collect();
        let whole: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
        let sent = Arc::new(AtomicU64::new(0));
        let mut source = source(futures_util::stream::iter(pieces));
        let (mut sink, stream) = sink(Arc::clone(&sent));
        let copied = tokio::task::spawn_blocking(move || {
            io::copy(&mut source, &mut sink)?;
            sink.flush()
        });
        let got: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
        copied.await.unwrap().unwrap();
        assert_eq!((got.concat(), sent.load(Ordering::Relaxed)), (whole, 400_000));
    }

    #[tokio::test]
    async fn a_failure_is_the_end_of_the_stream_and_a_reader_that_left_is_one_for_the_writer() {
        let (mut sink, stream) = sink(Arc::default());
        let failed = tokio::task::spawn_blocking(move || {
            sink.write_all(b"half").unwrap();
            sink.fail(&io::Error::other("cut"));
        });
        let got: Vec<io::Result<Bytes>> = stream.collect().await;
        failed.await.unwrap();
        assert!(got.last().unwrap().is_err(), "{got:?}");
        let (mut sink, stream) = super::sink(Arc::default());
        drop(stream);
        let gone = tokio::task::spawn_blocking(move || sink.write_all(&vec![0; PIECE]));
        assert_eq!(gone.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
