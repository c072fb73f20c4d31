//! A probe over HTTP/2: a GET for a service that speaks it, or a call of the gRPC health check where the path is that one's.

use std::io;

use bytes::Bytes;
use config::health::HealthCheck;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;

use super::Outcome;
use super::judge::judge;
use crate::upstream::http2::Local;
use crate::upstream::socket::Socket;

/// No answer to a health check is longer than this.
const ANSWER: usize = 64 * 1024;
/// A message without fields, in gRPC's framing: not compressed, no bytes. It asks for the health of the server as a whole.
const WHOLE_SERVER: [u8; 5] = [0; 5];
/// `status: SERVING` of grpc.health.v1.HealthCheckResponse, in protocol buffers' encoding.
const SERVING: [u8; 2] = [0x08, 0x01];

/// Tells whether a path is a method of the gRPC health check (grpc.health.v1).
pub(super) fn is_grpc(path: &str) -> bool {
    path == "/grpc.health.v1.Health/Check"
}

/// Probes over a connection that speaks HTTP/2.
///
/// # Errors
/// Where no answer came.
pub(super) async fn ask(socket: Socket, host: &str, check: &HealthCheck) -> io::Result<Outcome> {
    let (mut sender, connection) =
        http2::Builder::new(Local).handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    // It ends with the sender.
    tokio::task::spawn_local(async move { drop(connection.await) });
    let request = request(host, check).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if is_grpc(&check.path) {
        judge_grpc(answer).await
    } else {
        Ok(judge(answer.status().as_u16(), answer.headers(), host, check))
    }
}

fn request(host: &str, check: &HealthCheck) -> Result<Request<Full<Bytes>>, http::Error> {
    let request =
        Request::builder().uri(format!("http://{host}{}", check.path)).header(header::USER_AGENT, "bgproxy-health");
    let request = check.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    if is_grpc(&check.path) {
        let request = request.method(Method::POST).header(header::CONTENT_TYPE, "application/grpc");
        request.header(header::TE, "trailers").body(Bytes::copy_from_slice(&WHOLE_SERVER).into())
    } else {
        request.body(Full::default())
    }
}

async fn judge_grpc(answer: Response<Incoming>) -> io::Result<Outcome> {
    let (head, body) = answer.into_parts();
    let read = Limited::new(body, ANSWER).collect().await.map_err(io::Error::other)?;
    let trailers = read.trailers().cloned().unwrap_or_default();
    let message = read.to_bytes();
    let field = |name| trailers.get(name).or_else(|| head.headers.get(name)).map(text);
    Ok(match (head.status.as_u16(), field("grpc-status").as_deref()) {
        (200, Some("0")) if message.get(WHOLE_SERVER.len()..) == Some(&SERVING[..]) => {
            Outcome::Passed("SERVING".to_owned())
        }
        (200, Some("0")) => Outcome::Failed("it is not SERVING".to_owned()),
        (200, Some(code)) => {
            let words = field("grpc-message").unwrap_or_default();
            Outcome::Failed(format!("gRPC status {code} {words}").trim_end().to_owned())
        }
        (200, None) => Outcome::Failed("it answered without a gRPC status".to_owned()),
        (status, _) => Outcome::Failed(status.to_string()),
    })
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
