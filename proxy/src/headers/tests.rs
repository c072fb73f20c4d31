//! Requests and answers, head by head.

use http::{HeaderValue, Request};

use super::*;
use crate::error::Error;
use crate::upstream::exchange::RequestFraming;

fn parts(build: http::request::Builder) -> http::request::Parts {
    build.body(()).unwrap().into_parts().0
}

fn get(fields: &[(&str, &str)]) -> http::request::Parts {
    parts(fields.iter().fold(Request::get("/x?q=1"), |build, (name, value)| build.header(*name, *value)))
}

fn authority(request: &http::request::Parts, target_bytes: usize) -> Result<Authority<'_>, Error> {
    check(request, &Fields::of(request), target_bytes)
}

fn encode(request: &http::request::Parts, trusted: bool) -> String {
    let fields = Fields::of(request);
    let authority = check(request, &fields, 1000).unwrap();
    let head = RequestHead {
        request,
        given: &[],
        host: authority.text,
        fields: &fields,
        authority: &authority,
        target: "/x?q=1",
        length: None,
        framing: RequestFraming::Length,
        websocket: false,
        expects_continue: false,
        forwarded: Forwarded {
            peer: "10.0.0.9",
            client: "10.0.0.9",
            trusted,
            secure: false,
            request_id: &HeaderValue::from_static("id-1"),
        },
    };
    let mut text = Vec::new();
    head.encode(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_host_is_compared_without_case_port_and_trailing_dot() {
    for (text, host, port) in [
        ("Shop.Example:8080", "shop.example", Some("8080")),
        ("shop.example.", "shop.example", None),
        ("[::1]:80", "[::1]", Some("80")),
        ("[::1]", "[::1]", None),
    ] {
        let request = get(&[("host", text)]);
        let authority = authority(&request, 1000).unwrap();
        assert_eq!((authority.host.as_ref(), authority.port), (host, port));
    }
}

#[test]
fn an_ambiguous_request_is_refused() {
    for fields in [
        &[][..],
        &[("host", "a"), ("host", "a")],
        &[("host", "a b")],
        &[("host", "a:b")],
        &[("host", "a:")],
        &[("host", "a:+1")],
        &[("host", "[::1")],
        &[("host", "user@a")],
        &[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "1")],
    ] {
        assert!(matches!(authority(&get(fields), 1000), Err(Error::BadRequest(_))), "{fields:?}");
    }
    let coded = get(&[("host", "a"), ("transfer-encoding", "gzip, chunked")]);
    assert!(matches!(authority(&coded, 1000), Err(Error::NotImplemented(_))));
    let absolute = parts(Request::get("http://evil/x").header("host", "a"));
    assert!(matches!(authority(&absolute, 1000), Err(Error::BadRequest(_))));
    assert!(matches!(authority(&get(&[("host", "a")]), 3), Err(Error::TargetTooLong)));
    let old = parts(Request::get("/x").version(http::Version::HTTP_10));
    assert_eq!(authority(&old, 1000).unwrap().host, "");
}

#[test]
fn what_a_stranger_says_of_its_client_is_replaced_by_the_truth() {
    let request = get(&[
        ("host", "shop.example:81"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-real-ip", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=1.2.3.4"),
        ("accept", "*/*"),
    ]);
    assert_eq!(
        encode(&request, false),
        "GET /x?q=1 HTTP/1.1\r\nHost: shop.example:81\r\naccept: */*\r\nx-forwarded-for: 10.0.0.9\r\n\
         x-real-ip: 10.0.0.9\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop.example:81\r\n\
         x-forwarded-port: 81\r\nx-request-id: id-1\r\n\r\n"
    );
}

#[test]
fn what_a_trusted_proxy_says_of_its_client_is_kept_and_lengthened() {
    let request = get(&[("host", "a"), ("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
    let head = encode(&request, true);
    assert!(head.contains("x-forwarded-for: 1.2.3.4, 10.0.0.9\r\n"), "{head}");
    assert!(head.contains("x-forwarded-proto: https\r\n") && !head.contains("x-forwarded-proto: http\r\n"), "{head}");
}

#[test]
fn connection_takes_away_what_it_lists_but_never_what_we_say() {
    let request = get(&[
        ("host", "a"),
        ("connection", "close, Host, X-Forwarded-For, X-Secret, Content-Length"),
        ("content-length", "0"),
        ("x-secret", "1"),
        ("keep-alive", "5"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("te", "gzip, trailers"),
    ]);
    let head = encode(&request, false);
    assert!(head.contains("Host: a\r\n") && head.contains("x-forwarded-for: 10.0.0.9\r\n"), "{head}");
    assert!(head.contains("content-length: 0\r\n"), "{head}");
    assert!(head.contains("connection: te\r\nte: trailers\r\n"), "{head}");
    for gone in ["x-secret", "keep-alive", "upgrade", "http2-settings", "gzip"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
}
