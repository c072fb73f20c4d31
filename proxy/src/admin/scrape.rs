//! The metrics on a port of their own, for whoever collects them and is to reach nothing else.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::api::Context;

/// After an accept that failed for want of something, the pause before the next.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Whoever connects has so long to ask.
const HEADER: Duration = Duration::from_secs(10);

/// Accepts for as long as the control thread lives.
pub(crate) async fn accept(listener: &TcpListener, context: &Rc<Context>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let context = Rc::clone(context);
                let service = service_fn(move |request| {
                    let context = Rc::clone(&context);
                    async move { Ok::<_, Infallible>(answer(&context, &request)) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::task::spawn_local(async move { drop(served.await) });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept on the port of the metrics; trying again");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn answer(context: &Context, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, context.metrics()),
        _ => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
