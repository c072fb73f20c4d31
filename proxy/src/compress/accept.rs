//! Which coding a client wants its answers in (RFC 9110 section 12.5.3).

use config::edge::Algorithm;
use http::header::{self, HeaderMap};

/// A weight in thousandths, which is as fine as it may be.
type Weight = u16;

const FULL: Weight = 1000;

/// Returns the coding that a client likes best of those that are offered, which stand in our order; `None`: as it is.
///
/// A client that names nothing gets it as it is: it may take any coding by the letter, and those that say nothing seldom do.
pub(super) fn choose(headers: &HeaderMap, offered: &[Algorithm]) -> Option<Algorithm> {
    let mut weights: [Option<Weight>; Algorithm::ALL.len()] = [None; Algorithm::ALL.len()];
    let (mut plain, mut any) = (None, None);
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = read(item);
            let slot = match Algorithm::ALL.iter().position(|coding| is_called(*coding, name)) {
                Some(place) => &mut weights[place],
                None if name == "*" => &mut any,
                None if name.eq_ignore_ascii_case("identity") => &mut plain,
                None => continue,
            };
            // Named twice, it is what was said first.
            *slot = slot.or(Some(weight));
        }
    }
    let weight = |coding: Algorithm| weights[coding as usize].or(any).unwrap_or(0);
    // Only where it is said to be liked better is the plain one taken: else nobody would name a coding.
    let plain = plain.unwrap_or(0);
    let mut best = None;
    for coding in offered {
        let weight = weight(*coding);
        if weight > 0 && weight >= plain && best.is_none_or(|(_, most)| weight > most) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// Tells whether a client means it by a name.
fn is_called(coding: Algorithm, name: &str) -> bool {
    name.eq_ignore_ascii_case(coding.word()) || coding == Algorithm::Gzip && name.eq_ignore_ascii_case("x-gzip")
}

/// Reads `gzip;q=0.5`; a weight that is none counts as a refusal.
fn read(item: &str) -> (&str, Weight) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("q").then(|| weight(value.trim()).unwrap_or(0))
    });
    (name, weight.unwrap_or(FULL))
}

fn weight(text: &str) -> Option<Weight> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: Weight = format!("{part:0<3}").parse().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const OURS: [Algorithm; 3] = [Algorithm::Br, Algorithm::Zstd, Algorithm::Gzip];

    fn chosen(accept: &[&str], offered: &[Algorithm]) -> Option<Algorithm> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        choose(&headers, offered)
    }

    #[test]
    fn the_best_liked_is_taken_and_of_equals_ours() {
        use Algorithm::{Br, Gzip, Zstd};
        for (accept, expected) in [
            // Browsers over TLS, browsers without, curl --compressed, Go, Python's requests.
            ("gzip, deflate, br, zstd", Some(Br)),
            ("gzip, deflate", Some(Gzip)),
            ("deflate, gzip, br, zstd", Some(Br)),
            ("gzip", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.5", Some(Gzip)),
            ("br;q=0, gzip;q=0.001", Some(Gzip)),
            ("br ; q=0.800 , zstd;q=0.9", Some(Zstd)),
            ("x-gzip", Some(Gzip)),
            ("GZIP;Q=0.5", Some(Gzip)),
            ("*", Some(Br)),
            ("*;q=0.5, br;q=0", Some(Zstd)),
            ("*;q=0", None),
            ("gzip;q=0", None),
            ("identity;q=0", None),
            ("identity;q=0, *", Some(Br)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity", None),
            ("compress, deflate", None),
            ("", None),
            // No weights: taken for a refusal, for the plain answer is always right.
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=", None),
            ("gzip;q=-1", None),
        ] {
            assert_eq!(chosen(&[accept], &OURS), expected, "{accept}");
        }
        assert_eq!(chosen(&[], &OURS), None);
        assert_eq!(chosen(&["deflate", "gzip"], &OURS), Some(Gzip));
        assert_eq!(chosen(&["br, gzip"], &[Gzip]), Some(Gzip));
        assert_eq!(chosen(&["br, gzip"], &[Gzip, Br]), Some(Gzip));
        assert_eq!(chosen(&["*"], &[]), None);
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_says_gets_it_what_it_refused(accept in "[a-z*=;,.01 ]{0,40}") {
            let refused = format!("br;q=0, zstd;q=0, gzip;q=0,{accept}");
            prop_assert_eq!(chosen(&[&refused], &OURS), None);
        }
    }
}
