//! `return` and `rewrite`: where visitors are led, and what else they become.

use super::headers::translated;
use super::toml;
use crate::nginx::Directive;

/// What an answer that nginx gives by itself is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The same on TLS.
    ToHttps,
    /// The same of another host: which, with what status, as `to` has it.
    ToHost(String, u16, String),
    /// Somewhere else: as `to` has it.
    To(u16, String),
    /// A status without a place.
    Status(u16),
    /// What has no equal.
    Other,
}

/// Returns what a `return` answers, in a server of these names.
pub(super) fn answer(directive: &Directive, names: &[String]) -> Answer {
    let first = directive.argument(0);
    let (status, target) = match first.parse::<u16>() {
        Ok(status) => (status, directive.argument(1)),
        Err(_) => (302, first),
    };
    match status {
        301..=303 | 307 | 308 if !target.is_empty() => to(status, target, names),
        _ => Answer::Status(status),
    }
}

fn to(status: u16, target: &str, names: &[String]) -> Answer {
    let plain = target.replace(['{', '}'], "");
    let whole = |rest: &str| matches!(rest, "$request_uri" | "$uri$is_args$args");
    let split =
        plain.strip_prefix("https://").or_else(|| plain.strip_prefix("$scheme://").or(plain.strip_prefix("http://")));
    if let Some(rest) = split {
        // A variable in the place of the host ends where the next one begins.
        let end = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '/' | '$')).map_or(rest.len(), |(at, _)| at);
        let (host, rest) = rest.split_at(end);
        if whole(rest) && matches!(host, "$host" | "$server_name" | "$http_host" | "$hostname") {
            return if plain.starts_with("https") { Answer::ToHttps } else { Answer::Other };
        }
        if whole(rest) && !host.contains(['$', ':']) {
            let is_own = names.iter().any(|name| name == host);
            if is_own && plain.starts_with("https") {
                return Answer::ToHttps;
            }
            return translated(target).map_or(Answer::Other, |target| Answer::ToHost(host.to_owned(), status, target));
        }
    }
    match translated(target) {
        Some(target) => Answer::To(status, target),
        None => Answer::Other,
    }
}

/// Returns an entry of `redirects` for paths.
pub(super) fn entry(from: &str, to: &str, status: u16) -> String {
    redirect("from", from, to, status)
}

/// Returns an entry of `redirects`: whom it takes is said by `from`, `pattern` or `host`.
pub(super) fn redirect(key: &str, from: &str, to: &str, status: u16) -> String {
    toml::table(&[
        (key, Some(toml::literal(from))),
        ("to", Some(toml::literal(to))),
        ("status", Some(status.to_string())),
    ])
}

/// What a `rewrite` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// It leads visitors of some paths elsewhere: an entry of `redirects`.
    Redirect(String),
    /// It leads visitors of every path elsewhere.
    All(Answer),
    /// One prefix stands in the place of another.
    Prefix { from: String, to: String },
    /// Another path stands in the place of those of an expression: an entry of `rewrite`.
    Pattern(String),
    /// It has no equal.
    Other,
}

/// Returns what a `rewrite` does, in a server of these names.
pub(super) fn rewrite(directive: &Directive, names: &[String]) -> Rewrite {
    let (pattern, target) = (directive.argument(0), directive.argument(1));
    let status = match directive.argument(2) {
        "permanent" => Some(301),
        "redirect" => Some(302),
        _ if target.starts_with("http") || target.starts_with("$scheme") => Some(302),
        _ => None,
    };
    let is_all = matches!(pattern, "^" | "^.*$" | "^(.*)$" | ".*" | "^/(.*)$" | "^/(.*)" | "^(.*)");
    if let (Some(status), true) = (status, is_all) {
        let behind = if pattern.starts_with("^/") { "/$1" } else { "$1" };
        // A rewrite takes the query along by itself.
        let target =
            target.strip_suffix(behind).map_or_else(|| target.to_owned(), |front| format!("{front}$request_uri"));
        return Rewrite::All(to(status, &target, names));
    }
    let Some(translation) = translated(target) else { return Rewrite::Other };
    if let Some(status) = status {
        // It takes the query along, unless a question mark says not to.
        let to = translation.strip_suffix('?').map_or_else(|| format!("{translation}$is_args$args"), str::to_owned);
        let (key, from) = match glob(pattern) {
            Some(path) => ("from", path),
            None if is_expression(pattern) => ("pattern", pattern.to_owned()),
            None => return Rewrite::Other,
        };
        return Rewrite::Redirect(redirect(key, &from, &to, status));
    }
    match (glob(pattern), target.strip_suffix("$1")) {
        (Some(path), Some(front)) if path.ends_with("/*") && !front.contains('$') => {
            let to = front.trim_end_matches('/');
            let from = path.trim_end_matches(['/', '*']).to_owned();
            Rewrite::Prefix { from, to: if to.is_empty() { "/" } else { to }.to_owned() }
        }
        _ if is_expression(pattern) && translation.starts_with('/') => {
            let fields = [("pattern", Some(toml::literal(pattern))), ("to", Some(toml::literal(&translation)))];
            Rewrite::Pattern(toml::table(&fields))
        }
        _ => Rewrite::Other,
    }
}

