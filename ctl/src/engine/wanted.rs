//! The lines of a log that are wanted, and of those that are there already the last ones.

use std::collections::VecDeque;

/// Tells whether a line is wanted.
pub type IsWanted<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

/// What is left of a log that is read line by line.
pub(super) struct Wanted<'a> {
    is_wanted: IsWanted<'a>,
    /// So many of the last; `None`: every line is handed on at once.
    tail: Option<usize>,
    kept: VecDeque<String>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(is_wanted: IsWanted<'a>, tail: Option<usize>) -> Self {
        Self { is_wanted, tail, kept: VecDeque::new() }
    }

    /// Takes a line, and hands it on or keeps it.
    pub(super) fn take(&mut self, text: &str, line: &mut (dyn FnMut(&str) + Send)) {
        if !(self.is_wanted)(text) {
            return;
        }
        let Some(tail) = self.tail else { return line(text) };
        self.kept.push_back(text.to_owned());
        if self.kept.len() > tail {
            self.kept.pop_front();
        }
    }

    /// Hands on what was kept; from now on nothing is kept.
    pub(super) fn release(&mut self, line: &mut (dyn FnMut(&str) + Send)) {
        self.tail = None;
        self.kept.drain(..).for_each(|text| line(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_wanted_lines_are_handed_on_and_then_each() {
        let mut seen = Vec::new();
        let mut out = |line: &str| seen.push(line.to_owned());
        let mut wanted = Wanted::new(&|line| line.starts_with('a'), Some(2));
        for line in ["a1", "a2", "b", "a3"] {
            wanted.take(line, &mut out);
        }
        wanted.release(&mut out);
        ["b", "a4"].iter().for_each(|line| wanted.take(line, &mut out));
        let mut none = Wanted::new(&|_| true, Some(0));
        none.take("a5", &mut out);
        none.release(&mut out);
        assert_eq!(seen, ["a2", "a3", "a4"]);
    }
}
