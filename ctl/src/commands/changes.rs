//! What is and what would be, by key, and both in words.

use std::collections::BTreeMap;

use serde_json::Value;

/// What changes, by key: what is and what will be.
pub(crate) type Changes = BTreeMap<String, [Value; 2]>;

/// Returns the keys in which two states differ, with both values; null is what a state does not have.
pub(crate) fn between(mut before: BTreeMap<String, Value>, after: BTreeMap<String, Value>) -> Changes {
    let mut changes = Changes::new();
    for (key, after) in after {
        let before = before.remove(&key).unwrap_or_default();
        if before != after {
            changes.insert(key, [before, after]);
        }
    }
    changes.extend(before.into_iter().map(|(key, gone)| (key, [gone, Value::Null])));
    changes
}

/// A value as people write it.
pub(crate) fn words(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join(", "),
        // Pages of HTML are told by their names.
        Value::Object(pages) if pages.is_empty() => "none".to_owned(),
        Value::Object(pages) => pages.keys().cloned().collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
