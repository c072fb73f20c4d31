//! Counts the lines of a head before it is parsed: a parser with room for many fields costs more than most requests are
//! worth, so one is taken only where they come.
//!
//! What is counted is never less than what the parser will find. It may be more where the end of a body, in chunked coding
//! or longer than the piece that its head came in, stands before a head; then the room costs something and changes nothing.

use std::cell::Cell;

/// A head of more lines is read by a parser with more room.
const USUAL_LINES: usize = 100;

/// Lines of the head under way, between the pieces that it comes in.
#[derive(Default)]
pub(super) struct HeadLines(Cell<usize>);

impl HeadLines {
    /// Takes the next piece that a parser of heads is given; tells whether it needs more room than usual.
    pub(super) fn take_piece(&self, piece: &[u8]) -> bool {
        let before = self.0.get();
        // Nearly always a whole head, and nothing behind it.
        if piece.ends_with(b"\n\r\n") && before + lines(piece) <= USUAL_LINES {
            self.0.set(0);
            return false;
        }
        let Walked { longest, under_way } = walk(before, piece);
        self.0.set(under_way);
        longest > USUAL_LINES
    }

    /// Forgets what was counted: none of it is left for the parser.
    pub(super) fn forget(&self) {
        self.0.set(0);
    }
}

/// What a piece holds.
#[derive(Debug, PartialEq, Eq)]
struct Walked {
    /// The lines of its longest head, whole or not.
    longest: usize,
    /// Those of the head that its end leaves open.
    under_way: usize,
}

/// Walks from head to head; of the first one so many lines came before.
fn walk(before: usize, mut piece: &[u8]) -> Walked {
    let (mut longest, mut under_way) = (0, before);
    loop {
        let Some(end) = end_of_head(piece) else {
            under_way += lines(piece);
            return Walked { longest: longest.max(under_way), under_way };
        };
        let (head, rest) = piece.split_at(end);
        longest = longest.max(under_way + lines(head));
        under_way = 0;
        let body = declared_length(head);
        piece = &rest[body.min(rest.len())..];
    }
}

fn lines(piece: &[u8]) -> usize {
    // In parts that one byte can count, which the compiler makes a few instructions of.
    let lines = |part: &[u8]| usize::from(part.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>());
    piece.chunks(255).map(lines).sum()
}

/// Returns where an empty line ends, which a parser takes with and without its CR.
fn end_of_head(piece: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let line = from + piece[from..].iter().position(|byte| *byte == b'\n')? + 1;
        match piece[line..] {
            [b'\n', ..] => return Some(line + 1),
            [b'\r', b'\n', ..] => return Some(line + 2),
            _ => from = line,
        }
    }
}

/// Returns how long the body is that a head tells of, as far as that is easily known: what is no number has none.
fn declared_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let is_it = |line: &&[u8]| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let value = head.split(|byte| *byte == b'\n').find(is_it).map(|line| &line[NAME.len()..]);
    value.and_then(|value| std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(fields: usize, length: usize) -> String {
        let fields: String = (0..fields).map(|n| format!("X-{n}: 1\r\n")).collect();
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n")
    }

    #[test]
    fn the_lines_of_a_body_are_none_of_a_head() {
        let lines = HeadLines::default();
        let body = "1;2;3\n".repeat(500);
        assert!(!lines.take_piece(format!("{}{body}", head(3, body.len())).as_bytes()));
        // The body goes on in another piece.
        assert!(!lines.take_piece(format!("{}{body}", head(3, body.len() * 2)).as_bytes()));
        assert!(!lines.take_piece(head(90, 0).as_bytes()));
    }

    #[test]
    fn a_head_that_begins_behind_another_is_counted_from_its_beginning() {
        let lines = HeadLines::default();
        let (few, many) = (head(3, 0), head(120, 0));
        let (begun, rest) = many.split_at(many.len() / 2);
        assert!(!lines.take_piece(format!("{few}{begun}").as_bytes()));
        assert!(lines.take_piece(rest.as_bytes()));
        // A hundred heads of a few lines are no long one.
        let lines = HeadLines::default();
        assert!(!lines.take_piece(few.repeat(100).as_bytes()));
        assert!(lines.take_piece(format!("{}{many}", few.repeat(3)).as_bytes()));
    }

    proptest! {
        /// Whatever the pieces are, none is missed that needs room, nor is one seen that does not.
        #[test]
        fn only_long_heads_are_long(
            messages in prop::collection::vec((0_usize..200, 0_usize..300), 1..6),
            cuts in prop::collection::vec(0_usize..8000, 0..6),
        ) {
            let mut text = Vec::new();
            let mut bodies = Vec::new();
            for (fields, length) in &messages {
                text.extend_from_slice(head(*fields, *length).as_bytes());
                bodies.push(text.len() - 3..text.len() + length);
                text.extend(std::iter::repeat_n(b'\n', *length));
            }
            // A body that is cut is read by another than the parser of heads. Within an empty line, what was
            // counted so far is counted with the next head.
            let is_within = |cut: usize| bodies.iter().any(|body| body.contains(&cut));
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len() && !is_within(*cut)).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (counted, mut from, mut is_long) = (HeadLines::default(), 0, false);
            for cut in cuts {
                is_long |= counted.take_piece(&text[from..cut]);
                from = cut;
            }
            // The first line, `Host`, the length, and the empty one.
            prop_assert_eq!(is_long, messages.iter().any(|(fields, _)| fields + 4 > USUAL_LINES));
        }
    }
}
