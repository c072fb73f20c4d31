//! Values as TOML writes them.

/// Returns a text.
pub(crate) fn text(text: &str) -> String {
    // JSON's escapes are TOML's too, and it leaves out only the one that TOML wants besides.
    serde_json::to_string(text).unwrap_or_default().replace('\u{7f}', "\\u007F")
}

/// Returns a text in which nothing is a variable of bgctl's.
pub(super) fn literal(plain: &str) -> String {
    text(&plain.replace("${", "$${"))
}

/// Returns a list of texts.
pub(super) fn texts<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    array(&texts.into_iter().map(|one| literal(one)).collect::<Vec<_>>())
}

/// Returns a list of values.
pub(super) fn array(values: &[String]) -> String {
    match values {
        [] => "[]".to_owned(),
        [one] => format!("[{one}]"),
        values if values.iter().map(String::len).sum::<usize>() < 90 => format!("[{}]", values.join(", ")),
        values => format!("[\n  {},\n]", values.join(",\n  ")),
    }
}

/// Returns a table in one line; fields that are not there are left out.
pub(super) fn table(fields: &[(&str, Option<String>)]) -> String {
    let fields = fields.iter().filter_map(|(key, value)| Some(format!("{key} = {}", value.as_ref()?)));
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}
