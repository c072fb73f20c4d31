//! What must hold of any bytes: called by the fuzz targets of `fuzz/`, and by property tests with bytes that nearly are
//! messages. Not part of the interface: it exists in tests and with the feature `fuzzing`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a property fails by panicking, and its name is the claim")]

#[cfg(test)]
mod grammar;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::headers::{self, Fields, Forwarded, RequestHead};
use crate::routing::table::escapes;
use crate::upstream::codec::{self, Chunked, Framing, Malformed, Piece};
use crate::upstream::exchange::RequestFraming;

const FIELDS: usize = 200;

/// An answer as its reader understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Bytes,
}

/// Reads the first answer as an exchange does, and the end of the bytes as the end of the connection. `None`: it is not one
/// whole, clear answer.
fn ours(bytes: &[u8], pieces: &mut dyn FnMut(usize) -> usize) -> Option<Answer> {
    let (mut rest, mut read) = (bytes, BytesMut::new());
    let mut more = |read: &mut BytesMut| {
        let (piece, tail) = rest.split_at(pieces(rest.len()).clamp(usize::from(!rest.is_empty()), rest.len()));
        rest = tail;
        read.extend_from_slice(piece);
        !piece.is_empty()
    };
    let head = loop {
        match codec::parse(&mut read, &Method::GET, FIELDS).ok()? {
            Some(head) if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS => {}
            Some(head) => break head,
            None if more(&mut read) => {}
            None => return None,
        }
    };
    let mut body = BytesMut::new();
    let mut chunked = Chunked::Size;
    let mut framing = head.framing;
    loop {
        match framing {
            Framing::Empty | Framing::Length(0) => break,
            Framing::Length(left) => {
                let taken = read.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                body.extend_from_slice(&read.split_to(taken));
                framing = Framing::Length(left - taken as u64);
                if left != taken as u64 && !more(&mut read) {
                    return None;
                }
            }
            Framing::UntilClose => {
                body.extend_from_slice(&read.split());
                if !more(&mut read) {
                    break;
                }
            }
            Framing::Chunked => match chunked.next(&mut read) {
                Ok(Some(Piece::Data(data))) => body.extend_from_slice(&data),
                Ok(Some(Piece::End(_))) => break,
                Ok(None) if more(&mut read) => {}
                Ok(None) | Err(Malformed(_)) => return None,
            },
        }
    }
    Some(Answer { status: head.status.as_u16(), body: body.freeze() })
}

/// Reads the same with hyper's client.
fn hypers(bytes: &[u8]) -> Option<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(2 * bytes.len() + 4096);
        let mut builder = http1::Builder::new();
        let (mut sender, connection) =
            builder.max_headers(FIELDS).handshake::<_, Empty<Bytes>>(TokioIo::new(near)).await.ok()?;
        let driver = tokio::task::spawn_local(connection);
        let request = Request::builder().uri("/").header("host", "a").body(Empty::new()).unwrap();
        let application = async {
            // An answer that comes before its request is another fault.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            far.write_all(bytes).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(sender.send_request(request), application);
        let (head, body) = answer.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        drop(driver);
        Some(Answer { status: head.status.as_u16(), body })
    })
}

/// Whatever we take for a whole answer hyper takes for the same one: we are as strict or stricter, and never read another
/// body. However the bytes come in pieces, they mean the same.
pub fn answer(bytes: &[u8], seed: u64) {
    let whole = ours(bytes, &mut |left| left);
    let mut state = seed | 1;
    let in_pieces = ours(bytes, &mut |left| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % (left + 1) % 40
    });
    assert_eq!(whole, in_pieces, "pieces change what is read");
    // A switch of protocols ends HTTP, for each reader in its own way.
    if let Some(whole) = whole.filter(|answer| answer.status != 101) {
        assert_eq!(Some(whole), hypers(bytes), "hyper reads something else");
    }
}

