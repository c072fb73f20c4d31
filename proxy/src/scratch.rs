//! Memory that one request leaves to the next: a worker's requests come one after the other, and asking the allocator anew for
//! each of them costs more than filling it.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// Heads and ids are cut from blocks of this size: large enough for a dozen requests, small enough to be held by the last of
/// them that is slow.
const BLOCK: usize = 4096;
/// A map for more fields than this is not kept.
const USUAL_FIELDS: usize = 64;

/// What a worker keeps for its next request.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: RefCell<Block>,
    fields: RefCell<HeaderMap>,
}

#[derive(Default)]
struct Block {
    text: Vec<u8>,
    block: BytesMut,
}

impl Scratch {
    /// Returns what is written, in a place of its own.
    pub(crate) fn bytes(&self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let Block { text, block } = &mut *self.bytes.borrow_mut();
        text.clear();
        write(text);
        if text.len() > block.capacity() {
            block.reserve(text.len().max(BLOCK));
        }
        block.extend_from_slice(text);
        block.split().freeze()
    }

    /// Returns an empty map of fields.
    pub(crate) fn take_fields(&self) -> HeaderMap {
        self.fields.take()
    }

    /// Keeps a map whose fields are of no more use.
    pub(crate) fn keep_fields(&self, mut fields: HeaderMap) {
        if fields.capacity() <= USUAL_FIELDS {
            fields.clear();
            self.fields.replace(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stays_when_more_is() {
        let scratch = Scratch::default();
        let all: Vec<Bytes> = (0..2000_usize).map(|n| scratch.bytes(|out| out.extend(vec![n as u8; n % 70]))).collect();
        assert!(all.iter().enumerate().all(|(n, bytes)| **bytes == vec![n as u8; n % 70]));
        let long = scratch.bytes(|out| out.extend([7; 3 * BLOCK]));
        assert_eq!((long.len(), scratch.bytes(|_| {}).len()), (3 * BLOCK, 0));
    }

    #[test]
    fn a_map_comes_back_empty_and_a_large_one_not_at_all() {
        let scratch = Scratch::default();
        let map = |capacity| {
            let mut map = HeaderMap::with_capacity(capacity);
            map.insert("a", http::HeaderValue::from_static("b"));
            map
        };
        scratch.keep_fields(map(10));
        let kept = scratch.take_fields();
        assert!(kept.is_empty() && kept.capacity() >= 10);
        scratch.keep_fields(map(1000));
        assert_eq!(scratch.take_fields().capacity(), 0);
    }
}
