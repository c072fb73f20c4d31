//! A strict HTTP/1 codec for the upstream side: bytes in, messages out, no I/O.
//!
//! An application's answer is either one clear message by RFC 9112 or it is refused; nothing ambiguous is repaired.

mod chunked;
mod head;

pub(crate) use chunked::{Chunked, Piece, last_chunk};
pub(crate) use head::{Framing, ResponseHead, parse, parse_into};

/// An answer that is not one clear HTTP/1 message, and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[cfg(test)]
mod tests;
