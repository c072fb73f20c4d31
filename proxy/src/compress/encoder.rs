//! One answer's encoder: bytes in, coded bytes out, flushed where its source has paused.
//!
//! The codecs' own writers are used, which can be flushed at any byte: an adapter of streams would hold a slow one back.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use config::edge::Algorithm;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

/// Answers are compressed while visitors wait: what costs a few nanoseconds a byte and leaves little to gain.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: i32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Looks back this far at most (2^18 bytes): what a page repeats is near, and each answer under way has a window of its own.
const WINDOW_BITS: u32 = 18;
/// What brotli and zstd need besides the window, with the levels above.
const TABLES_BYTES: usize = 768 * 1024;
/// What gzip needs: its window is never larger than 32 KiB.
const GZIP_BYTES: usize = 320 * 1024;

/// The memory of a worker's encoders. Where it is used up, answers go as they are.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Rc<Cell<usize>>);

impl Budget {
    /// Returns so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    fn take(&self, bytes: usize) -> Option<Share> {
        self.0.set(self.0.get().checked_sub(bytes)?);
        Some(Share { budget: self.clone(), bytes })
    }
}

/// A part of it, given back when dropped.
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
    }
}

/// Encodes one answer.
pub(super) struct Encoder {
    codec: Codec,
    _share: Share,
}

enum Codec {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// Returns an encoder of an answer that is so long, where that is known; `None` where there is no memory left for one.
    pub(super) fn new(coding: Algorithm, length: Option<u64>, budget: &Budget) -> Option<Self> {
        let window_bits = window_bits(length);
        let share = budget.take(match coding {
            Algorithm::Gzip => GZIP_BYTES,
            Algorithm::Br | Algorithm::Zstd => TABLES_BYTES + (3 << window_bits),
        })?;
        let codec = match coding {
            Algorithm::Gzip => Codec::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Algorithm::Br => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: i32::try_from(window_bits).unwrap_or(10),
                    size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                Codec::Brotli(Box::new(CompressorWriter::with_params(Vec::new(), 0, &params)))
            }
            Algorithm::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok()?;
                encoder.set_parameter(CParameter::WindowLog(window_bits)).ok()?;
                Codec::Zstd(encoder)
            }
        };
        Some(Self { codec, _share: share })
    }

    /// Takes bytes of the answer.
    ///
    /// # Errors
    /// Where the codec fails.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.codec {
            Codec::Gzip(gzip) => gzip.write_all(bytes),
            Codec::Brotli(brotli) => brotli.write_all(bytes),
            Codec::Zstd(zstd) => zstd.write_all(bytes),
        }
    }

    /// Brings out all that was taken, so that the client can read it.
    ///
    /// # Errors
    /// Where the codec fails.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.codec {
            Codec::Gzip(gzip) => gzip.flush(),
            Codec::Brotli(brotli) => brotli.flush(),
            Codec::Zstd(zstd) => zstd.flush(),
        }
    }

    /// Returns how many coded bytes there are.
    pub(super) fn ready(&self) -> usize {
        match &self.codec {
            Codec::Gzip(gzip) => gzip.get_ref().len(),
            Codec::Brotli(brotli) => brotli.get_ref().len(),
            Codec::Zstd(zstd) => zstd.get_ref().len(),
        }
    }

    /// Takes them out.
    pub(super) fn take(&mut self) -> Bytes {
        let out = match &mut self.codec {
            Codec::Gzip(gzip) => gzip.get_mut(),
            Codec::Brotli(brotli) => brotli.get_mut(),
            Codec::Zstd(zstd) => zstd.get_mut(),
        };
        std::mem::take(out).into()
    }

    /// Ends the answer, and returns what is left of it.
    ///
    /// # Errors
    /// Where the codec fails.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        let out = match self.codec {
            Codec::Gzip(gzip) => gzip.finish()?,
            Codec::Brotli(brotli) => brotli.into_inner(),
            Codec::Zstd(zstd) => zstd.finish()?,
        };
        Ok(out.into())
    }
}

