//! From the path of a request to a place in a folder: decoded once, segment by segment, and nothing that could lead elsewhere.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Where a path leads below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Below the folder, without a slash at either end; empty is the folder itself.
    pub(super) path: PathBuf,
    /// It ends in a slash.
    pub(super) is_folder: bool,
    /// Its last segment has an ending, as in `app.css`.
    pub(super) has_ending: bool,
}

impl Place {
    /// Reads what follows the route's prefix; `None` where it can be no file that is meant for visitors: hidden ones, `.` and
    /// `..` however they are encoded, and what no name of a file is.
    ///
    /// Of hidden ones `/.well-known` is served (RFC 8615): it is made for visitors.
    pub(super) fn read(rest: &str) -> Option<Self> {
        let mut path = PathBuf::new();
        let mut last = Vec::new();
        for (number, segment) in rest.split('/').filter(|segment| !segment.is_empty()).enumerate() {
            let name = decode(segment)?;
            let is_hidden = name.starts_with(b".") && !(number == 0 && name == b".well-known");
            // An encoded slash or a backslash is part of a name here and parts names elsewhere: nobody means either.
            if is_hidden || name.iter().any(|byte| matches!(byte, 0 | b'/' | b'\\')) {
                return None;
            }
            path.push(OsString::from_vec(name.clone()));
            last = name;
        }
        let is_folder = rest.ends_with('/');
        let has_ending = !is_folder && last.iter().skip(1).any(|byte| *byte == b'.');
        Some(Self { path, is_folder, has_ending })
    }
}

/// Decodes `%2E` and its like, once; `None` where a percent sign begins none.
fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn read(rest: &str) -> Option<(String, bool, bool)> {
        let place = Place::read(rest)?;
        Some((place.path.to_str().unwrap().to_owned(), place.is_folder, place.has_ending))
    }

    #[test]
    fn a_path_is_decoded_once_and_keeps_its_meaning() {
        for (rest, path, is_folder, has_ending) in [
            ("", "", false, false),
            ("/", "", true, false),
            ("/app.css", "app.css", false, true),
            ("//a///b.js", "a/b.js", false, true),
            ("/a/b/", "a/b", true, false),
            ("/a.b/c", "a.b/c", false, false),
            ("/caf%C3%A9%20menu.pdf", "café menu.pdf", false, true),
            ("/100%25.txt", "100%.txt", false, true),
            ("/%252e%252e/x", "%2e%2e/x", false, false),
            ("/a..b/c..", "a..b/c..", false, true),
            ("/.well-known/security.txt", ".well-known/security.txt", false, true),
        ] {
            assert_eq!(read(rest), Some((path.to_owned(), is_folder, has_ending)), "{rest}");
        }
    }

    #[test]
    fn nothing_hidden_and_no_way_out() {
        for rest in [
            "/..",
            "/../etc/passwd",
            "/a/../../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/.%2E/x",
            "/./x",
            "/%2e/x",
            "/.env",
            "/.git/config",
            "/a/.htaccess",
            "/%2Egit/config",
            "/a%2fb",
            "/..%2f..%2fetc%2fpasswd",
            "/..%5c..%5cx",
            "/a%00.css",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1b",
            "/a/.well-known/x",
        ] {
            assert_eq!(Place::read(rest), None, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_below_the_folder(rest in "(/|%2[eEfF]|\\.|[a-z]|%5c|%00|%){0,24}") {
            if let Some(place) = Place::read(&rest) {
                let is_below = place.path.components().all(|part| matches!(part, Component::Normal(_)));
                prop_assert!(is_below && !place.path.is_absolute(), "{:?}", place.path);
                prop_assert!(Path::new("/f").join(&place.path).starts_with("/f"));
            }
        }
    }
}
