//! Bytes that nearly are messages: whole ones, and what is wrong with them one or two mutations on.

use proptest::prelude::*;
use proptest::sample::{Index, select};

fn field() -> impl Strategy<Value = String> {
    let names = select(vec![
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Trailer",
        "Host",
        "Upgrade",
        "TE",
        "X-A",
        "Cookie",
        "Keep-Alive",
        "X-Forwarded-For",
        "X-Real-IP",
        "Forwarded",
        "Expect",
        "Proxy-Connection",
        "Content-Length ",
        " X",
        "",
    ]);
    let values = select(vec![
        "5",
        "0",
        "3",
        "05",
        "+5",
        "-1",
        "5, 5",
        "99999999999999999999",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "identity",
        "close",
        "keep-alive, X-A",
        "upgrade",
        "websocket",
        "host, content-length",
        "trailers",
        "a.test",
        "a.test:80",
        "b.test",
        "[::1]",
        "",
        "a=b; c",
        "100-continue",
        "\u{e9}",
        "a\tb",
        "x\0y",
    ]);
    let between = select(vec![": ", ":", " : ", ":  ", ":\t", ""]);
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n "), 1 => Just("")];
    (names, between, values, end).prop_map(|(name, between, value, end)| format!("{name}{between}{value}{end}"))
}

fn body() -> impl Strategy<Value = String> {
    let size = select(vec![
        "3",
        "03",
        "0",
        "5",
        "A",
        "a",
        "3;x=y",
        "3 ;x",
        "3;\u{1}",
        "-3",
        "0x3",
        "3 ",
        "ffffffffffffffffff",
    ]);
    let chunk = (size, select(vec!["abc", "abcde", "", "0123456789"]), select(vec!["\r\n", "\n", ""]))
        .prop_map(|(size, data, end)| format!("{size}\r\n{data}{end}"));
    let last = select(vec![
        "0\r\n\r\n",
        "0\r\nX-T: 1\r\n\r\n",
        "0\r\nX-T: 1\n\r\n",
        "0\r\n",
        "0\n\n",
        "00\r\n\r\n",
        "0\r\nbad\r\n\r\n",
        "",
    ]);
    let chunks = (proptest::collection::vec(chunk, 0..4), last).prop_map(|(chunks, last)| chunks.concat() + last);
    prop_oneof![Just(String::new()), Just("abcde".to_owned()), Just("abc".to_owned()), chunks]
}

/// Puts a byte of its own in some place, or takes one away.
fn mutated(messages: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    (messages, proptest::collection::vec((any::<Index>(), any::<Option<u8>>()), 0..3)).prop_map(
        |(message, mutations)| {
            let mut bytes = message.into_bytes();
            for (place, byte) in mutations {
                if !bytes.is_empty() {
                    let at = place.index(bytes.len());
                    match byte {
                        Some(byte) => bytes[at] = byte,
                        None => drop(bytes.remove(at)),
                    }
                }
            }
            bytes
        },
    )
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let line = select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 204 No\r\n",
        "HTTP/1.1 304 Not\r\n",
        "HTTP/1.1 500\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 101 Switching\r\n",
        "HTTP/2.0 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\n",
    ]);
    let message = (line, proptest::collection::vec(field(), 0..4), body());
    mutated(message.prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat())))
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "POST", "HEAD", "CONNECT", "OPTIONS", "G\u{e9}T", "get"]);
    let target = select(vec![
        "/",
        "/a?b=c",
        "http://a.test/x",
        "http://b.test",
        "*",
        "a.test:80",
        "//a",
        "/a/../b",
        "/%2e%2e/",
        "",
    ]);
    let version = select(vec!["HTTP/1.1\r\n", "HTTP/1.0\r\n", "HTTP/1.1\n", "HTTP/2.0\r\n", "\r\n"]);
    let host = prop_oneof![4 => Just("Host: a.test\r\n"), 1 => Just(""), 1 => Just("Host: a.test\r\nHost: b.test\r\n")];
    let weights = (
        prop_oneof![3 => Just("GET"), 3 => Just("POST"), 2 => method],
        prop_oneof![3 => Just("/a?b=c"), 2 => target],
        prop_oneof![5 => Just("HTTP/1.1\r\n"), 1 => version],
    );
    let usual = select(vec![
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close, X-A, Host\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "X-Forwarded-For: 6.6.6.6\r\n",
        "Cookie: a=b\r\nCookie: c=d\r\n",
        "TE: trailers\r\n",
        "Expect: 100-continue\r\n",
        "X-Request-Id: x\r\n",
    ])
    .prop_map(str::to_owned);
    let fields = proptest::collection::vec(prop_oneof![4 => usual, 1 => field()], 0..5);
    let message = (weights, host, fields)
        .prop_map(|((method, target, version), host, fields)| (method, target, version, host, fields));
    mutated(message.prop_map(|(method, target, version, host, fields)| {
        format!("{method} {target} {version}{host}{}\r\n", fields.concat())
    }))
}

fn paths() -> impl Strategy<Value = String> {
    let segment = select(vec![
        "a", "api", "..", ".", "%2e%2e", "%2E.", ".%2e", "%2f", "..%2f", "%2F..", "", "a..b", "...", "%252e",
    ]);
    proptest::collection::vec(segment, 0..7).prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_answer_that_we_take_is_the_same_to_hyper_and_in_any_pieces(bytes in answers(), seed: u64) {
        super::answer(&bytes, seed);
    }

    #[test]
    fn a_request_that_we_forward_is_one_clear_request(bytes in requests()) {
        super::request(&bytes);
    }

    #[test]
    fn a_path_that_we_let_through_stays_below_its_prefix(rest in paths(), prefix in select(vec!["/", "/api", "/api/a", "/a"])) {
        super::path(&format!("{}{rest}", prefix.trim_end_matches('/')), prefix);
    }
}

/// The generators are no use where nearly everything is refused.
#[test]
fn many_generated_messages_are_taken() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut taken = |messages: &dyn Fn(&mut TestRunner) -> Vec<u8>, is_taken: &dyn Fn(&[u8]) -> bool| {
        (0..1000).filter(|_| is_taken(&messages(&mut runner))).count()
    };
    let answered = taken(&|runner| answers().new_tree(runner).unwrap().current(), &|bytes| {
        super::ours(bytes, &mut |left| left).is_some()
    });
    let forwarded = taken(&|runner| requests().new_tree(runner).unwrap().current(), &|bytes| {
        super::parse_request(bytes).is_some_and(|request| {
            let (parts, ()) = request.into_parts();
            crate::headers::check(&parts, &crate::headers::Fields::of(&parts), 1000).is_ok()
        })
    });
    assert!(answered > 100 && forwarded > 100, "{answered} answers, {forwarded} requests");
}
