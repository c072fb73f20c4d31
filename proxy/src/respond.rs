//! Answers made here: a short page for each error, HTML or JSON as the client asks.

use config::options::ServiceOptions;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::answer::AnswerBody;
use crate::client::Serving;
use crate::error::Error;
use crate::routing::preview::Entry;

/// Answers an error; `options` are those of the service, where one was found.
pub(crate) fn error(
    error: &Error,
    request: &Parts,
    request_id: &HeaderValue,
    options: Option<&ServiceOptions>,
    serving: Serving,
) -> Response<AnswerBody> {
    let status = error.status();
    let sentence = sentence(error);
    let (kind, page) = if prefers_json(&request.headers) {
        let page = serde_json::json!({ "status": status.as_u16(), "error": sentence }).to_string();
        ("application/json", page)
    } else {
        let page = match options.and_then(|options| options.error_page(status.as_u16())) {
            Some(page) => fill(page, status, request_id),
            None => html(status, sentence),
        };
        ("text/html; charset=utf-8", page)
    };
    let mut response = Response::new(AnswerBody::bytes(page).until_end(serving));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if error.closes() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    match error {
        // In whole seconds (RFC 9110 section 10.2.3): rounded up, or the next would be too early.
        Error::TooManyRequests { wait } => {
            headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
        }
        Error::OnlyRead => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Error::Unauthorized { challenge } => {
            headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        _ if status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    response
}

/// Answers a request in which we panicked: what is known of it is lost.
pub(crate) fn panicked() -> Response<AnswerBody> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let mut response = Response::new(AnswerBody::bytes(html(status, "The proxy failed; try again")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Sends a visitor to the same address without the token of a preview, with the cookie that shows it.
pub(crate) fn entered(entry: Entry, request_id: &HeaderValue) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::bytes(""));
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, entry.location);
    headers.insert(header::SET_COOKIE, entry.cookie);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-request-id", request_id.clone());
    response
}

/// Sends a client to another address.
pub(crate) fn redirected(status: u16, location: HeaderValue, request_id: &HeaderValue) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::bytes(""));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert("x-request-id", request_id.clone());
    response
}

/// Answers a health check from outside for a service that is closed on purpose: whoever balances load in front of us must
/// not take the whole host out for it.
pub(crate) fn healthy(request_id: &HeaderValue) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::bytes("closed on purpose\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-request-id", request_id.clone());
    response
}

/// What a visitor is told; addresses and causes are for the log.
fn sentence(error: &Error) -> &str {
    match error {
        Error::Paused => "The service is paused; try again in a moment",
        Error::Maintenance(message) if message.is_empty() => "The service is under maintenance; try again later",
        Error::Maintenance(message) => message,
        Error::BadRequest(what) | Error::NotImplemented(what) => what,
        Error::Misdirected => "This connection can't be used for this address",
        Error::TargetTooLong => "The address is too long",
        Error::TooManyFields => "The request has too many header fields",
        Error::TooManyRequests { .. } => "Too many requests; try again in a moment",
        Error::BodyOverLimit => "The body is longer than this service takes",
        Error::RequestBody(_) => "The body of the request could not be read",
        Error::Denied => "You may not come here from this network",
        Error::Unauthorized { .. } => "A name and a password are needed",
        Error::PasswordsBusy => "Too many visitors are coming in; try again in a moment",
        Error::NotKept(_) => "The body of the request could not be taken; try again later",
        Error::NoRoute => "No service is set up for this address",
        Error::NoVersion => "The service is not running yet",
        Error::Connect { .. } | Error::Broken(_) | Error::Malformed(_) => "The application did not give a valid answer",
        Error::Silent => "The application did not answer in time",
        Error::NoFile => "There is no such file",
        Error::OnlyRead => "A file can only be read",
        Error::Forbidden => "This may not be read",
        Error::NotCoded | Error::NotRead(_) => "The proxy failed; try again",
        Error::CutOff => "The version that served this request was switched off; try again",
    }
}

/// Fills a service's own page in: an operator finds the request in the log by the id that a visitor reads out.
fn fill(page: &str, status: StatusCode, request_id: &HeaderValue) -> String {
    // The id may be a client's own, and stands in HTML.
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-_.:".contains(*c);
    let id: String = request_id.to_str().unwrap_or_default().chars().filter(is_plain).collect();
    page.replace("{{status}}", status.as_str())
        .replace("{{reason}}", status.canonical_reason().unwrap_or_default())
        .replace("{{request_id}}", &id)
}

fn html(status: StatusCode, sentence: &str) -> String {
    let sentence = sentence.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let stop = if sentence.ends_with(['.', '!', '?']) { "" } else { "." };
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title>\
         <body style=\"font:16px sans-serif;margin:15vh auto;max-width:32em;padding:0 1em\"><h1>{title}</h1><p>{sentence}{stop}\n"
    )
}

fn prefers_json(request: &HeaderMap) -> bool {
    let accept = request.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match (accept.find("json"), accept.find("html")) {
        (Some(json), Some(html)) => json < html,
        (json, _) => json.is_some(),
    }
}
