//! A path as a rule has to read it: an application may decode `/%61dmin`, or take `//admin` and `/x/../admin` for `/admin`.

use std::borrow::Cow;

/// Returns the forms of a path that an application may take it for: as it came, and where that is another, decoded, without
/// dot segments, empty segments and parameters. A rule that protects counts where it takes either.
pub(super) fn forms(path: &str) -> Vec<Cow<'_, str>> {
    let bytes = path.as_bytes();
    let is_plain = !bytes.iter().any(|byte| b"%;\\".contains(byte))
        && !bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.");
    if is_plain {
        return vec![Cow::Borrowed(path)];
    }
    let plain = plain(path);
    if plain == path { vec![Cow::Borrowed(path)] } else { vec![Cow::Borrowed(path), Cow::Owned(plain)] }
}

fn plain(path: &str) -> String {
    // Twice: some applications stand behind another decoder.
    let decoded = decode(&decode(path.as_bytes()));
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = &tail[2..];
            }
            _ => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    decoded
}

/// Returns the rule with the longest path of those that take one; of two alike the first.
pub(super) fn longest<T>(rules: &[T], length: impl Fn(&T) -> Option<usize>) -> Option<&T> {
    let mut best: Option<(usize, &T)> = None;
    for rule in rules {
        if let Some(length) = length(rule).filter(|length| best.is_none_or(|(most, _)| *length > most)) {
            best = Some((length, rule));
        }
    }
    best.map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_an_application_may_read_it() {
        for (path, form) in [
            ("/%61dmin", "/admin"),
            ("/%2561dmin", "/admin"),
            ("//admin", "/admin"),
            ("/x/../admin/", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x%2f..%2fadmin", "/admin"),
            ("/admin;v=1/x", "/admin/x"),
            ("/./admin", "/admin"),
            ("/a\\..\\admin", "/admin"),
            ("/../../admin", "/admin"),
        ] {
            assert_eq!(forms(path), [path, form], "{path}");
        }
        assert_eq!(forms("/admin/x"), ["/admin/x"]);
        assert_eq!(forms("/100%"), ["/100%"]);
        assert_eq!(forms("*"), ["*"]);
    }
}
