//! What is in force in a block: nginx takes a directive from the innermost block that has it, all of its lines or none.

use crate::nginx::{Directive, Sets, blocks};

/// The blocks that a place is within, the outermost first.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain<'d> {
    blocks: Vec<&'d [Directive]>,
    sets: Sets,
}

impl<'d> Chain<'d> {
    /// Returns the chain of a block within this one.
    pub(super) fn within(&self, block: &'d [Directive]) -> Self {
        let mut blocks = self.blocks.clone();
        blocks.push(block);
        Self { blocks, sets: self.sets.within(block) }
    }

    /// Returns the directives of one of some names that are in force, in their order.
    pub(super) fn any_of(&self, names: &[&str]) -> Vec<&'d Directive> {
        let of = |block: &&'d [Directive]| -> Vec<&'d Directive> {
            block.iter().filter(|directive| names.contains(&directive.name.as_str())).collect()
        };
        self.blocks.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Returns the directives of a name that are in force.
    pub(super) fn all(&self, name: &str) -> Vec<&'d Directive> {
        self.any_of(&[name])
    }

    /// Returns the last one of a name that is in force.
    pub(super) fn last(&self, name: &str) -> Option<&'d Directive> {
        self.all(name).pop()
    }

    /// Returns the first word behind a directive that is in force, with the values of `set` in it.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        self.last(name).map(|directive| self.put_in(directive.argument(0)))
    }

    /// Tells whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|directive| directive.argument(0) == "on")
    }

    /// Returns the directives of a name in the innermost block alone.
    pub(super) fn own(&self, name: &'d str) -> impl Iterator<Item = &'d Directive> + use<'d> {
        blocks(self.blocks.last().copied().unwrap_or_default(), name)
    }

    /// Returns a text with the values of `set` in it.
    pub(super) fn put_in(&self, text: &str) -> String {
        self.sets.put_in(text)
    }
}