/// Returns the paths of an expression in which nothing but an end of any kind is not to be taken by its letters.
fn glob(pattern: &str) -> Option<String> {
    let inner = pattern.strip_prefix('^')?;
    let ends = [("/(.*)$", "/*"), ("/(.*)", "/*"), ("$", "")];
    let (path, end) = ends.iter().find_map(|(theirs, ours)| Some((inner.strip_suffix(theirs)?, ours)))?;
    let path = path.replace(r"\.", ".").replace(r"\-", "-");
    let is_plain = !path.contains(['(', ')', '[', ']', '*', '+', '?', '\\', '|', '^', '$', '{']);
    (is_plain && (path.starts_with('/') || *end == "/*")).then(|| format!("{path}{end}"))
}

/// Tells whether an expression is of the kind that every library takes: without looking around, naming or taking back.
fn is_expression(pattern: &str) -> bool {
    let has_kin = pattern.contains("(?") || pattern.contains("++") || pattern.contains("*+") || pattern.contains("?+");
    let takes_back = (1..=9).any(|number| pattern.contains(&format!("\\{number}")));
    !has_kin && !takes_back
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::nginx::Place;

    fn directive(name: &str, arguments: &[&str]) -> Directive {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Directive {
            name: name.to_owned(),
            arguments,
            block: None,
            place: Place { file: Path::new("a").into(), line: 1 },
        }
    }

    #[test]
    fn a_return_is_told_apart_by_where_it_leads() {
        let names = ["a.test".to_owned()];
        let host = |status, to: &str| Answer::ToHost("b.test".to_owned(), status, to.to_owned());
        for (words, wanted) in [
            (&["301", "https://$host$request_uri"][..], Answer::ToHttps),
            (&["301", "https://a.test$request_uri"], Answer::ToHttps),
            (&["301", "$scheme://b.test$request_uri"], host(301, "$scheme://b.test$request_uri")),
            (&["https://b.test$request_uri"], host(302, "https://b.test$request_uri")),
            (&["302", "/new"], Answer::To(302, "/new".to_owned())),
            (&["301", "https://b.test/x"], Answer::To(301, "https://b.test/x".to_owned())),
            (&["301", "/x$arg_id"], Answer::Other),
            (&["404"], Answer::Status(404)),
            (&["200", "ok"], Answer::Status(200)),
        ] {
            assert_eq!(answer(&directive("return", words), &names), wanted, "{words:?}");
        }
    }

    #[test]
    fn a_rewrite_of_the_common_forms_is_one_of_ours_and_no_other_is() {
        let of = |words: &[&str]| rewrite(&directive("rewrite", words), &[]);
        let host = Answer::ToHost("b.test".to_owned(), 301, "https://b.test$request_uri".to_owned());
        assert_eq!(of(&["^", "https://b.test$request_uri", "permanent"]), Rewrite::All(host.clone()));
        assert_eq!(of(&["^/(.*)$", "https://b.test/$1", "permanent"]), Rewrite::All(host));
        let led = |key: &str, from: &str, to: &str, status| Rewrite::Redirect(redirect(key, from, to, status));
        assert_eq!(of(&["^/old$", "/new", "permanent"]), led("from", "/old", "/new$is_args$args", 301));
        assert_eq!(of(&["^/old$", "/new?", "permanent"]), led("from", "/old", "/new", 301));
        assert_eq!(of(&["^/old/(.*)$", "/new/$1", "redirect"]), led("from", "/old/*", "/new/$1$is_args$args", 302));
        let user = "^/user/([0-9]+)$";
        assert_eq!(of(&[user, "/u/$1", "permanent"]), led("pattern", user, "/u/$1$is_args$args", 301));
        let prefix = |from: &str, to: &str| Rewrite::Prefix { from: from.to_owned(), to: to.to_owned() };
        assert_eq!(of(&["^/api/(.*)$", "/$1", "break"]), prefix("/api", "/"));
        assert_eq!(of(&["^/api/(.*)", "/v2/$1", "break"]), prefix("/api", "/v2"));
        assert!(matches!(of(&[user, "/u?id=$1", "last"]), Rewrite::Pattern(_)));
        for words in [&["^/(?!a)", "/c"][..], &["^/a$", "/b$arg_x"], &["(.)\\1", "/y", "permanent"]] {
            assert_eq!(of(words), Rewrite::Other, "{words:?}");
        }
    }
}
