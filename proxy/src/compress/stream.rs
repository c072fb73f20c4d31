//! An answer's body while it is compressed: what its source gives is coded, and goes on in the same poll where the source
//! pauses. Nothing is kept beyond what the codec itself needs.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::encoder::Encoder;
use crate::error::Error;

/// Coded bytes are sent on in pieces of this, or less where the source pauses.
const PIECE_BYTES: usize = 16 * 1024;
/// What is coded without a pause: other requests of the worker have their turn.
const TURN_BYTES: usize = 128 * 1024;

/// What compresses one answer.
pub(crate) struct Compressor {
    /// `None` once the answer has ended.
    encoder: Option<Encoder>,
    /// Something was taken that the client can't read yet.
    is_dirty: bool,
    /// What follows the body.
    trailers: Option<Frame<Bytes>>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Error>>>;

impl Compressor {
    pub(super) fn new(encoder: Encoder) -> Self {
        Self { encoder: Some(encoder), is_dirty: false, trailers: None }
    }

    /// Tells whether all was given.
    pub(crate) fn is_finished(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    /// Returns the next frame, made of what `source` gives.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Polled,
    ) -> Polled {
        let mut taken = 0;
        loop {
            let Some(encoder) = &mut self.encoder else { return Poll::Ready(self.trailers.take().map(Ok)) };
            let polled = match source(cx) {
                Poll::Pending if self.is_dirty => {
                    self.is_dirty = false;
                    if encoder.flush().is_err() {
                        return self.fail();
                    }
                    match encoder.take() {
                        bytes if bytes.is_empty() => return Poll::Pending,
                        bytes => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    }
                }
                polled => ready!(polled),
            };
            match polled {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if encoder.write(&data).is_err() {
                            return self.fail();
                        }
                        self.is_dirty |= !data.is_empty();
                        if encoder.ready() >= PIECE_BYTES {
                            return Poll::Ready(Some(Ok(Frame::data(encoder.take()))));
                        }
                        taken += data.len();
                        if taken >= TURN_BYTES {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        return self.finish();
                    }
                },
                Some(Err(error)) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => return self.finish(),
            }
        }
    }

    fn finish(&mut self) -> Polled {
        match self.encoder.take().map(Encoder::finish) {
            Some(Ok(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(_)) => self.fail(),
            None => Poll::Ready(None),
        }
    }

    /// A codec fails on nothing but a lack of memory: the answer breaks off, so that nobody takes it for whole.
    fn fail(&mut self) -> Polled {
        (self.encoder, self.trailers) = (None, None);
        Poll::Ready(Some(Err(Error::NotCoded)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use config::edge::Algorithm;
    use http::HeaderMap;

    use super::super::encoder::Budget;
    use super::super::encoder::tests::decode;
    use super::*;

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a source does, poll by poll.
    enum Step {
        Data(Vec<u8>),
        Pause,
        Trailers,
        Fail,
    }

    fn compressor(coding: Algorithm) -> Compressor {
        Compressor::new(Encoder::new(coding, None, &Budget::new(usize::MAX)).unwrap())
    }

    fn source(steps: &mut VecDeque<Step>) -> Polled {
        match steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data.into())))),
            Some(Step::Pause) => Poll::Pending,
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Some(Step::Fail) => Poll::Ready(Some(Err(Error::Silent))),
        }
    }

    #[test]
    fn what_came_goes_on_in_the_poll_that_finds_a_pause() {
        for coding in Algorithm::ALL {
            let mut compressor = compressor(coding);
            let mut steps: VecDeque<Step> =
                [Step::Data(b"one ".to_vec()), Step::Pause, Step::Pause, Step::Data(b"two".to_vec()), Step::Trailers]
                    .into();
            let cx = &mut Context::from_waker(Waker::noop());
            let mut sent = Vec::new();
            let first = compressor.poll_frame(cx, |_| source(&mut steps));
            let Poll::Ready(Some(Ok(frame))) = first else { panic!("{coding:?}: nothing was sent") };
            sent.extend_from_slice(frame.data_ref().unwrap());
            assert_eq!(decode(coding, &sent), b"one ", "{coding:?}");
            // Nothing new came, so nothing goes out.
            assert!(compressor.poll_frame(cx, |_| source(&mut steps)).is_pending());
            let rest = compressor.poll_frame(cx, |_| source(&mut steps));
            let Poll::Ready(Some(Ok(frame))) = rest else { panic!("{coding:?}: no end") };
            sent.extend_from_slice(frame.data_ref().unwrap());
            assert_eq!(decode(coding, &sent), b"one two", "{coding:?}");
            assert!(!compressor.is_finished());
            let trailers = compressor.poll_frame(cx, |_| source(&mut steps));
            assert!(matches!(trailers, Poll::Ready(Some(Ok(frame))) if frame.is_trailers()), "{coding:?}");
            assert!(compressor.is_finished());
            assert!(matches!(compressor.poll_frame(cx, |_| source(&mut steps)), Poll::Ready(None)));
        }
    }

    #[test]
    fn an_answer_that_breaks_off_never_looks_whole() {
        for coding in Algorithm::ALL {
            let mut compressor = compressor(coding);
            let mut steps: VecDeque<Step> = [Step::Data(b"half".to_vec()), Step::Fail].into();
            let cx = &mut Context::from_waker(Waker::noop());
            let polled = compressor.poll_frame(cx, |_| source(&mut steps));
            assert!(matches!(polled, Poll::Ready(Some(Err(Error::Silent)))), "{coding:?}");
        }
    }

    #[test]
    fn a_fast_source_lets_others_have_their_turn_and_little_is_kept() {
        for coding in Algorithm::ALL {
            let mut compressor = compressor(coding);
            let woken = Arc::new(Woken(AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&woken));
            let cx = &mut Context::from_waker(&waker);
            let zeros = vec![0; 16 * 1024];
            let mut given = 0;
            let polled = compressor.poll_frame(cx, |_| {
                given += zeros.len();
                Poll::Ready(Some(Ok(Frame::data(zeros.clone().into()))))
            });
            assert!(polled.is_pending() && woken.0.load(Ordering::Relaxed) == 1, "{coding:?}");
            assert_eq!(given, TURN_BYTES, "{coding:?}");
            // What can't be made smaller goes out as it comes.
            let mut seed = 1_u32;
            let mut noise = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            };
            let (mut taken, mut sent) = (0, 0);
            for _ in 0..200 {
                let polled = compressor.poll_frame(cx, |_| {
                    taken += 8 * 1024;
                    Poll::Ready(Some(Ok(Frame::data((0..8 * 1024).map(|_| noise()).collect()))))
                });
                if let Poll::Ready(Some(Ok(frame))) = polled {
                    sent += frame.into_data().unwrap().len();
                }
            }
            assert!(taken > 1024 * 1024 && taken - sent < 1024 * 1024, "{coding:?}: {taken} in, {sent} out");
        }
    }
}
