//! What of an nginx configuration has no equal: each with its place, and what to do instead.

use serde::Serialize;

use crate::nginx::{Directive, Place};

/// What it means for whoever relies on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// It kept visitors out of something, and what takes its place keeps out fewer.
    LessProtected,
    /// Nothing takes its place.
    LeftOut,
    /// What takes its place does something else.
    Differs,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Where it stands.
    pub(crate) place: Place,
    /// As it is written, without its block.
    pub(crate) directive: String,
    /// What it means.
    pub(crate) weight: Weight,
    /// What is so now.
    pub(crate) what: String,
    /// What to do instead.
    pub(crate) instead: String,
}

/// What was found, each once.
#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<Note>);

impl Notes {
    /// Adds one about a directive; the first that is said of a place stays.
    pub(super) fn add(&mut self, weight: Weight, of: &Directive, what: impl Into<String>, instead: impl Into<String>) {
        if self.0.iter().any(|note| note.place == of.place && note.directive == of.text()) {
            return;
        }
        let (place, directive) = (of.place.clone(), of.text());
        self.0.push(Note { place, directive, weight, what: what.into(), instead: instead.into() });
    }

    pub(super) fn left_out(&mut self, of: &Directive, what: impl Into<String>, instead: impl Into<String>) {
        self.add(Weight::LeftOut, of, what, instead);
    }

    pub(super) fn differs(&mut self, of: &Directive, what: impl Into<String>, instead: impl Into<String>) {
        self.add(Weight::Differs, of, what, instead);
    }

    pub(super) fn opens(&mut self, of: &Directive, what: impl Into<String>, instead: impl Into<String>) {
        self.add(Weight::LessProtected, of, what, instead);
    }

    /// Returns them in the order of their places, within the files in the order in which these were read.
    pub(super) fn sorted(self) -> Vec<Note> {
        let mut files = Vec::new();
        for note in &self.0 {
            if !files.contains(&note.place.file) {
                files.push(note.place.file.clone());
            }
        }
        let mut notes = self.0;
        notes.sort_by_key(|note| (files.iter().position(|file| *file == note.place.file), note.place.line));
        notes
    }
}
