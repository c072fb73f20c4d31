//! Compresses answers, where a service asks for it and the client takes it.
//!
//! Left as they are: events, parts of something, what is coded or signed already, what says `no-transform`, and what is too
//! short to gain. What could have been compressed says so in `Vary` even where it was not, or a cache would hand it to the
//! wrong client.

mod accept;
mod encoder;
mod stream;

use config::edge::Compress;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

pub(crate) use encoder::Budget;
pub(crate) use stream::Compressor;

use encoder::Encoder;

/// The memory of each worker's encoders.
pub(crate) const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// Digests of the bytes as they are sent, or of what they stand for: whoever made them wants to find them true.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Decides about an answer, whose fields are changed to say so; returns what compresses its body.
///
/// To HEAD it answers what it would to GET (RFC 9110 section 9.3.2), and nobody asks for the body.
pub(crate) fn apply(
    rules: &Compress,
    asked: (&Method, &HeaderMap),
    status: StatusCode,
    answer: &mut HeaderMap,
    budget: &Budget,
) -> Option<Compressor> {
    let (method, request) = asked;
    if status == StatusCode::NOT_MODIFIED {
        revalidated(rules, request, answer);
        return None;
    }
    let length = length(answer);
    if *method == Method::CONNECT
        || !is_eligible(rules, status, answer)
        || length.is_some_and(|len| len < rules.min_bytes)
    {
        return None;
    }
    vary(answer);
    let coding = accept::choose(request, &rules.algorithms)?;
    let encoder = Encoder::new(coding, length, budget)?;
    answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.word()));
    answer.remove(header::CONTENT_LENGTH);
    // Parts of it could be asked for, but only of the plain one.
    answer.remove(header::ACCEPT_RANGES);
    weaken(answer);
    (*method != Method::HEAD).then(|| Compressor::new(encoder))
}

/// A client that has it compressed has it under the tag that we made of the application's, and a cache must go on telling
/// clients apart.
fn revalidated(rules: &Compress, request: &HeaderMap, answer: &mut HeaderMap) {
    let is_of_type = kind(answer).is_none_or(|kind| has_type(&rules.types, kind));
    if !is_of_type || answer.contains_key(header::CONTENT_ENCODING) || says_no_transform(answer) {
        return;
    }
    vary(answer);
    if accept::choose(request, &rules.algorithms).is_some() {
        weaken(answer);
    }
}

fn is_eligible(rules: &Compress, status: StatusCode, answer: &HeaderMap) -> bool {
    let has_body = !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT);
    has_body
        && kind(answer).is_some_and(|kind| has_type(&rules.types, kind))
        && !answer.contains_key(header::CONTENT_ENCODING)
        && !answer.contains_key(header::CONTENT_RANGE)
        && !DIGESTS.iter().any(|digest| answer.contains_key(digest))
        && !says_no_transform(answer)
}

/// Returns the type of content, without its parameters.
fn kind(answer: &HeaderMap) -> Option<&str> {
    let kind = answer.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(kind.split(';').next().unwrap_or(kind).trim())
}

fn has_type(types: &[String], kind: &str) -> bool {
    // Whatever the list says: events are waited for one by one, and calls of gRPC have a coding of their own.
    if kind.eq_ignore_ascii_case("text/event-stream")
        || kind.get(..16).is_some_and(|start| start.eq_ignore_ascii_case("application/grpc"))
    {
        return false;
    }
    types.iter().any(|known| match known.strip_suffix('*') {
        Some(front) => kind.get(..front.len()).is_some_and(|start| start.eq_ignore_ascii_case(front)),
        None => kind.eq_ignore_ascii_case(known),
    })
}

fn length(answer: &HeaderMap) -> Option<u64> {
    answer.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn says_no_transform(answer: &HeaderMap) -> bool {
    words(answer, &header::CACHE_CONTROL).any(|word| word.eq_ignore_ascii_case("no-transform"))
}

fn words<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or_default().split(',').map(str::trim))
}

