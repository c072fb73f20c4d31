//! Where frames of a WebSocket begin and end (RFC 6455 section 5.2), so that one can be closed between two of them.

/// `Close` with status 1012, "service restart", as a server sends it.
pub(crate) const CLOSE_TO_CLIENT: [u8; 4] = close(0x88, 2, [0; 4], 1012);

/// `Close` with status 1001, "going away", as a client sends it: masked, by a key that needs no secrecy here, for nothing of it
/// is a visitor's (RFC 6455 section 10.3).
pub(crate) fn close_to_application() -> [u8; 8] {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let [first, second, high, low] = close(0x88, 0x80 | 2, key, 1001);
    [first, second, key[0], key[1], key[2], key[3], high, low]
}

const fn close(first: u8, second: u8, key: [u8; 4], status: u16) -> [u8; 4] {
    let [high, low] = status.to_be_bytes();
    [first, second, high ^ key[0], low ^ key[1]]
}

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;

/// The frames of one direction, followed as their bytes pass.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What came of the head of the frame under way.
    head: [u8; 14],
    head_length: usize,
    /// What is still to come of its payload, once its head is whole.
    left: u64,
}

/// How far bytes reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// So many of them end the frame under way.
    pub(crate) bytes: usize,
    /// It is over, and it was a `Close`.
    pub(crate) closes: bool,
}

impl Frames {
    /// Tells whether the next byte begins a frame.
    pub(crate) fn is_between(&self) -> bool {
        self.head_length == 0 && self.left == 0
    }

    /// Takes bytes up to the end of the frame under way, or of the one that begins with them.
    pub(crate) fn take_one(&mut self, bytes: &[u8]) -> Reach {
        let mut at = 0;
        let needed = loop {
            let needed = self.head_bytes();
            if self.head_length >= needed {
                break needed;
            }
            let Some(byte) = bytes.get(at) else { return Reach { bytes: at, closes: false } };
            self.head[self.head_length] = *byte;
            self.head_length += 1;
            at += 1;
            if self.head_length == self.head_bytes() {
                self.left = self.payload();
            }
        };
        debug_assert_eq!(self.head_length, needed);
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
        self.left -= taken as u64;
        let is_over = self.left == 0;
        let closes = is_over && self.head[0] & OPCODE == CLOSE;
        if is_over {
            self.head_length = 0;
        }
        Reach { bytes: at + taken, closes }
    }

    /// Takes all of the bytes; returns how many come before the first `Close`, where there is one.
    pub(crate) fn take_all(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut began) = (0, 0);
        while at < bytes.len() {
            if self.is_between() {
                began = at;
            }
            let Reach { bytes: taken, closes } = self.take_one(&bytes[at..]);
            at += taken;
            if closes {
                return Some(began);
            }
        }
        None
    }

    /// Returns how long the head of the frame under way is, as far as can be told.
    fn head_bytes(&self) -> usize {
        if self.head_length < 2 {
            return 2;
        }
        let length = match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & MASKED == 0 { 0 } else { 4 }
    }

    fn payload(&self) -> u64 {
        match self.head[1] & !MASKED {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => u64::from_be_bytes(std::array::from_fn(|at| self.head[2 + at])),
            length => u64::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of so many bytes, masked or not.
    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | length as u8),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        bytes.resize(bytes.len() + length, 0x88);
        bytes
    }

    #[test]
    fn the_close_frames_are_those_of_the_standard() {
        assert_eq!(CLOSE_TO_CLIENT, [0x88, 0x02, 0x03, 0xf4]);
        let masked = close_to_application();
        let unmasked: Vec<u8> = masked[6..].iter().zip(&masked[2..6]).map(|(byte, key)| byte ^ key).collect();
        assert_eq!((&masked[..2], unmasked.as_slice()), (&[0x88, 0x82][..], &1001_u16.to_be_bytes()[..]));
    }

    #[test]
    fn a_close_is_found_behind_other_frames_and_not_inside_of_them() {
        let mut frames = Frames::default();
        let mut bytes = frame(1, 5, true);
        let before = bytes.len();
        bytes.extend(frame(CLOSE, 2, true));
        assert_eq!(frames.take_all(&bytes), Some(before));
        assert!(frames.is_between());
        assert_eq!(frames.take_all(&frame(2, 300, false)), None);
        assert!(frames.is_between());
    }

    proptest! {
        #[test]
        fn every_frame_ends_where_it_ends_however_its_bytes_come(
            lengths in proptest::collection::vec((prop_oneof![0..200_usize, 65_000..66_000_usize], any::<bool>()), 1..5),
            pieces in proptest::collection::vec(1..5_000_usize, 1..10),
        ) {
            let mut frames = Frames::default();
            for (length, masked) in lengths {
                let bytes = frame(2, length, masked);
                let (mut at, mut piece) = (0, 0);
                while at < bytes.len() {
                    prop_assert!(at == 0 || !frames.is_between());
                    let end = bytes.len().min(at + pieces[piece % pieces.len()]);
                    // Whatever comes behind it is not taken.
                    let more = if end == bytes.len() { [&bytes[at..], &[0x81, 0x05]].concat() } else { bytes[at..end].to_vec() };
                    let reach = frames.take_one(&more);
                    prop_assert_eq!(reach, Reach { bytes: end - at, closes: false });
                    at = end;
                    piece += 1;
                }
                prop_assert!(frames.is_between());
            }
        }
    }
}