/// Whatever request we forward is one clear request: read back, it has the method and target, one Host, one framing, the
/// truth about its client, and nothing that is between the client and us.
pub fn request(bytes: &[u8]) {
    let Some(request) = parse_request(bytes) else { return };
    let (parts, ()) = request.into_parts();
    let fields = Fields::of(&parts);
    let Ok(authority) = headers::check(&parts, &fields, 16 * 1024) else { return };
    let websocket = fields.asks_for_websocket;
    let head = RequestHead {
        request: &parts,
        given: &[],
        host: authority.text,
        fields: &fields,
        authority: &authority,
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()),
        length: None,
        framing: fields.framing(parts.version, false),
        websocket,
        expects_continue: fields.expects_continue,
        forwarded: Forwarded {
            peer: "192.0.2.1",
            client: "192.0.2.1",
            trusted: false,
            secure: false,
            request_id: &HeaderValue::from_static("id"),
        },
    };
    let mut encoded = Vec::new();
    head.encode(&mut encoded);
    let framing = head.framing;
    let text = encoded.escape_ascii().to_string();
    let mut storage = vec![httparse::EMPTY_HEADER; FIELDS + 32];
    let mut again = httparse::Request::new(&mut storage);
    let length = again.parse(&encoded).unwrap_or_else(|error| panic!("{error}: {text}")).unwrap();
    assert_eq!(length, encoded.len(), "it ends before its end: {text}");
    assert_eq!((again.method, again.path), (Some(parts.method.as_str()), Some(head.target)), "{text}");
    let all = |name: &str| -> Vec<&[u8]> {
        again.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect()
    };
    assert_eq!(all("host"), [authority.text.as_bytes()], "{text}");
    assert_eq!(all("x-forwarded-for"), [b"192.0.2.1"], "{text}");
    assert_eq!(all("x-real-ip"), [b"192.0.2.1"], "{text}");
    assert_eq!((all("x-request-id").len(), all("x-forwarded-proto").len()), (1, 1), "{text}");
    let chunked = all("transfer-encoding");
    assert_eq!(chunked, if framing == RequestFraming::Chunked { vec![&b"chunked"[..]] } else { vec![] }, "{text}");
    assert!(all("content-length").len() + chunked.len() <= 1, "two framings: {text}");
    for name in ["keep-alive", "proxy-connection", "http2-settings", "forwarded", "proxy-authorization"] {
        assert!(all(name).is_empty(), "{name}: {text}");
    }
    assert_eq!(all("upgrade"), if websocket { vec![&b"websocket"[..]] } else { vec![] }, "{text}");
}

/// Reads a head as our server does: by the same parser, into the same types.
fn parse_request(bytes: &[u8]) -> Option<Request<()>> {
    let mut storage = vec![httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut storage);
    parsed.parse(bytes).ok()?.is_complete().then_some(())?;
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?);
    request = request.version(if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    let mut fields = HeaderMap::new();
    for field in parsed.headers.iter() {
        let name = http::HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    // What hyper's server refuses by itself, or mends (RFC 9112 section 6.3).
    let lengths: Vec<_> = fields.get_all("content-length").iter().cloned().collect();
    if lengths.len() > 1 || lengths.iter().any(|length| !length.as_bytes().iter().all(u8::is_ascii_digit)) {
        return None;
    }
    if fields.contains_key("transfer-encoding") {
        fields.remove("content-length");
    }
    *request.headers_mut()? = fields;
    request.body(()).ok()
}

/// A path that is let through stays below its prefix, however its dots are written and whoever resolves them.
pub fn path(path: &str, prefix: &str) {
    let Ok(prefix) = prefix.parse::<config::name::PathPrefix>() else { return };
    if !path.starts_with('/') || !prefix.takes(path) || escapes(path, &prefix) {
        return;
    }
    let decoded = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    let home: Vec<String> = prefix.trimmed().split('/').skip(1).map(str::to_ascii_lowercase).collect();
    let mut resolved: Vec<&str> = Vec::new();
    for segment in decoded.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." => drop(resolved.pop()),
            segment => resolved.push(segment),
        }
    }
    assert!(resolved.len() >= home.len(), "{path} leaves {prefix}");
    assert!(home.iter().zip(&resolved).all(|(home, here)| home == here), "{path} leaves {prefix}");
}
