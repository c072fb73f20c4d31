//! The old process's side of a hand-over: a successor asks at the state folder's socket, and is given everything, step by step.
//! Until the last step the way back is to go on serving.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::wire::{PROTOCOL, Wire, Word};
use crate::admin::server::may_enter;
use crate::belongings::Parcel;
use crate::control::custody::Step;
use crate::control::reload::Order;

/// After an accept that failed for want of something, the pause before the next.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts successors for as long as the control thread lives. A conversation has a thread of its own, as it waits for the other
/// process; only one of them gets beyond the first step.
pub(crate) async fn accept(listener: &UnixListener, orders: &mpsc::UnboundedSender<Order>) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "can't accept at the socket of the hand-over; trying again");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let begun = match stream.peer_cred() {
            Ok(peer) if may_enter(peer.uid(), own) => stream.into_std().and_then(|stream| begin(stream, orders)),
            Ok(peer) => Err(io::Error::other(format!("uid {} may not", peer.uid()))),
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            tracing::warn!(%error, "a successor was refused");
        }
    }
}

fn begin(stream: UnixStream, orders: &mpsc::UnboundedSender<Order>) -> io::Result<()> {
    let (wire, orders) = (Wire::new(stream)?, orders.clone());
    thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
        let giver = Giver { wire, orders };
        match giver.give() {
            Ok(()) => giver.stay(),
            Err(Fate::Refused(why)) => {
                tracing::warn!(why, "no successor takes over; this process serves on");
                // Where another one is on its way, that is what is waited for.
                drop(giver.step(Step::Note(why.clone())));
                giver.never(why);
            }
            Err(Fate::TakenBack(why)) => {
                tracing::error!(why, "the hand-over failed; this process serves on");
                // First ours again, and then told: whoever is told may ask us at once.
                drop(giver.step(Step::TakeBack(why.clone())));
                giver.never(why);
            }
        }
    })?;
    Ok(())
}

/// How a hand-over failed.
enum Fate {
    /// Nothing had begun.
    Refused(String),
    /// What was offered is ours again.
    TakenBack(String),
}

struct Giver {
    wire: Wire,
    orders: mpsc::UnboundedSender<Order>,
}

impl Giver {
    fn give(&self) -> Result<(), Fate> {
        let refused = |why: String| Fate::Refused(why);
        match self.wire.hear() {
            Ok(Word::Hello { protocol: PROTOCOL, version }) => tracing::info!(version, "a successor asks"),
            Ok(Word::Hello { protocol, version }) => {
                return Err(Fate::Refused(format!(
                    "version {version} speaks another hand-over ({protocol}) than this one ({PROTOCOL})"
                )));
            }
            Ok(Word::Never { why }) => return Err(Fate::Refused(why)),
            heard => return Err(Fate::Refused(unexpected(heard))),
        }
        let parcel = self.step(Step::Offer).map_err(refused)?;
        let back = |error: io::Error| Fate::TakenBack(format!("the new process can't be reached: {error}"));
        let things = parcel.iter().map(|(thing, _)| *thing).collect();
        self.wire.say(&Word::Offer { version: env!("CARGO_PKG_VERSION").to_owned(), things }).map_err(back)?;
        self.wire.send(&parcel).map_err(back)?;
        drop(parcel);
        self.expect(&Word::Ready)?;
        self.step(Step::Give).map_err(Fate::TakenBack)?;
        self.wire.say(&Word::Yours).map_err(back)?;
        self.expect(&Word::Serving)?;
        self.step(Step::Leave).map_err(Fate::TakenBack)?;
        // From here on there is no way back: whether it hears this or not, it serves and we don't.
        _ = self.wire.say(&Word::Done);
        Ok(())
    }

    /// Waits for a word, which only the end of this process cuts off: by it the other knows that nobody is left here.
    fn stay(&self) {
        _ = self.wire.wait_forever();
        if let Ok(Word::Hurry) = self.wire.hear() {
            drop(self.step(Step::Hurry));
        }
        loop {
            // The other may end before us; this end must not be closed before we are gone.
            thread::park();
        }
    }

    fn expect(&self, word: &Word) -> Result<(), Fate> {
        match self.wire.hear() {
            Ok(heard) if heard == *word => Ok(()),
            Ok(Word::Never { why }) => Err(Fate::TakenBack(why)),
            heard => Err(Fate::TakenBack(unexpected(heard))),
        }
    }

    fn never(&self, why: String) {
        // It may be gone; then there is nobody to tell.
        _ = self.wire.say(&Word::Never { why });
    }

    fn step(&self, step: Step) -> Result<Parcel, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the running proxy is ending".to_owned();
        self.orders.send(Order::HandOver(step, reply)).map_err(|_| gone())?;
        answer.blocking_recv().map_err(|_| gone())?
    }
}

fn unexpected(heard: io::Result<Word>) -> String {
    match heard {
        Ok(word) => format!("the new process said something else than was expected: {word:?}"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the new process ended".to_owned(),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            "the new process said nothing for 30 s".to_owned()
        }
        Err(error) => format!("the new process was not understood: {error}"),
    }
}
