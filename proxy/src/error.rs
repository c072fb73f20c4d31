//! Why a request could not be answered by the application: whose fault, which status, and whether it may be tried again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client sent something we don't serve.
    Client,
    /// The application didn't answer, or answered nonsense.
    Upstream,
    /// Nothing is set up for the request, or we ended it.
    Us,
}

/// Why a request could not be answered by the application.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request is malformed or ambiguous.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The request target is longer than the limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// The head has more fields than the limit.
    #[error("the head has too many fields")]
    TooManyFields,
    /// The body was to be taken whole first, and the disk refuses it.
    #[error("the request's body can't be kept on disk")]
    NotKept(#[source] io::Error),
    /// The body is longer than the service takes.
    #[error("the body is longer than the service takes")]
    BodyOverLimit,
    /// The client's address has used up its rate.
    #[error("the client sends more requests than it may")]
    TooManyRequests {
        /// How long to wait for the next.
        wait: Duration,
    },
    /// The client's network may not come.
    #[error("the client's network may not come here")]
    Denied,
    /// A name and a password are asked for, and none that is right came.
    #[error("no name with its password came")]
    Unauthorized {
        /// What the client is told to bring.
        challenge: HeaderValue,
    },
    /// So many passwords wait to be looked at that this one can't.
    #[error("too many passwords wait to be looked at")]
    PasswordsBusy,
    /// The connection's handshake was for another host, or without a certificate that this service asks for.
    #[error("the connection was made for another host, or without the certificate that this one asks for")]
    Misdirected,
    /// A method or coding that a reverse proxy doesn't serve.
    #[error("not implemented: {0}")]
    NotImplemented(&'static str),
    /// The client broke its request off, or sent a body that can't be read.
    #[error("the request's body could not be read")]
    RequestBody(#[source] hyper::Error),
    /// No route takes the request.
    #[error("no service takes this host and path")]
    NoRoute,
    /// The service has no live slot, or its saved state was lost.
    #[error("the service has no live version")]
    NoVersion,
    /// The service is paused, and the request has waited long enough or finds no place to wait.
    #[error("the service is paused")]
    Paused,
    /// The service is under maintenance: what its visitors are told.
    #[error("the service is under maintenance")]
    Maintenance(Arc<str>),
    /// No endpoint of the live slot could be connected to.
    #[error("connect to {address}")]
    Connect {
        /// The endpoint, as it was staged.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection to the application broke.
    #[error("the application broke the connection off")]
    Broken(#[source] io::Error),
    /// The application sent something that is not one clear HTTP/1 answer.
    #[error("the application's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The application was silent for too long.
    #[error("the application did not answer in time")]
    Silent,
    /// An answer was to be compressed, and that failed halfway.
    #[error("the answer could not be compressed")]
    NotCoded,
    /// No file is there, and the application is not asked.
    #[error("there is no such file")]
    NoFile,
    /// A file is asked for by another method than those that read it.
    #[error("a file is only read")]
    OnlyRead,
    /// A file may not be read by us.
    #[error("the file may not be read")]
    Forbidden,
    /// The disk fails, or a file changes while it is sent.
    #[error("the file can't be read")]
    NotRead(#[source] io::Error),
    /// The drain deadline ended the request.
    #[error("the version that served this request was switched off")]
    CutOff,
}

impl Error {
    /// Returns who caused it.
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::BadRequest(_)
            | Self::TargetTooLong
            | Self::TooManyFields
            | Self::BodyOverLimit
            | Self::TooManyRequests { .. }
            | Self::Denied
            | Self::Unauthorized { .. }
            | Self::OnlyRead
            | Self::Forbidden
            | Self::Misdirected
            | Self::NotImplemented(_)
            | Self::RequestBody(_) => Side::Client,
            Self::Connect { .. } | Self::Broken(_) | Self::Malformed(_) | Self::Silent => Side::Upstream,
            Self::NotKept(_)
            | Self::PasswordsBusy
            | Self::NoRoute
            | Self::NoVersion
            | Self::Paused
            | Self::Maintenance(_)
            | Self::NotCoded
            | Self::NoFile
            | Self::NotRead(_)
            | Self::CutOff => Side::Us,
        }
    }

    /// Returns the status that the client gets.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::RequestBody(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyOverLimit => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Denied | Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute | Self::NoFile => StatusCode::NOT_FOUND,
            Self::OnlyRead => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotCoded | Self::NotRead(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoVersion
            | Self::NotKept(_)
            | Self::PasswordsBusy
            | Self::Paused
            | Self::Maintenance(_)
            | Self::CutOff => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect { .. } | Self::Broken(_) | Self::Malformed(_) => StatusCode::BAD_GATEWAY,
            Self::Silent => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Tells whether the client's connection can't be used for another request.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Self::BadRequest(_)
            | Self::TargetTooLong
            | Self::TooManyFields
            | Self::BodyOverLimit
            | Self::NotImplemented(_)
            | Self::RequestBody(_)
            | Self::NotKept(_)
            | Self::NotCoded
            | Self::NotRead(_)
            | Self::CutOff => true,
            Self::NoRoute
            | Self::NoFile
            | Self::OnlyRead
            | Self::Forbidden
            | Self::Misdirected
            | Self::NoVersion
            | Self::Paused
            | Self::Maintenance(_)
            | Self::TooManyRequests { .. }
            | Self::Denied
            | Self::Unauthorized { .. }
            | Self::PasswordsBusy
            | Self::Connect { .. }
            | Self::Broken(_)
            | Self::Malformed(_)
            | Self::Silent => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_client_is_4xx_or_501_and_any_other_is_5xx_or_404() {
        let io = || io::Error::from(io::ErrorKind::ConnectionReset);
        let errors = [
            (Error::BadRequest("x"), 400),
            (Error::TargetTooLong, 414),
            (Error::BodyOverLimit, 413),
            (Error::TooManyFields, 431),
            (Error::TooManyRequests { wait: Duration::ZERO }, 429),
            (Error::Denied, 403),
            (Error::Unauthorized { challenge: HeaderValue::from_static("Basic") }, 401),
            (Error::PasswordsBusy, 503),
            (Error::Misdirected, 421),
            (Error::NotImplemented("x"), 501),
            (Error::NoRoute, 404),
            (Error::NoVersion, 503),
            (Error::Paused, 503),
            (Error::Maintenance("x".into()), 503),
            (Error::NotKept(io()), 503),
            (Error::Connect { address: "a:1".to_owned(), source: io() }, 502),
            (Error::Broken(io()), 502),
            (Error::Malformed("x"), 502),
            (Error::Silent, 504),
            (Error::CutOff, 503),
            (Error::NotCoded, 500),
            (Error::NoFile, 404),
            (Error::OnlyRead, 405),
            (Error::Forbidden, 403),
            (Error::NotRead(io()), 500),
        ];
        for (error, status) in errors {
            assert_eq!(error.status().as_u16(), status, "{error}");
            let client = matches!(status, 400 | 401 | 403 | 405 | 413 | 414 | 421 | 429 | 431 | 501);
            assert_eq!(error.side() == Side::Client, client, "{error}");
        }
    }
}
