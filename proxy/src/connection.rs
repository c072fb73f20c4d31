//! One client connection from its first byte to its last: accept -> **connection** -> handler.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{Client, ClientStream, HTTP2_PREFACE, Order};
use crate::clock;
use crate::service::Service;
use crate::socket::{Port, Socket};
use crate::tls::Shaken;
use crate::worker::Worker;
use crate::{http2, proxy_header, tls, upgrade};

/// So long, and so much, is listened to a client that still sends a request that was answered.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// Serves a connection until it ends. Nothing that a client sends is an error of ours, so there is nothing to return.
///
/// Between requests it is parked after a while: of all that HTTP needs only the bare socket stays.
///
/// # Cancel safety
/// Dropping it closes both sockets and gives the claim back.
pub(crate) async fn serve(mut stream: TcpStream, port: Port, client: Rc<Client>, worker: Rc<Worker>) {
    if worker.awaits_proxy_header(client.peer()) && !Box::pin(learn_client(&mut stream, &client)).await {
        return;
    }
    let Some(_place) = worker.enter(client.peer()) else { return };
    let mut stream = match port {
        Port::Plain => ClientStream::new(Socket::Plain(stream), Rc::clone(&client)),
        Port::Tls => {
            let Some((socket, spoken)) = Box::pin(shake_hands(stream, &client, &worker)).await else { return };
            let stream = ClientStream::agreed(socket, Rc::clone(&client));
            if spoken == Spoken::Http2 {
                return Box::pin(http2::serve(stream, client, worker)).await;
            }
            stream
        }
    };
    // In a box of its own, so that nothing of it stays while the connection is parked.
    while let Some(rest) = Box::pin(serve_http(stream, &client, &worker)).await {
        stream = match rest {
            Rest::Begun(begun) => begun,
            Rest::Parked(mut parked) => {
                if !wait_parked(&parked, &client).await {
                    return parked.say_goodbye().await;
                }
                ClientStream::agreed(parked, Rc::clone(&client))
            }
        };
    }
}

/// Reads whose connection it is from what the load balancer says; false where the connection is to end. The time for it is
/// that of a request's head.
async fn learn_client(stream: &mut TcpStream, client: &Client) -> bool {
    let mut header = pin!(proxy_header::read(stream));
    let outcome = poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Drop | Order::Finish) => return Poll::Ready(None),
                Some(Order::Look | Order::Park | Order::Retire) => {}
                None => return header.as_mut().poll(cx).map(Some),
            }
        }
    })
    .await;
    match outcome {
        Some(Ok(address)) => {
            address.into_iter().for_each(|address| client.is_from(address));
            true
        }
        Some(Err(error)) => {
            tracing::debug!(peer = %client.peer(), %error, "a connection without a good PROXY header is closed");
            false
        }
        None => false,
    }
}

/// What was agreed on in a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
}

/// Does the handshake of TLS; `None` where the connection is to end. The time for it is that of a request's head.
async fn shake_hands(stream: TcpStream, client: &Client, worker: &Worker) -> Option<(Socket, Spoken)> {
    let mut shaken = pin!(worker.shared.tls.accept(stream));
    let outcome = poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Drop | Order::Finish) => return Poll::Ready(None),
                Some(Order::Look | Order::Park | Order::Retire) => {}
                None => return shaken.as_mut().poll(cx).map(Some),
            }
        }
    })
    .await?;
    match outcome {
        Ok(Shaken { stream, guard }) => {
            client.is_within_tls();
            guard.into_iter().for_each(|guard| client.is_guarded(guard));
            let spoken = if tls::is_http2(&stream) { Spoken::Http2 } else { Spoken::Http1 };
            Some((Socket::Tls(Box::new(stream)), spoken))
        }
        Err(error) => {
            tracing::debug!(peer = %client.peer(), %error, "a TLS handshake failed");
            None
        }
    }
}

/// Waits until the client of a parked connection has something to say; false where the connection is to end.
async fn wait_parked(stream: &Socket, client: &Client) -> bool {
    client.park();
    let stays = poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Drop | Order::Finish) => return Poll::Ready(false),
                Some(Order::Look | Order::Park | Order::Retire) => {}
                None => return stream.poll_read_ready(cx).map(|_| true),
            }
        }
    })
    .await;
    client.unpark();
    stays
}