/// Says that it depends on the client's codings, where that is not said already.
fn vary(answer: &mut HeaderMap) {
    if !words(answer, &header::VARY).any(|word| word == "*" || word.eq_ignore_ascii_case("accept-encoding")) {
        answer.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The same thing in other bytes has no strong tag of the plain one (RFC 9110 section 8.8.3.3).
fn weaken(answer: &mut HeaderMap) {
    let Some(tag) = answer.get_mut(header::ETAG) else { return };
    if tag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(field).collect()
    }

    fn applied(accept: &str, status: u16, answer: &mut HeaderMap) -> bool {
        let types = ["text/*".to_owned(), "application/json".to_owned()];
        let rules = Compress { types: types.into(), min_bytes: 100, ..Compress::default() };
        let request = fields(&[("accept-encoding", accept)]);
        let status = StatusCode::from_u16(status).unwrap();
        apply(&rules, (&Method::GET, &request), status, answer, &Budget::new(usize::MAX)).is_some()
    }

    #[test]
    fn a_compressed_answer_says_what_it_is() {
        let mut answer = fields(&[
            ("content-type", "Text/HTML; charset=utf-8"),
            ("content-length", "100"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("vary", "Cookie"),
        ]);
        assert!(applied("gzip", 200, &mut answer));
        let expected = fields(&[
            ("content-type", "Text/HTML; charset=utf-8"),
            ("etag", "W/\"a\""),
            ("vary", "Cookie"),
            ("vary", "Accept-Encoding"),
            ("content-encoding", "gzip"),
        ]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn what_must_not_or_need_not_be_compressed_is_left_alone() {
        for (status, more) in [
            (200, ("content-encoding", "br")),
            (200, ("content-encoding", "identity")),
            (206, ("content-range", "bytes 0-99/1000")),
            (200, ("content-range", "bytes 0-99/1000")),
            (204, ("x", "")),
            (205, ("x", "")),
            (101, ("x", "")),
            (200, ("cache-control", "private, No-Transform")),
            (200, ("content-length", "99")),
            (200, ("content-digest", "sha-256=:x:")),
            (200, ("content-type", "text/event-stream; charset=utf-8")),
            (200, ("content-type", "image/png")),
            (200, ("content-type", "application/grpc+proto")),
            (200, ("content-type", "application/jsonp")),
        ] {
            let mut answer = fields(&[("content-type", "text/plain"), ("content-length", "1000"), ("etag", "\"a\"")]);
            answer.insert(HeaderName::from_static(more.0), HeaderValue::from_static(more.1));
            let before = answer.clone();
            assert!(!applied("gzip", status, &mut answer), "{status} {more:?}");
            assert_eq!(answer, before, "{status} {more:?}");
        }
        let mut typeless = fields(&[("content-length", "1000")]);
        assert!(!applied("gzip", 200, &mut typeless));
    }

    #[test]
    fn who_takes_no_coding_gets_it_plain_and_caches_are_told() {
        for vary in ["", "accept-encoding", "*"] {
            let mut answer = fields(&[("content-type", "application/json"), ("etag", "\"a\"")]);
            if !vary.is_empty() {
                answer.insert(header::VARY, HeaderValue::from_str(vary).unwrap());
            }
            assert!(!applied("identity", 200, &mut answer));
            assert_eq!(answer.get_all(header::VARY).iter().count(), 1, "{vary}");
            assert_eq!(answer[header::ETAG], "\"a\"");
        }
        // An error page is a page too, and a length need not be known.
        let mut answer = fields(&[("content-type", "text/html")]);
        assert!(applied("br", 404, &mut answer) && answer[header::CONTENT_ENCODING] == "br");
    }

    #[test]
    fn to_head_it_says_what_it_would_to_get_and_has_no_body() {
        let (request, rules) = (fields(&[("accept-encoding", "gzip")]), Compress::default());
        let answered = |method| {
            let mut answer = fields(&[("content-type", "text/html"), ("content-length", "5000"), ("etag", "\"a\"")]);
            let asked = (&method, &request);
            let has_body = apply(&rules, asked, StatusCode::OK, &mut answer, &Budget::new(usize::MAX)).is_some();
            (has_body, answer)
        };
        let (get, head) = (answered(Method::GET), answered(Method::HEAD));
        assert!(get.0 && !head.0);
        assert_eq!(get.1, head.1);
    }

    #[test]
    fn a_304_has_the_tag_of_what_the_client_has() {
        for (accept, kind, tag, varies) in [
            ("gzip", None, "W/\"a\"", true),
            ("identity", None, "\"a\"", true),
            ("gzip", Some("text/css"), "W/\"a\"", true),
            ("gzip", Some("image/png"), "\"a\"", false),
        ] {
            let mut answer = fields(&[("etag", "\"a\"")]);
            if let Some(kind) = kind {
                answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            assert!(!applied(accept, 304, &mut answer));
            let has = (answer[header::ETAG].to_str().unwrap(), answer.contains_key(header::VARY));
            assert_eq!(has, (tag, varies), "{accept} {kind:?}");
            assert!(!answer.contains_key(header::CONTENT_ENCODING));
        }
    }

    #[test]
    fn without_memory_it_goes_as_it_is() {
        let types = ["text/*".to_owned()];
        let rules = Compress { types: types.into(), min_bytes: 0, ..Compress::default() };
        let mut answer = fields(&[("content-type", "text/plain"), ("content-length", "1000"), ("etag", "\"a\"")]);
        let request = fields(&[("accept-encoding", "gzip")]);
        assert!(apply(&rules, (&Method::GET, &request), StatusCode::OK, &mut answer, &Budget::new(0)).is_none());
        assert!(!answer.contains_key(header::CONTENT_ENCODING) && answer.contains_key(header::CONTENT_LENGTH));
        assert_eq!(
            (&answer[header::VARY], &answer[header::ETAG]),
            (&"Accept-Encoding".parse().unwrap(), &"\"a\"".parse().unwrap())
        );
    }
}
