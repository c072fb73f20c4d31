//! `[target.NAME]`: another place with what is different there, laid over the rest of the file.

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, Source};

/// The key of the targets.
pub(super) const KEY: &str = "target";

/// Tables of a service are laid over each other key by key, down to here; what is deeper is one value.
const DEPTH: usize = 2;

/// Takes the targets out of a file and lays one of them over the rest; its host, services and their keys win.
///
/// # Errors
/// Where there is no such target.
pub(super) fn choose(table: &mut DeTable<'_>, name: Option<&str>, source: &Source) -> Result<(), Vec<Problem>> {
    let targets = table.remove(KEY);
    let Some(name) = name else { return Ok(()) };
    let Some(DeValue::Table(mut targets)) = targets.map(Spanned::into_inner) else {
        return Err(vec![source.problem(0..0, format!("the file has no target `{name}`")).hint("add [target.NAME]")]);
    };
    let Some(DeValue::Table(mut target)) = targets.remove(name).map(Spanned::into_inner) else {
        let names: Vec<&str> = targets.keys().map(|name| &**name.get_ref()).collect();
        let hint = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        return Err(vec![source.problem(0..0, format!("the file has no target `{name}`")).hint(hint)]);
    };
    if let Some(DeValue::Table(over)) = target.remove("services").map(Spanned::into_inner) {
        for (name, over) in over {
            let base = table.get_mut("services").and_then(|services| match services.get_mut() {
                DeValue::Table(services) => services.get_mut(&**name.get_ref()),
                _ => None,
            });
            if let Some(base) = base {
                lay(base, over, DEPTH);
            }
        }
    }
    for (key, value) in target {
        match table.get_mut(&**key.get_ref()) {
            Some(base) => lay(base, value, DEPTH),
            None => drop(table.insert(key, value)),
        }
    }
    Ok(())
}

fn lay<'i>(base: &mut Spanned<DeValue<'i>>, over: Spanned<DeValue<'i>>, depth: usize) {
    if let (true, DeValue::Table(base), DeValue::Table(_)) = (depth > 0, base.get_mut(), over.get_ref()) {
        let DeValue::Table(over) = over.into_inner() else { return };
        for (key, value) in over {
            match base.get_mut(&**key.get_ref()) {
                Some(present) => lay(present, value, depth - 1),
                None => drop(base.insert(key, value)),
            }
        }
        return;
    }
    *base = over;
}

/// Returns the names of the targets.
pub(super) fn names(table: &DeTable<'_>) -> Vec<String> {
    match table.get(KEY).map(Spanned::get_ref) {
        Some(DeValue::Table(targets)) => targets.keys().map(|name| name.get_ref().to_string()).collect(),
        _ => Vec::new(),
    }
}
