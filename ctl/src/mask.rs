//! What may be a secret, told by how it looks, and what stands for it where it is printed.
//!
//! A guess, for whoever writes a secret where none belongs: `[services.NAME.secrets]` needs no guess. What is taken for one too many
//! costs a reader three asterisks.

use serde_json::Value;

/// What stands for a value that may be a secret.
pub(crate) const MASK: &str = "***";
/// Parts of the names of variables whose values nobody wants on a screen.
const PARTS: [&str; 9] = ["SECRET", "TOKEN", "PASS", "PWD", "KEY", "CRED", "AUTH", "PRIVATE", "DSN"];

/// Tells whether a variable has the name of a secret.
pub(crate) fn is_named_so(name: &str) -> bool {
    PARTS.iter().any(|part| name.to_ascii_uppercase().contains(part))
}

/// Tells whether a text has a URL with a password: `postgres://shop:secret@db/shop`.
pub(crate) fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// Returns a list of words, as those of a command, without what may be a secret: `NAME=value`, `--name=value`, `--name value`,
/// `Name: value` and URLs with a password.
pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut is_next = false;
    let masked = words.into_iter().map(|word| {
        let is_flag = word.starts_with('-');
        if std::mem::take(&mut is_next) && !is_flag {
            return MASK.to_owned();
        }
        is_next = is_flag && !word.contains('=') && is_named_so(word);
        self::word(word)
    });
    masked.collect()
}

/// Returns a line as a shell reads it without what may be a secret.
pub(crate) fn line(line: &str) -> String {
    let pieces = pieces(line);
    let masked = words(pieces.iter().copied().filter(|piece| !is_space(piece)));
    let mut masked = masked.into_iter();
    pieces
        .iter()
        .map(|piece| if is_space(piece) { (*piece).to_owned() } else { masked.next().unwrap_or_default() })
        .collect()
}

/// Returns a value of a file or a document without what may be a secret.
pub(crate) fn value(value: Value) -> Value {
    match value {
        Value::String(text) => line(&text).into(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            words(list.iter().filter_map(Value::as_str)).into_iter().map(Value::from).collect()
        }
        Value::Array(list) => list.into_iter().map(self::value).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, self::value(field))).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

fn word(word: &str) -> String {
    if let Some((quote, within)) = within_quotes(word) {
        return format!("{quote}{}{quote}", self::word(within));
    }
    if has_password(word) {
        return MASK.to_owned();
    }
    if let Some((name, value)) = word.split_once('=').filter(|(name, _)| is_named_so(name)) {
        return if value.is_empty() { word.to_owned() } else { format!("{name}={MASK}") };
    }
    // A header, as `curl` is given one.
    if let Some((name, _)) =
        word.split_once(": ").filter(|(name, _)| is_named_so(name) && !name.contains(char::is_whitespace))
    {
        return format!("{name}: {MASK}");
    }
    // What `sh -c` is given is a line by itself.
    if pieces(word).len() > 1 { line(word) } else { word.to_owned() }
}

fn within_quotes(word: &str) -> Option<(char, &str)> {
    let quote = word.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    Some((quote, word.strip_prefix(quote)?.strip_suffix(quote)?))
}

fn is_space(piece: &str) -> bool {
    piece.starts_with(char::is_whitespace)
}

/// Cuts a line into words and what is between them; quotes hold a word together.
fn pieces(line: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut quote, mut was_space) = (Vec::new(), 0, None, None);
    for (at, character) in line.char_indices() {
        let is_space = quote.is_none() && character.is_whitespace();
        if was_space.is_some_and(|was| was != is_space) {
            pieces.push(&line[start..at]);
            start = at;
        }
        was_space = Some(is_space);
        quote = match (quote, character) {
            (None, '\'' | '"') => Some(character),
            (Some(open), close) if open == close => None,
            (quote, _) => quote,
        };
    }
    pieces.push(&line[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_masked_in_lists_lines_and_below_them() {
        let command = ["serve", "--token=hunter2", "--password", "hunter2", "--verbose", "x://u:hunter2@db/x", "A=1"];
        assert_eq!(words(command), ["serve", "--token=***", "--password", "***", "--verbose", "***", "A=1"]);
        assert_eq!(words(["sh", "-c", "serve --token hunter2"]), ["sh", "-c", "serve --token ***"]);
        assert_eq!(words(["-H", "Authorization: Bearer hunter2"]), ["-H", "Authorization: ***"]);
        // A flag that is a switch takes nothing from the next.
        assert_eq!(words(["--no-auth", "--port", "80"]), ["--no-auth", "--port", "80"]);
        let cases = [
            ("API_KEY='hunter2 x' ./migrate  --up", "API_KEY=***  ./migrate --up"),
            ("./migrate --dsn hunter2 && echo ok", "./migrate --dsn *** && echo ok"),
            ("psql postgres://u:hunter2@db/x -c 'select 1'", "psql *** -c 'select 1'"),
            ("curl -H 'Authorization: Bearer hunter2' x", "curl -H 'Authorization: ***' x"),
            ("sh -c 'serve --token hunter2'", "sh -c 'serve --token ***'"),
            ("/health?token=hunter2", "/health?token=***"),
            ("./manage.py migrate", "./manage.py migrate"),
            ("", ""),
        ];
        for (text, shown) in cases {
            assert_eq!(line(text).split_whitespace().collect::<Vec<_>>(), shown.split_whitespace().collect::<Vec<_>>());
        }
        assert_eq!(line("a  b\n c"), "a  b\n c");
        let tree = json!({ "list": ["SECRET=hunter2", "b"], "deep": [{ "x": "PWD=hunter2" }], "n": 1, "none": null });
        let shown = json!({ "list": ["SECRET=***", "b"], "deep": [{ "x": "PWD=***" }], "n": 1, "none": null });
        assert_eq!(value(tree), shown);
    }

    #[test]
    fn an_unclosed_quote_and_other_scripts_are_no_trouble() {
        for text in ["it's", "\"", "пароль=ß 'é", "🔑=x y"] {
            assert_eq!(line(text), text);
        }
    }
}
