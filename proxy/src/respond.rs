//! Answers made here: a short page for each error, HTML or JSON as the client asks.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::answer::AnswerBody;
use crate::client::Serving;
use crate::error::Error;

/// Answers an error.
pub(crate) fn error(error: &Error, request: &Parts, serving: Serving) -> Response<AnswerBody> {
    let status = error.status();
    let sentence = sentence(error);
    let (kind, page) = if prefers_json(&request.headers) {
        let page = serde_json::json!({ "status": status.as_u16(), "error": sentence }).to_string();
        ("application/json", page)
    } else {
        ("text/html; charset=utf-8", html(status, sentence))
    };
    let mut response = Response::new(AnswerBody::bytes(page).until_end(serving));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if error.closes() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// What a visitor is told; addresses and causes are for the log.
fn sentence(error: &Error) -> &'static str {
    match error {
        Error::BadRequest(what) | Error::NotImplemented(what) => what,
        Error::TargetTooLong => "The address is too long",
        Error::TooManyFields => "The request has too many header fields",
        Error::BodyTooLong => "The body is too long to be sent without a Content-Length",
        Error::RequestBody(_) => "The body of the request could not be read",
        Error::NoRoute => "No service is set up for this address",
        Error::NoVersion => "The service is not running yet",
        Error::Connect { .. } | Error::Broken(_) | Error::Malformed(_) => "The application did not give a valid answer",
        Error::Silent => "The application did not answer in time",
        Error::CutOff => "The version that served this request was switched off; try again",
    }
}

fn html(status: StatusCode, sentence: &str) -> String {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title>\
         <body style=\"font:16px sans-serif;margin:15vh auto;max-width:32em;padding:0 1em\"><h1>{title}</h1><p>{sentence}.\n"
    )
}

fn prefers_json(request: &HeaderMap) -> bool {
    let accept = request.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match (accept.find("json"), accept.find("html")) {
        (Some(json), Some(html)) => json < html,
        (json, _) => json.is_some(),
    }
}
