//! A location: what it takes, and what serves it.

use super::chain::Chain;
use crate::nginx::Directive;

/// What a location takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All below a path.
    Prefix,
    /// One path.
    Exact,
    /// What a regular expression takes.
    Pattern,
    /// Nothing by itself: others lead there.
    Named,
}

/// A location with the blocks that it is within.
#[derive(Debug, Clone)]
pub(super) struct Spot<'d> {
    /// The location, or the server where it has none for its root.
    pub(super) block: &'d Directive,
    /// What it takes.
    pub(super) kind: Kind,
    /// The path, pattern or name.
    pub(super) path: String,
    /// What is in force there.
    pub(super) chain: Chain<'d>,
}

/// Returns the locations of a block and those within them.
pub(super) fn spots<'d>(outer: &'d [Directive], chain: &Chain<'d>) -> Vec<Spot<'d>> {
    let mut found = Vec::new();
    for block in crate::nginx::blocks(outer, "location") {
        let (kind, path) = match block.arguments.as_slice() {
            [path] => {
                match path.strip_prefix('=').or_else(|| path.strip_prefix("^~")).or_else(|| path.strip_prefix('~')) {
                    Some(rest) if path.starts_with('=') => (Kind::Exact, rest.to_owned()),
                    Some(rest) if path.starts_with("^~") => (Kind::Prefix, rest.to_owned()),
                    Some(rest) => (Kind::Pattern, rest.trim_start_matches('*').to_owned()),
                    None if path.starts_with('@') => (Kind::Named, path.clone()),
                    None => (Kind::Prefix, path.clone()),
                }
            }
            [sign, path] => match sign.as_str() {
                "=" => (Kind::Exact, path.clone()),
                "^~" => (Kind::Prefix, path.clone()),
                _ => (Kind::Pattern, path.clone()),
            },
            _ => continue,
        };
        let chain = chain.within(block.inner());
        let inner = spots(block.inner(), &chain);
        found.push(Spot { block, kind, path, chain });
        found.extend(inner);
    }
    found
}

/// Returns the path prefixes that a regular expression stands for, where it is but another way to write them.
pub(super) fn prefixes(pattern: &str) -> Option<Vec<String>> {
    let inner = pattern.strip_prefix("^/")?;
    let inner =
        ["(/|$)", "(/.*)?$", "/?$", "/.*$", "/(.*)$", "/.*", "/"].iter().find_map(|end| inner.strip_suffix(end));
    let inner = inner?.replace(r"\.", ".").replace(r"\-", "-");
    let words: Vec<&str> = match inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(words) => words.trim_start_matches("?:").split('|').collect(),
        None => vec![inner.as_str()],
    };
    let is_plain =
        |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/.".contains(&b));
    words.iter().all(is_plain).then(|| words.iter().map(|word| format!("/{word}")).collect())
}

/// Returns the path prefix of a location as a service has it.
pub(super) fn route(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_that_stands_for_prefixes_is_one_and_no_other_is() {
        let of = |pattern: &str| prefixes(pattern).map(|paths| paths.join(" "));
        assert_eq!(of("^/api/").as_deref(), Some("/api"));
        assert_eq!(of("^/(api|auth)/").as_deref(), Some("/api /auth"));
        assert_eq!(of("^/v1(/|$)").as_deref(), Some("/v1"));
        for pattern in [r"\.php$", "^/a.*b/", "/api/", "^/api", "^/[a-z]+/", "^/"] {
            assert_eq!(of(pattern), None, "{pattern}");
        }
    }
}
