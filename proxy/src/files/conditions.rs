//! What a client has already, and which part it wants (RFC 9110 sections 13 and 14).

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};

/// What tells a file from what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// In quotes, and strong: a change within one nanosecond that keeps the length is none that anybody makes.
    pub(super) tag: String,
    /// In whole seconds, as fields tell it.
    pub(super) modified: SystemTime,
    /// How long it is.
    pub(super) length: u64,
}

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Nothing: this status alone.
    Only(StatusCode),
}

impl Version {
    /// Returns that of a file.
    pub(super) fn new(modified: SystemTime, length: u64) -> Self {
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let tag = format!("\"{:x}.{:x}-{length:x}\"", since.as_secs(), since.subsec_nanos());
        // Of the future none is told (section 8.8.2.1).
        let modified = (UNIX_EPOCH + Duration::from_secs(since.as_secs())).min(SystemTime::now());
        Self { tag, modified, length }
    }

    /// Judges the conditions of a request in their order (section 13.2.2).
    pub(super) fn judge(&self, method: &Method, request: &HeaderMap) -> Wanted {
        let failed = Wanted::Only(StatusCode::PRECONDITION_FAILED);
        if request.contains_key(header::IF_MATCH) {
            if !self.is_listed(request, &header::IF_MATCH, |tag| tag == self.tag) {
                return failed;
            }
        } else if date(request, &header::IF_UNMODIFIED_SINCE).is_some_and(|date| self.modified > date) {
            return failed;
        }
        let has_it = if request.contains_key(header::IF_NONE_MATCH) {
            let same = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == self.tag;
            self.is_listed(request, &header::IF_NONE_MATCH, same)
        } else {
            date(request, &header::IF_MODIFIED_SINCE).is_some_and(|date| self.modified <= date)
        };
        if has_it {
            return Wanted::Only(StatusCode::NOT_MODIFIED);
        }
        match request.get(header::RANGE).and_then(|range| range.to_str().ok()) {
            // Of a HEAD there are no parts (section 14.2).
            Some(range) if *method == Method::GET && self.is_same_range(request) => part(range, self.length),
            _ => Wanted::Whole,
        }
    }

    fn is_listed(&self, request: &HeaderMap, name: &HeaderName, same: impl Fn(&str) -> bool) -> bool {
        let mut tags = request.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or_default().split(','));
        // Our tags have no comma, so that no other's matters.
        tags.any(|tag| tag.trim() == "*" || same(tag.trim()))
    }

    /// Tells whether a part fits to what the client has: only what is the same to the byte does.
    fn is_same_range(&self, request: &HeaderMap) -> bool {
        let Some(value) = request.get(header::IF_RANGE).map(|value| value.to_str().unwrap_or_default()) else {
            return true;
        };
        if value.contains('"') {
            return value == self.tag;
        }
        httpdate::parse_http_date(value).is_ok_and(|date| date == self.modified)
    }
}

fn date(request: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(request.get(name)?.to_str().ok()?).ok()
}

