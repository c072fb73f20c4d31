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
        Value::Object(table) if table.is_empty() => "none".to_owned(),
        Value::Object(table) => table.iter().map(pair).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A key with its value; pages of HTML and hashes of passwords are told by their names alone.
fn pair((key, value): (&String, &Value)) -> String {
    match value {
        Value::String(text) if text.contains('<') || text.starts_with("$2") || text.starts_with("$argon2") => {
            key.clone()
        }
        Value::Object(_) => format!("{key} {{{}}}", words(value)),
        value => format!("{key} {}", words(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_words_without_pages_and_hashes() {
        for (json, wanted) in [
            (r#"[{"from":"/a","to":"/b","status":301}]"#, "from /a, status 301, to /b"),
            (r#"[{"realm":"r","users":{"alice":"$2y$10$x","bob":"$argon2id$x"}}]"#, "realm r, users {alice, bob}"),
            (r#"{"502":"<p>gone"}"#, "502"),
            (r#"{"set":{"x-a":"$host"},"remove":["server"]}"#, "remove server, set {x-a $host}"),
            ("{}", "none"),
        ] {
            assert_eq!(words(&serde_json::from_str(json).unwrap()), wanted);
        }
    }
}
