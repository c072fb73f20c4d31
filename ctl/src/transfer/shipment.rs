//! An image under way: in one archive without what is there, or, where it is big, in several loads.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive::{Rewritten, rewrite};
use super::gzip::Gzip;
use super::pipe;
use super::progress::Progress;
use crate::context::Context;
use crate::engine::EngineError;
use crate::engine::docker::{Docker, Present, StoredImage};

/// An image under way.
pub(super) struct Shipment<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) from: &'a Docker,
    pub(super) to: &'a Docker,
    pub(super) reference: &'a str,
    pub(super) image: &'a StoredImage,
    /// What went over the wire, over all loads.
    pub(super) sent: Arc<AtomicU64>,
    /// The bytes that this stands for, before they were compressed.
    pub(super) raw: Arc<AtomicU64>,
}

impl Shipment<'_> {
    /// Sends the image in one archive, without the layers that are there.
    pub(super) async fn send(&self, present: Present) -> Result<Rewritten, EngineError> {
        let (base, missing) = self.image.layers.split_at(present.layers);
        // The same content may stand a second time above what is there.
        let missing: HashSet<&String> = missing.iter().collect();
        let without: HashSet<String> = base.iter().filter(|layer| !missing.contains(layer)).cloned().collect();
        let source = pipe::source(self.from.export(self.reference));
        self.telling(present, self.load(move |out| rewrite(source, out, &without))).await
    }

    /// Does something while it is told how far it is.
    pub(super) async fn telling<T>(
        &self,
        present: Present,
        sending: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let progress = Progress {
            what: format!("sending {} to {}", self.reference, self.to.target()),
            sent: Arc::clone(&self.sent),
            raw: Arc::clone(&self.raw),
            expected: self.image.size.saturating_sub(present.size),
        };
        tokio::select! {
            sent = sending => sent,
            never = progress.tell(self.context.ui) => match never {},
        }
    }

    /// Loads the archive that a thread of its own writes, compressed where that saves something.
    pub(super) async fn load<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let Self { from, to, reference, .. } = *self;
        let (sink, stream) = pipe::sink(Arc::clone(&self.sent));
        let is_compressed = !to.is_here();
        let counted = Arc::clone(&self.raw);
        let writing = tokio::task::spawn_blocking(move || {
            let mut sink = sink;
            match compress(write, &mut sink, is_compressed, &counted) {
                Ok(written) => Ok(written),
                Err(error) => {
                    sink.fail(&error);
                    Err(error)
                }
            }
        });
        let loaded = to.load(stream).await;
        match (loaded, writing.await) {
            // What ended the reading here ended the loading there too.
            (_, Ok(Err(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(EngineError::Unreachable(format!("read {reference} from {}: {error}", from.target())))
            }
            (Err(error), _) => Err(error),
            (Ok(()), Ok(written)) => {
                written.map_err(|error| EngineError::Unreachable(format!("send {reference}: {error}")))
            }
            (Ok(()), Err(error)) => Err(EngineError::Unreachable(format!("send {reference}: {error}"))),
        }
    }

    /// Returns how many bytes went over the wire.
    pub(super) fn bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Lets an archive be written, compressed or not.
fn compress<T>(
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    sink: &mut pipe::Sink,
    is_compressed: bool,
    raw: &AtomicU64,
) -> io::Result<T> {
    if !is_compressed {
        let written = write(&mut Counted { out: &mut *sink, count: raw })?;
        sink.flush()?;
        return Ok(written);
    }
    let mut gzip = Gzip::new(&mut *sink);
    let written = write(&mut Counted { out: &mut gzip, count: raw })?;
    gzip.finish()?.flush()?;
    Ok(written)
}

/// Counts what is written.
struct Counted<'a, W> {
    out: W,
    count: &'a AtomicU64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