/// What is left of a connection that goes on.
enum Rest {
    /// Its socket, while it is idle.
    Parked(Socket),
    /// Its stream, which begins with what was read of a head: one of more fields than usual, or half of one that came behind
    /// a request.
    Begun(ClientStream),
}

/// Serves HTTP until the connection ends, or goes on in another way.
async fn serve_http(stream: ClientStream, client: &Rc<Client>, worker: &Rc<Worker>) -> Option<Rest> {
    let service = Service { client: Rc::clone(client), worker: Rc::clone(worker) };
    let mut builder = http1::Builder::new();
    // Up to a hundred fields hyper parses on the stack; for more it asks the allocator at each request for the most.
    if stream.is_roomy() || worker.limits.header_fields < 100 {
        builder.max_headers(worker.limits.header_fields);
    }
    let mut http = builder
        .max_buf_size(worker.limits.header_bytes.max(8192))
        .max_header_size(worker.limits.header_bytes)
        .half_close(true)
        // Told to end while another parser had the connection.
        .keep_alive(!client.is_finishing())
        .serve_connection(TokioIo::new(stream), service);
    let mut is_parked = false;
    let mut is_complete = false;
    let ended = poll_fn(|cx| {
        loop {
            match client.poll_order(cx) {
                Some(Order::Drop) => return Poll::Ready(Ended::Dropped),
                Some(Order::Finish) => Pin::new(&mut http).graceful_shutdown(),
                // Of an idle connection hyper lets go at once; of any other it would announce the end.
                Some(Order::Park) if client.is_idle() => {
                    is_parked = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                // Polling the answer is looking at its run; an answer that ends the connection says so itself.
                Some(Order::Look | Order::Park | Order::Retire) => {}
                None => {
                    return match clock::turn(|| http.poll_without_shutdown(cx)) {
                        // It may be over for hyper while the client has not taken the end of an answer, which only hyper's
                        // own shutdown waits for; a poll more writes more of it, and begins nothing.
                        Poll::Ready(Ok(())) if client.is_write_blocked() => {
                            is_complete = true;
                            Poll::Pending
                        }
                        Poll::Ready(Ok(())) => Poll::Ready(Ended::Complete),
                        Poll::Ready(Err(_)) if is_complete => Poll::Ready(Ended::Dropped),
                        Poll::Ready(Err(_)) => Poll::Ready(Ended::Broken),
                        Poll::Pending if client.awaits_room() => Poll::Ready(Ended::Crowded),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    })
    .await;
    if ended == Ended::Dropped && !client.is_idle() {
        return None;
    }
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner();
    if ended == Ended::Crowded {
        return Some(Rest::Begun(stream.for_any_head(&parts.read_buf)));
    }
    if ended == Ended::Broken {
        // Only a connection may begin with it, not a later request (RFC 9113 section 3.3).
        if parts.read_buf.starts_with(HTTP2_PREFACE) && !client.has_served() {
            stream.put_back(parts.read_buf);
            // Boxed, here and below: a connection keeps no room for what it may become.
            Box::pin(http2::serve(stream, Rc::clone(client), Rc::clone(worker))).await;
        }
        return None;
    }
    if ended == Ended::Complete && is_parked && client.is_idle() {
        let has_begun = stream.takes_back(&parts.read_buf);
        return Some(if has_begun { Rest::Begun(stream) } else { Rest::Parked(stream.into_inner()) });
    }
    let mut stream = stream.into_inner();
    if ended == Ended::Dropped {
        stream.say_goodbye().await;
        return None;
    }
    if let Some(tunnel) = client.take_tunnel() {
        Box::pin(upgrade::run(stream, parts.read_buf, tunnel, client)).await;
    } else if client.has_unread_body() {
        Box::pin(linger(&mut stream)).await;
    } else {
        stream.say_goodbye().await;
    }
    None
}

/// Takes what a client still sends of a request that was answered before its end: closing a socket with something unread
/// resets the connection, and the reset may take the answer away (RFC 9112 section 9.6).
async fn linger(stream: &mut Socket) {
    // The client may have gone; then there is nobody to say goodbye to.
    _ = stream.shutdown().await;
    let mut rest = tokio::io::AsyncReadExt::take(stream, LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await;
}

/// How the HTTP part of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All answers were sent.
    Complete,
    /// It broke, or what came is not HTTP/1.
    Broken,
    /// It was ordered to end.
    Dropped,
    /// What comes next needs a parser with more room.
    Crowded,
}
