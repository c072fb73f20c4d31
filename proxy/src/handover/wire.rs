//! What the old process and the new one say to each other on a Unix socket: documents behind their length, and open files.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::belongings::{Parcel, Thing};

/// The version of this conversation.
pub(crate) const PROTOCOL: u32 = 1;
/// Each waits so long for the other's next word.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// A document is no longer than this: one of a thousand sockets has a tenth of it.
const LONGEST: u32 = 1024 * 1024;
/// So many files go with one message; the kernel allows 253.
const FILES: usize = 64;

/// A word of the conversation, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "word")]
pub(crate) enum Word {
    /// The new one begins.
    Hello {
        /// The version of the conversation that it speaks.
        protocol: u32,
        /// Its version.
        version: String,
    },
    /// The old one names what it has; as many files follow.
    Offer {
        /// Its version.
        version: String,
        /// What they are.
        things: Vec<Thing>,
    },
    /// The new one has read the state and has all that it needs; it has changed nothing.
    Ready,
    /// The old one writes no state any more, and answers no admin call.
    Yours,
    /// The new one serves.
    Serving,
    /// The old one accepts no more. What it still has it finishes.
    Done,
    /// The new one has changed where requests go: whoever is idle with the old one is to come anew.
    Hurry,
    /// Either gives up, at any time before it is done. The old one serves on.
    Never {
        /// Why.
        why: String,
    },
}

impl Word {
    /// Returns it as it goes over the wire.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&text);
        Ok(bytes)
    }
}

/// One end of a conversation.
pub(crate) struct Wire(UnixStream);

impl Wire {
    /// Returns an end that waits for the other, within bounds.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Waits for the other's next word without an end from now on.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn wait_forever(&self) -> io::Result<()> {
        self.0.set_read_timeout(None)
    }

    /// Returns the bare socket.
    pub(crate) fn into_inner(self) -> UnixStream {
        self.0
    }

    /// Says a word.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn say(&self, word: &Word) -> io::Result<()> {
        (&self.0).write_all(&word.to_bytes()?)
    }

    /// Waits for a word.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the other is gone, [`io::ErrorKind::WouldBlock`] where it is silent, and what is no
    /// word.
    pub(crate) fn hear(&self) -> io::Result<Word> {
        let mut length = [0; 4];
        (&self.0).read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a word is too long"));
        }
        let mut text = vec![0; length as usize];
        (&self.0).read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Sends open files.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send(&self, parcel: &Parcel) -> io::Result<()> {
        let files: Vec<BorrowedFd<'_>> = parcel.iter().map(|(_, fd)| fd.as_fd()).collect();
        for files in files.chunks(FILES) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::Error::other("no room for so many files in one message"));
            }
            // Files go with a byte at least.
            sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Takes as many open files as there are things.
    ///
    /// # Errors
    /// Those of the socket, and another number of files.
    pub(crate) fn receive(&self, things: &[Thing]) -> io::Result<Parcel> {
        let mut files: Vec<OwnedFd> = Vec::with_capacity(things.len());
        while files.len() < things.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            // No program that we start is to have them.
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
            let before = files.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(more) = message {
                    files.extend(more);
                }
            }
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if files.len() == before {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message came without its files"));
            }
        }
        if files.len() != things.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more files came than were named"));
        }
        Ok(things.iter().copied().zip(files).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn words_and_more_files_than_one_message_takes_arrive_in_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Wire::new(one).unwrap(), Wire::new(other).unwrap());
        let sockets: Vec<TcpListener> = (0..FILES * 2 + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |socket: &TcpListener| socket.local_addr().unwrap();
        let parcel: Parcel = sockets.iter().map(|socket| (Thing::Plain, socket.try_clone().unwrap().into())).collect();
        let things: Vec<Thing> = parcel.iter().map(|(thing, _)| *thing).collect();
        let offer = Word::Offer { version: "1".to_owned(), things: things.clone() };
        one.say(&offer).unwrap();
        one.send(&parcel).unwrap();
        one.say(&Word::Ready).unwrap();
        assert_eq!(other.hear().unwrap(), offer);
        let received = other.receive(&things).unwrap();
        assert_eq!(other.hear().unwrap(), Word::Ready);
        let received: Vec<_> = received.into_iter().map(|(_, fd)| address(&TcpListener::from(fd))).collect();
        assert_eq!(received, sockets.iter().map(address).collect::<Vec<_>>());
    }

    #[test]
    fn an_end_and_what_is_no_word_are_told_from_a_word() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Wire::new(one).unwrap(), Wire::new(other).unwrap());
        one.say(&Word::Ready).unwrap();
        (&one.0).write_all(&u32::MAX.to_be_bytes()).unwrap();
        drop(one);
        assert_eq!(other.hear().unwrap(), Word::Ready);
        assert_eq!(other.hear().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(other.hear().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
