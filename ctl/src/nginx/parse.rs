//! From tokens to directives and their blocks.

use std::path::Path;
use std::sync::Arc;

use super::directive::{Directive, Place};
use super::error::Error;
use super::tokens::{Token, Tokens};

/// Blocks within blocks: nobody writes so many, and a text that does is none.
const DEPTH: usize = 64;

/// Returns the directives of a text; what it includes is left as it is written.
///
/// # Errors
/// The first place that nginx would refuse for its form.
pub(super) fn parse(text: &str, file: &Arc<Path>) -> Result<Vec<Directive>, Error> {
    let at = |line: usize| Place { file: Arc::clone(file), line };
    let mut tokens = Tokens::new(text);
    // The blocks that are open, the outermost first: who opened one, and what stands in it so far.
    let mut open: Vec<Directive> = Vec::new();
    let mut done: Vec<Directive> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut began = 1;
    while let Some((token, line)) = tokens.next().map_err(|(line, what)| Error::new(at(line), what))? {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    began = line;
                }
                words.push(word);
            }
            Token::End => match take(&mut words, at(began)) {
                Some(directive) => done.push(directive),
                None => return Err(Error::new(at(line), "`;` ends nothing")),
            },
            Token::Open => {
                let Some(mut directive) = take(&mut words, at(began)) else {
                    return Err(Error::new(at(line), "`{` stands behind no directive"));
                };
                if directive.name.ends_with("_by_lua_block") {
                    if !tokens.skip_block() {
                        return Err(Error::new(at(began), never_closed(&directive)));
                    }
                    directive.block = Some(Vec::new());
                    done.push(directive);
                    continue;
                }
                if open.len() == DEPTH {
                    return Err(Error::new(at(line), format!("more than {DEPTH} blocks stand within each other")));
                }
                // What stood beside it so far is kept with it until it is closed.
                directive.block = Some(std::mem::take(&mut done));
                open.push(directive);
            }
            Token::Close => {
                if let Some(directive) = take(&mut words, at(began)) {
                    return Err(Error::new(directive.place.clone(), format!("`{}` lacks its `;`", directive.text())));
                }
                let Some(mut closed) = open.pop() else {
                    return Err(Error::new(at(line), "`}` closes nothing"));
                };
                let beside = closed.block.take().unwrap_or_default();
                closed.block = Some(std::mem::replace(&mut done, beside));
                done.push(closed);
            }
        }
    }
    if let Some(directive) = take(&mut words, at(began)) {
        return Err(Error::new(directive.place.clone(), format!("`{}` lacks its `;`", directive.text())));
    }
    match open.last() {
        Some(directive) => Err(Error::new(directive.place.clone(), never_closed(directive))),
        None => Ok(done),
    }
}

fn never_closed(directive: &Directive) -> String {
    format!("the block of `{}` is never closed", directive.text())
}

fn take(words: &mut Vec<String>, place: Place) -> Option<Directive> {
    let mut words = std::mem::take(words).into_iter();
    let name = words.next()?;
    Some(Directive { name, arguments: words.collect(), block: None, place })
}
