//! The access log: workers hand over finished lines in pieces, a thread of its own writes them. A request never waits for it:
//! what does not fit is dropped and counted.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::log_target::Target;

/// A worker hands its lines over at this many bytes, and at each of its ticks.
const PIECE: usize = 32 * 1024;
/// So many pieces may wait for the disk: a few MiB, and then lines are dropped.
const PIECES: usize = 128;
/// At the end the writer has so long for what was handed over.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How soon the writer hears that the file is to be opened anew.
const LISTEN: Duration = Duration::from_millis(200);

/// The access log of a proxy.
pub(crate) struct AccessLog {
    /// Where workers hand their lines over.
    pub(crate) lines: Lines,
    /// Disconnected when the writer has ended.
    ended: Receiver<()>,
}

/// What workers share of it.
#[derive(Clone)]
pub(crate) struct Lines {
    sender: SyncSender<Piece>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    dropped: AtomicU64,
    /// The target is to be opened anew, or another is to take its place.
    reopen: AtomicBool,
    next: Mutex<Option<Target>>,
    ends: AtomicBool,
}

enum Piece {
    Lines(Vec<u8>, u64),
    End,
}

impl AccessLog {
    /// Starts to write.
    ///
    /// # Errors
    /// Where the thread can't be started.
    pub(crate) fn start(target: Target) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(PIECES);
        let shared = Arc::new(Shared::default());
        let (ends, ended) = channel();
        thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let _ends: Sender<()> = ends;
                write_all(target, &receiver, &shared);
            }
        })?;
        Ok(Self { lines: Lines { sender, shared }, ended })
    }
}

impl Drop for AccessLog {
    /// Writes what was handed over; a disk or a reader that takes nothing keeps nobody from ending.
    fn drop(&mut self) {
        self.lines.shared.ends.store(true, Ordering::Relaxed);
        // Where there is no room for it, the writer looks by itself when it comes to the end of what waits.
        drop(self.lines.sender.try_send(Piece::End));
        // Disconnected is what it waits for; a time-out is as final.
        _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

impl Lines {
    /// Writes elsewhere, soon.
    pub(crate) fn write_to(&self, target: Target) {
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
        self.reopen();
    }

    /// Opens the file anew, soon: it was moved away, or is there at last.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Returns how many lines were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn hand_over(&self, lines: Vec<u8>, count: u64) {
        match self.sender.try_send(Piece::Lines(lines, count)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

/// The lines of one worker that were not handed over yet.
pub(crate) struct WorkerLog {
    lines: Lines,
    piece: RefCell<(Vec<u8>, u64)>,
    turn: Cell<u32>,
}

impl WorkerLog {
    pub(crate) fn new(lines: Lines) -> Self {
        Self { lines, piece: RefCell::default(), turn: Cell::new(0) }
    }

    /// Counts requests, to tell the one of so many that is written.
    pub(crate) fn is_turn(&self, one_in: u32) -> bool {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % one_in.max(1));
        turn == 0
    }

    /// Adds a line, which brings its own end.
    pub(crate) fn add(&self, line: &[u8]) {
        let mut piece = self.piece.borrow_mut();
        piece.0.extend_from_slice(line);
        piece.1 += 1;
        let is_full = piece.0.len() >= PIECE;
        drop(piece);
        if is_full {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        let (lines, count) = self.piece.take();
        if count > 0 {
            self.lines.hand_over(lines, count);
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

fn write_all(mut target: Target, receiver: &Receiver<Piece>, shared: &Shared) {
    let mut is_broken = false;
    loop {
        let piece = receiver.recv_timeout(LISTEN);
        if shared.reopen.swap(false, Ordering::Relaxed) {
            match shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(next) => target = next,
                None => target.reopen(),
            }
        }
        target.retry();
        match piece {
            Ok(Piece::Lines(lines, count)) => {
                let written = target.write(&lines);
                if let Err(error) = &written {
                    shared.dropped.fetch_add(count, Ordering::Relaxed);
                    // Once, not for each line: a full disk must not fill the log that tells it.
                    if !is_broken {
                        tracing::error!(%error, "the access log can't be written; lines are dropped");
                    }
                }
                is_broken = written.is_err();
            }
            Ok(Piece::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if shared.ends.load(Ordering::Relaxed) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
