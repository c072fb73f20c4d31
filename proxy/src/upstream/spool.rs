//! A body that is taken whole before it is sent: in memory while it is small, then in a file without a name, which is gone
//! with its last reader whatever happens to us.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeekExt, AsyncWriteExt, ReadBuf};

/// What is read from the file at once.
const PIECE: usize = 64 * 1024;

/// A body on its way in.
pub(crate) struct Spool {
    memory: BytesMut,
    /// What is longer goes to a file.
    most_in_memory: usize,
    folder: PathBuf,
    file: Option<File>,
    length: u64,
}

/// A body that is there as a whole.
pub(crate) enum Spooled {
    Memory(Bytes),
    File {
        file: Box<File>,
        /// What was not read yet.
        left: u64,
    },
}

impl Spool {
    /// Returns an empty one, whose file would be in that folder.
    pub(crate) fn new(most_in_memory: usize, folder: PathBuf) -> Self {
        Self { memory: BytesMut::new(), most_in_memory, folder, file: None, length: 0 }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) async fn add(&mut self, data: &[u8]) -> io::Result<()> {
        self.length += data.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(data).await;
        }
        self.memory.extend_from_slice(data);
        if self.memory.len() > self.most_in_memory {
            let folder = std::mem::take(&mut self.folder);
            let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(folder)).await??;
            let mut file = File::from_std(file);
            file.write_all(&std::mem::take(&mut self.memory)).await?;
            self.file = Some(file);
        }
        Ok(())
    }

    /// Returns the whole, to be read from its beginning.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) async fn finish(self) -> io::Result<Spooled> {
        let Some(mut file) = self.file else { return Ok(Spooled::Memory(self.memory.freeze())) };
        // Seeking waits for what is still being written.
        file.seek(SeekFrom::Start(0)).await?;
        Ok(Spooled::File { file: Box::new(file), left: self.length })
    }
}

impl Spooled {
    /// Returns how many bytes were not read yet.
    pub(crate) fn remaining(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { left, .. } => *left,
        }
    }

    /// Returns the next piece; `None` is the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            Self::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Memory(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::File { left: 0, .. } => Poll::Ready(None),
            Self::File { file, left } => {
                let mut piece = vec![0; PIECE];
                let mut read = ReadBuf::new(&mut piece);
                ready!(Pin::new(&mut **file).poll_read(cx, &mut read))?;
                let count = read.filled().len();
                if count == 0 {
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                *left = left.saturating_sub(count as u64);
                piece.truncate(count);
                Poll::Ready(Some(Ok(piece.into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read_back_from_memory_and_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for (pieces, in_file) in [(0_u8, false), (10, false), (11, true), (200, true)] {
                let mut spool = Spool::new(10_000, folder.path().to_owned());
                for piece in 0..pieces {
                    spool.add(&[piece; 1000]).await.unwrap();
                }
                let mut spooled = spool.finish().await.unwrap();
                assert_eq!(spooled.remaining(), u64::from(pieces) * 1000);
                assert_eq!(matches!(spooled, Spooled::File { .. }), in_file, "{pieces}");
                let mut read = Vec::new();
                while let Some(piece) = std::future::poll_fn(|cx| spooled.poll_next(cx)).await {
                    read.extend_from_slice(&piece.unwrap());
                }
                let sent: Vec<u8> = (0..pieces).flat_map(|piece| [piece; 1000]).collect();
                assert!(read == sent && spooled.remaining() == 0, "{pieces}");
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
