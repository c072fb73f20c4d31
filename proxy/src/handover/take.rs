//! The new process's side of a hand-over. As long as the old one lives it has a say; where it dies, what it gave is enough.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use config::admin::CAN_NOT_ASK;

use super::wire::{PROTOCOL, Wire, Word};
use crate::belongings::{Parcel, Thing};
use crate::doors::{Door, is_of};
use crate::socket::Port;

/// A hand-over under way.
pub(crate) struct Succession {
    wire: Wire,
    /// What was given and nobody has taken up yet.
    parcel: Parcel,
}

/// Why it came to nothing, in words; the old process serves.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

impl Succession {
    /// Asks the proxy that has a state folder for everything; `None` where none answers there.
    ///
    /// # Errors
    /// Why it refuses.
    pub(crate) fn ask(state: &Path) -> Result<Option<Self>, Refusal> {
        let stream = match UnixStream::connect(super::socket(state)) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(Refusal(format!("{CAN_NOT_ASK}: {error}"))),
        };
        let broken = |error: io::Error| Refusal(format!("the running proxy broke off: {error}"));
        let wire = Wire::new(stream).map_err(broken)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        wire.say(&Word::Hello { protocol: PROTOCOL, version }).map_err(broken)?;
        match wire.hear().map_err(broken)? {
            Word::Offer { version, things } => {
                let parcel = wire.receive(&things).map_err(broken)?;
                tracing::info!(version, things = things.len(), "taking over from the running proxy");
                Ok(Some(Self { wire, parcel }))
            }
            Word::Never { why } => Err(Refusal(why)),
            word => Err(Refusal(format!("the running proxy said something else than was expected: {word:?}"))),
        }
    }

    /// Tells the proxy that has a state folder, where there is one, why nothing comes of what it may have started.
    pub(crate) fn decline(state: &Path, why: String) {
        let told = UnixStream::connect(super::socket(state)).and_then(Wire::new);
        // Nobody there wants no word.
        _ = told.and_then(|wire| wire.say(&Word::Never { why }));
    }

    /// Takes the sockets of visitors out of the parcel.
    pub(crate) fn doors(&mut self) -> Vec<Door> {
        let is_door = |thing: &Thing| matches!(thing, Thing::Plain | Thing::Tls);
        let (doors, rest): (Parcel, Parcel) =
            std::mem::take(&mut self.parcel).into_iter().partition(|(t, _)| is_door(t));
        self.parcel = rest;
        let port = |thing| if thing == Thing::Tls { Port::Tls } else { Port::Plain };
        doors.into_iter().map(|(thing, fd)| (port(thing), TcpListener::from(fd))).collect()
    }

    /// Takes the admin socket, where its file is the one of that identity: in another container there is another.
    pub(crate) fn admin(&mut self, (own_device, own_inode): (u64, u64)) -> Option<OwnedFd> {
        self.take(|thing| *thing == Thing::Admin { device: own_device, inode: own_inode })
    }

    /// Takes the socket of the metrics, where it is that of the address.
    pub(crate) fn metrics(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let socket = TcpListener::from(self.take(|thing| *thing == Thing::Metrics)?);
        socket.local_addr().is_ok_and(|has| is_of(has, address)).then_some(socket)
    }

    /// Takes the lock of the state folder.
    pub(crate) fn lock(&mut self) -> Option<OwnedFd> {
        self.take(|thing| *thing == Thing::Lock)
    }

    fn take(&mut self, is_it: impl Fn(&Thing) -> bool) -> Option<OwnedFd> {
        let place = self.parcel.iter().position(|(thing, _)| is_it(thing))?;
        Some(self.parcel.swap_remove(place).1)
    }

    /// Says that nothing is lacking, and waits until the state is ours.
    ///
    /// # Errors
    /// Why the old one keeps it.
    pub(crate) fn ready(&self) -> Result<(), Refusal> {
        self.proceed(&Word::Ready, &Word::Yours)
    }

    /// Says that we serve, and waits until the old one does no more; returns the wire by which its end is seen.
    ///
    /// # Errors
    /// Why the old one goes on.
    pub(crate) fn serving(self) -> Result<UnixStream, Refusal> {
        self.proceed(&Word::Serving, &Word::Done)?;
        Ok(self.wire.into_inner())
    }

    /// Says that it came to nothing.
    pub(crate) fn never(&self, why: &impl ToString) {
        // Gone, it knows that we end by our own end.
        _ = self.wire.say(&Word::Never { why: why.to_string() });
    }

    fn proceed(&self, say: &Word, expect: &Word) -> Result<(), Refusal> {
        let heard = self.wire.say(say).and_then(|()| self.wire.hear());
        match heard {
            Ok(heard) if heard == *expect => Ok(()),
            Ok(Word::Never { why }) => Err(Refusal(why)),
            Ok(word) => Err(Refusal(format!("the running proxy said something else than was expected: {word:?}"))),
            // It would have said that it goes on, so it was killed: all that it had is here.
            Err(error) if is_end(&error) => {
                tracing::warn!("the old process died in the midst of the hand-over; going on without it");
                Ok(())
            }
            Err(error) => Err(Refusal(format!("the running proxy is silent: {error}"))),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}