/// No window is larger than what it is for.
fn window_bits(length: Option<u64>) -> u32 {
    let Some(length) = length else { return WINDOW_BITS };
    length.next_power_of_two().trailing_zeros().clamp(10, WINDOW_BITS)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// Decodes as much as can be read, by other programs' code than what encoded it where there is any.
    pub(crate) fn decode(coding: Algorithm, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut source: Box<dyn Read + '_> = match coding {
            Algorithm::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Algorithm::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Algorithm::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let mut piece = [0; 4096];
        // An answer under way ends in an error of the decoder.
        while let Ok(read @ 1..) = source.read(&mut piece) {
            out.extend_from_slice(&piece[..read]);
        }
        out
    }

    #[test]
    fn all_that_was_taken_can_be_read_after_a_flush() {
        for coding in Algorithm::ALL {
            let mut encoder = Encoder::new(coding, None, &Budget::new(usize::MAX)).unwrap();
            let (mut sent, mut plain) = (Vec::new(), Vec::new());
            for number in 0..50 {
                let line = format!("line {number} of a slow answer\n");
                encoder.write(line.as_bytes()).unwrap();
                encoder.flush().unwrap();
                plain.extend_from_slice(line.as_bytes());
                sent.extend_from_slice(&encoder.take());
                assert_eq!(decode(coding, &sent), plain, "{coding:?}");
            }
            sent.extend_from_slice(&encoder.finish().unwrap());
            assert_eq!(decode(coding, &sent), plain, "{coding:?}");
        }
    }

    #[test]
    fn memory_that_is_used_up_is_no_error_and_comes_back() {
        let budget = Budget::new(TABLES_BYTES + GZIP_BYTES + (3 << WINDOW_BITS));
        let first = Encoder::new(Algorithm::Br, None, &budget).unwrap();
        assert!(Encoder::new(Algorithm::Zstd, None, &budget).is_none());
        let gzip = Encoder::new(Algorithm::Gzip, None, &budget);
        assert!(gzip.is_some() && Encoder::new(Algorithm::Gzip, None, &budget).is_none());
        drop(first);
        assert!(Encoder::new(Algorithm::Zstd, None, &budget).is_some());
    }

    #[test]
    fn a_window_is_as_long_as_its_answer_and_no_longer_than_ours() {
        for (length, bits) in [(Some(0), 10), (Some(1024), 10), (Some(1025), 11), (Some(1 << 40), 18), (None, 18)] {
            assert_eq!(window_bits(length), bits, "{length:?}");
        }
        for coding in Algorithm::ALL {
            // It may be longer than its length said, and is coded all the same.
            let mut encoder = Encoder::new(coding, Some(5), &Budget::new(usize::MAX)).unwrap();
            let plain = "<p>again and again".repeat(10_000);
            encoder.write(plain.as_bytes()).unwrap();
            let sent = encoder.finish().unwrap();
            assert!(sent.len() * 10 < plain.len(), "{coding:?}: {} bytes", sent.len());
            assert_eq!(decode(coding, &sent), plain.as_bytes(), "{coding:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_bytes_in_any_pieces_come_back(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..20),
        ) {
            for coding in Algorithm::ALL {
                let mut encoder = Encoder::new(coding, None, &Budget::new(usize::MAX)).unwrap();
                let (mut sent, mut plain) = (Vec::new(), Vec::new());
                for (piece, is_flushed) in &pieces {
                    encoder.write(piece).unwrap();
                    plain.extend_from_slice(piece);
                    if *is_flushed {
                        encoder.flush().unwrap();
                    }
                    sent.extend_from_slice(&encoder.take());
                }
                sent.extend_from_slice(&encoder.finish().unwrap());
                prop_assert_eq!(decode(coding, &sent), plain, "{:?}", coding);
            }
        }
    }
}
