//! nginx's configuration language: a text becomes [`tokens`], those become directives with their places ([`directive`], [`parse`]), and
//! what they include is put where it is included ([`files`]). What a directive means is for others to say.

mod directive;
mod error;
mod files;
mod glob;
mod parse;
mod tokens;
mod variables;

pub(crate) use self::directive::{Directive, Place, blocks};
pub(crate) use self::files::{Loaded, load, load_dump};
pub(crate) use self::variables::{Piece, Sets, pieces};

#[cfg(test)]
mod tests;
