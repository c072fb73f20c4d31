//! The head of a request as an application gets it that speaks HTTP/2 (RFC 9113 section 8).

use std::str::FromStr as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use super::RequestHead;

/// The head of a request for HTTP/2.
#[derive(Debug, Clone)]
pub(crate) struct Http2Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl RequestHead<'_> {
    /// Returns the head for HTTP/2: what HTTP/1 would be told, read back, so that there is one place that decides it.
    pub(crate) fn http2(&self) -> Box<Http2Head> {
        let mut bytes = Vec::with_capacity(1024);
        self.encode(&mut bytes);
        let mut storage = vec![httparse::EMPTY_HEADER; self.request.headers.len() + self.given.len() + 16];
        let mut parsed = httparse::Request::new(&mut storage);
        let is_read = parsed.parse(&bytes).is_ok_and(|status| status.is_complete());
        assert!(is_read, "what we wrote, of fields that were read, can be read back");
        let mut headers = HeaderMap::with_capacity(parsed.headers.len());
        for field in parsed.headers.iter() {
            let (name, value) = (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value));
            let (Ok(name), Ok(value)) = (name, value) else { continue };
            // What HTTP/2 says in frames, or in the target.
            if !matches!(name, header::HOST | header::CONNECTION | header::TRANSFER_ENCODING | header::EXPECT) {
                headers.append(name, value);
            }
        }
        Box::new(Http2Head { method: self.request.method.clone(), uri: self.uri(), headers })
    }

    fn uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        // Of a client of HTTP/1.0 that names nobody.
        let anybody = || Authority::from_static("localhost");
        parts.authority = Some(Authority::from_str(self.host).unwrap_or_else(|_| anybody()));
        parts.path_and_query =
            PathAndQuery::from_str(self.target).ok().or_else(|| Some(PathAndQuery::from_static("/")));
        Uri::from_parts(parts).unwrap_or_default()
    }
}

impl Http2Head {
    /// Returns the request with a body.
    pub(crate) fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