/// Reads `bytes=0-499`. More than one part is answered by all of it, which is allowed (section 14.2) and cheaper than what a
/// client could ask for in many.
fn part(range: &str, length: u64) -> Wanted {
    let unknown = Wanted::Whole;
    let Some((unit, set)) = range.split_once('=') else { return unknown };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return unknown;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return unknown };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if text.is_empty() => Some(None),
        // Beyond what a file can have: its end.
        true => Some(Some(text.parse().unwrap_or(u64::MAX))),
        false => None,
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return unknown };
    let part = match (first, last) {
        (None, None) => return unknown,
        (Some(first), Some(last)) if last < first => return unknown,
        (Some(first), last) => first..last.map_or(length, |last| last.saturating_add(1)).min(length),
        (None, Some(count)) => length.saturating_sub(count)..length,
    };
    if part.is_empty() { Wanted::Only(StatusCode::RANGE_NOT_SATISFIABLE) } else { Wanted::Part(part) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn version() -> Version {
        Version::new(UNIX_EPOCH + Duration::new(1_700_000_000, 500), 1000)
    }

    fn judged(fields: &[(HeaderName, &str)]) -> Wanted {
        let field = |(name, value): &(HeaderName, &str)| (name.clone(), HeaderValue::from_str(value).unwrap());
        version().judge(&Method::GET, &fields.iter().map(field).collect())
    }

    #[test]
    fn a_client_that_has_it_is_told_so_in_the_order_of_the_conditions() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
        let tag = version().tag;
        let weak = format!("W/{tag}");
        let (same, before) = ("Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:19 GMT");
        let (fresh, failed) = (Wanted::Only(StatusCode::NOT_MODIFIED), Wanted::Only(StatusCode::PRECONDITION_FAILED));
        for (fields, expected) in [
            (vec![(IF_NONE_MATCH, tag.as_str())], &fresh),
            (vec![(IF_NONE_MATCH, &weak)], &fresh),
            (vec![(IF_NONE_MATCH, "*")], &fresh),
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, &weak)], &fresh),
            // The tag says more than the date.
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, same)], &Wanted::Whole),
            (vec![(IF_MODIFIED_SINCE, same)], &fresh),
            (vec![(IF_MODIFIED_SINCE, before)], &Wanted::Whole),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], &Wanted::Whole),
            (vec![(IF_MATCH, &tag)], &Wanted::Whole),
            (vec![(IF_MATCH, &weak)], &failed),
            (vec![(IF_MATCH, "\"x\""), (IF_NONE_MATCH, &tag)], &failed),
            (vec![(IF_MATCH, "*")], &Wanted::Whole),
            (vec![(IF_UNMODIFIED_SINCE, before)], &failed),
            (vec![(IF_UNMODIFIED_SINCE, same)], &Wanted::Whole),
        ] {
            assert_eq!(judged(&fields), *expected, "{fields:?}");
        }
    }

    #[test]
    fn a_part_is_what_it_says_and_what_is_none_is_not_heard() {
        let (whole, none) = (Wanted::Whole, Wanted::Only(StatusCode::RANGE_NOT_SATISFIABLE));
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=0-499", Wanted::Part(0..500)),
            ("Bytes = 500-", Wanted::Part(500..1000)),
            ("bytes=999-5000", Wanted::Part(999..1000)),
            ("bytes=-1", Wanted::Part(999..1000)),
            ("bytes=-5000", Wanted::Part(0..1000)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0..1000)),
            ("bytes=1000-", none.clone()),
            ("bytes=99999999999999999999999-", none.clone()),
            ("bytes=-0", none.clone()),
            ("bytes=5-4", whole.clone()),
            ("bytes=-", whole.clone()),
            ("bytes=", whole.clone()),
            ("bytes=a-b", whole.clone()),
            ("bytes=+1-2", whole.clone()),
            ("bytes=0-1,5-6", whole.clone()),
            ("lines=0-1", whole.clone()),
            ("0-1", whole),
        ] {
            assert_eq!(judged(&[(header::RANGE, range)]), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), none);
        let head = version()
            .judge(&Method::HEAD, &[(header::RANGE, HeaderValue::from_static("bytes=0-1"))].into_iter().collect());
        assert_eq!(head, Wanted::Whole);
    }

    #[test]
    fn a_part_of_another_version_is_answered_by_all_of_this_one() {
        let tag = version().tag;
        let weak = format!("W/{tag}");
        for (of, is_same) in [
            (tag.as_str(), true),
            (&weak, false),
            ("\"x\"", false),
            ("Tue, 14 Nov 2023 22:13:20 GMT", true),
            ("Tue, 14 Nov 2023 22:13:21 GMT", false),
            ("nonsense", false),
        ] {
            let wanted = judged(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, of)]);
            assert_eq!(wanted == Wanted::Part(0..2), is_same, "{of}");
        }
    }

    proptest! {
        #[test]
        fn no_part_is_empty_or_beyond_the_end(range in "bytes=[0-9]{0,21}-[0-9]{0,21}", length: u64) {
            if let Wanted::Part(part) = part(&range, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
