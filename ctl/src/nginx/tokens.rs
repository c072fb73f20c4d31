//! From characters to words and signs, as nginx takes them apart.

use std::iter::Peekable;
use std::str::Chars;

/// A word, or a sign between words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word, without its quotes and escapes.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// What is wrong with a text, and in which line.
pub(super) type Wrong = (usize, String);

/// The tokens of a text.
pub(super) struct Tokens<'t> {
    characters: Peekable<Chars<'t>>,
    line: usize,
}

impl<'t> Tokens<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        // Editors of another system put one there.
        Self { characters: text.trim_start_matches('\u{feff}').chars().peekable(), line: 1 }
    }

    /// Returns the next token and its line; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Token, usize)>, Wrong> {
        while let Some(next) = self.characters.peek().copied() {
            if next == '#' {
                while self.characters.peek().is_some_and(|next| *next != '\n') {
                    self.take();
                }
            } else if next.is_ascii_whitespace() {
                self.take();
            } else {
                break;
            }
        }
        let line = self.line;
        let Some(first) = self.take() else { return Ok(None) };
        let token = match first {
            ';' => Token::End,
            '{' => Token::Open,
            '}' => Token::Close,
            quote @ ('"' | '\'') => Token::Word(self.quoted(quote, line)?),
            other => Token::Word(self.bare(other)),
        };
        Ok(Some((token, line)))
    }

    /// Skips what stands behind an opening brace up to the one that closes it: a program in another language.
    pub(super) fn skip_block(&mut self) -> bool {
        let mut depth = 1;
        while let Some(next) = self.take() {
            match next {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return true;
            }
        }
        false
    }

    fn take(&mut self) -> Option<char> {
        let next = self.characters.next()?;
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn quoted(&mut self, quote: char, began: usize) -> Result<String, Wrong> {
        let mut word = String::new();
        loop {
            match self.take() {
                None => return Err((began, format!("the quote ({quote}) that opens here is never closed"))),
                Some('\\') => self.escaped(&mut word),
                Some(end) if end == quote => break,
                Some(other) => word.push(other),
            }
        }
        match self.characters.peek() {
            Some(next) if !next.is_ascii_whitespace() && !matches!(next, ';' | '{' | ')') => {
                Err((self.line, format!("`{next}` stands right behind a closing quote")))
            }
            _ => Ok(word),
        }
    }

    /// A brace behind a `$` is a variable's, and a closing one ends no word.
    fn bare(&mut self, first: char) -> String {
        let mut word = String::new();
        let mut next = Some(first);
        while let Some(character) = next {
            match character {
                '\\' => self.escaped(&mut word),
                other => word.push(other),
            }
            let ends =
                |peeked: &char| peeked.is_ascii_whitespace() || *peeked == ';' || *peeked == '{' && character != '$';
            next = if self.characters.peek().is_none_or(ends) { None } else { self.take() };
        }
        word
    }

    /// Only quotes, the backslash itself and three letters lose their backslash: a regular expression keeps its own.
    fn escaped(&mut self, word: &mut String) {
        match self.take() {
            Some(plain @ ('"' | '\'' | '\\')) => word.push(plain),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(other) => word.extend(['\\', other]),
            None => word.push('\\'),
        }
    }
}
