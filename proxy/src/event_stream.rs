//! Where events of an event stream end (the HTML standard, section 9.2.6), so that one can be ended between two of them.

use http::header::{self, HeaderMap};

/// Follows the lines of an event stream as its bytes pass.
#[derive(Debug)]
pub(crate) struct EventStream {
    /// The line under way has no byte yet.
    line_is_empty: bool,
    /// The last byte was a CR, which the next, where it is an LF, belongs to.
    after_cr: bool,
    /// Nothing of an event is under way.
    is_between: bool,
}

impl EventStream {
    /// Returns a stream at its beginning, where the answer is one whose bytes can be read.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let is_one = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
        let lacks = |name| !headers.contains_key(name);
        (is_one && lacks(header::CONTENT_ENCODING) && lacks(header::CONTENT_LENGTH)).then_some(Self {
            line_is_empty: true,
            after_cr: false,
            is_between: true,
        })
    }

    /// Tells whether nothing of an event is under way.
    pub(crate) fn is_between(&self) -> bool {
        self.is_between
    }

    /// Takes bytes; returns how many of them end the event under way, where they do.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut end = None;
        for (at, byte) in bytes.iter().enumerate() {
            let is_line_end = match byte {
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    continue;
                }
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_cr = *byte == b'\r';
            self.is_between = is_line_end && self.line_is_empty;
            self.line_is_empty = is_line_end;
            if self.is_between && end.is_none() {
                end = Some(at + 1);
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> EventStream {
        EventStream::of(
            &[(header::CONTENT_TYPE, "text/event-stream; charset=utf-8".parse().unwrap())].into_iter().collect(),
        )
        .unwrap()
    }

    #[test]
    fn an_event_ends_with_an_empty_line_of_any_kind() {
        for (bytes, end) in [
            ("data: a\n\n", Some(9)),
            ("data: a\r\n\r\n", Some(10)),
            ("data: a\r\rdata", Some(9)),
            ("data: a\ndata: b", None),
            (":keep-alive\n\ndata", Some(13)),
            ("\n", Some(1)),
        ] {
            assert_eq!(stream().take(bytes.as_bytes()), end, "{bytes:?}");
        }
        let mut split = stream();
        assert!(split.is_between());
        assert_eq!((split.take(b"data: a\r"), split.is_between()), (None, false));
        assert_eq!((split.take(b"\n"), split.is_between()), (None, false));
        assert_eq!((split.take(b"\r"), split.is_between()), (Some(1), true));
    }

    #[test]
    fn what_cannot_be_read_or_has_an_end_of_its_own_is_none() {
        let of = |fields: &[(header::HeaderName, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value)));
            EventStream::of(&fields.collect()).is_some()
        };
        assert!(of(&[(header::CONTENT_TYPE, "Text/Event-Stream")]));
        assert!(!of(&[]) && !of(&[(header::CONTENT_TYPE, "text/html")]));
        for other in [(header::CONTENT_ENCODING, "gzip"), (header::CONTENT_LENGTH, "5")] {
            assert!(!of(&[(header::CONTENT_TYPE, "text/event-stream"), other]));
        }
    }
}
