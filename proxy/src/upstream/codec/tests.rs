//! The codec against what RFC 9112 says, and against any bytes.

use bytes::BytesMut;
use http::Method;
use proptest::prelude::*;

use super::*;

fn head(text: &str) -> Result<Option<ResponseHead>, Malformed> {
    parse(&mut BytesMut::from(text), &Method::GET, 200)
}

fn framing(text: &str) -> Framing {
    head(text).unwrap().unwrap().framing
}

#[test]
fn the_end_of_a_body_is_known_by_rfc_9112_section_6_3() {
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Framing::Length(5));
    assert_eq!(framing("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"), Framing::Chunked);
    assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
    assert_eq!(framing("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), Framing::Empty);
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let answer = parse(&mut BytesMut::from(text), &Method::HEAD, 200).unwrap().unwrap();
    assert_eq!(answer.framing, Framing::Empty);
    assert_eq!(answer.headers["content-length"], "5");
}

#[test]
fn an_ambiguous_answer_is_refused() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "A: b\r\n c\r\n",
        "A\r\n",
        "A: \0\r\n",
        "A: b\rc: d\r\n",
        ": b\r\n",
        "A b: c\r\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert!(head(&text).is_err(), "{fields:?}");
    }
    for start in [
        "HTTP/2.0 200 OK",
        "HTTP/1.1 99 x",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200\r OK",
        "HTTX/1.1 200 OK",
        "GET / HTTP/1.1",
        "hello",
        "\r\nHTTP/1.1 200 OK",
    ] {
        assert!(head(&format!("{start}\r\n\r\n")).is_err(), "{start}");
    }
    assert!(head("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
}

#[test]
fn hop_by_hop_fields_end_here_and_so_do_those_that_connection_lists() {
    let answer = head(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
         Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Kept: yes\r\n\r\n",
    )
    .unwrap()
    .unwrap();
    let names: Vec<_> = answer.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["set-cookie", "x-kept"]);
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert!(!answer.keep_alive);
}

#[test]
fn a_connection_is_kept_as_the_version_says() {
    let kept = |text: &str| head(text).unwrap().unwrap().keep_alive;
    assert!(kept("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
    assert!(!kept("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"));
    assert!(!kept("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!kept("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
    assert!(kept("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn more_fields_than_usual_are_read_up_to_the_limit() {
    let text = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(fields));
    assert_eq!(head(&text(200)).unwrap().unwrap().headers.len(), 200);
    assert_eq!(head(&text(201)).unwrap_err(), Malformed("it has too many header fields"));
}

#[test]
fn a_head_is_read_as_loosely_as_rfc_9112_lets_it_be_written() {
    let text = "HTTP/1.0 404\nA:b\nC: \t d e \t\nEmpty:\n\nrest";
    let mut buffer = BytesMut::from(text);
    let answer = parse(&mut buffer, &Method::GET, 3).unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.http10), (404, true));
    assert_eq!((&answer.headers["a"], &answer.headers["c"]), (&"b".parse().unwrap(), &"d e".parse().unwrap()));
    assert_eq!(answer.headers["empty"], "");
    assert_eq!(&buffer[..], b"rest");
    assert_eq!(head("HTTP/1.1 200 Tr\u{e8}s bien\r\n\r\n").unwrap().unwrap().status.as_u16(), 200);
}

#[test]
fn an_incomplete_head_is_left_in_the_buffer() {
    let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\nA: b\r\n");
    assert!(parse(&mut buffer, &Method::GET, 200).unwrap().is_none());
    buffer.extend_from_slice(b"\r\nrest");
    assert!(parse(&mut buffer, &Method::GET, 200).unwrap().is_some());
    assert_eq!(&buffer[..], b"rest");
}

/// Feeds chunked coding in pieces of the given size and returns data, trailer count and what is left.
fn decode(text: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Malformed> {
    let mut state = Chunked::Size;
    let mut buffer = BytesMut::new();
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        match state.next(&mut buffer)? {
            Some(Piece::Data(piece)) => data.extend_from_slice(&piece),
            Some(Piece::End(trailers)) => {
                let left = [&buffer[..], &text[at..]].concat();
                return Ok((data, trailers.map_or(0, |t| t.len()), left));
            }
            None if at == text.len() => return Err(Malformed("cut short")),
            None => {
                let end = (at + step).min(text.len());
                buffer.extend_from_slice(&text[at..end]);
                at = end;
            }
        }
    }
}

#[test]
fn chunks_are_read_whatever_the_pieces_they_come_in() {
    let text = b"5\r\nhello\r\n6;name=\"v\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nnext";
    for step in 1..text.len() {
        let (data, trailers, left) = decode(text, step).unwrap();
        assert_eq!((data.as_slice(), trailers, left.as_slice()), (&b"hello world"[..], 1, &b"next"[..]));
    }
}

#[test]
fn malformed_chunks_are_refused() {
    for text in [
        "5\nhello\r\n0\r\n\r\n",
        "\r\nhello",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "+5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "-1\r\n",
        " 5\r\nhello\r\n",
        "11111111111111111\r\n",
        "5;\x00\r\nhello\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\nX-T: 1\n\r\n",
        "3\r;x=y\r\nabc\r\n0\r\n\r\n",
        "0\r\nX-T: 1\r\n\n",
    ] {
        assert!(decode(text.as_bytes(), 3).is_err(), "{text:?}");
    }
    assert!(decode(format!("5{}", ";".repeat(5000)).as_bytes(), 100).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let _ = parse(&mut buffer, &Method::GET, 200).is_ok();
        let _ = decode(&bytes, 7).is_ok();
    }

    #[test]
    fn what_is_encoded_in_chunks_is_read_back(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
        step in 1..60usize,
    ) {
        let mut text = Vec::new();
        for piece in &pieces {
            text.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            text.extend_from_slice(piece);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n\r\n");
        let (data, _, left) = decode(&text, step).unwrap();
        prop_assert_eq!(data, pieces.concat());
        prop_assert!(left.is_empty());
    }
}
