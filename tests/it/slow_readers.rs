//! Clients that read slowly, or stop for a while: the end of what they were answered is kept for them.

use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tests::{Proxy, proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// An application that answers `/LENGTH` with so many bytes before it has read a body, and reads no body.
async fn early() -> (Proxy, JoinHandle<()>) {
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = application.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = application.accept().await {
            tokio::spawn(async move {
                let is_whole = |head: &[u8]| head.windows(4).any(|end| end == b"\r\n\r\n");
                loop {
                    let mut head = Vec::new();
                    while !is_whole(&head) && socket.read_buf(&mut head).await.is_ok_and(|count| count > 0) {}
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let length = head.split(['/', ' ']).nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    let sent = socket.write_all(&[answer.as_bytes(), &vec![b'x'; length]].concat()).await;
                    // A request without a body may be followed by another on this connection.
                    if sent.is_err() || !head.starts_with("GET ") {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            });
        }
    });
    let proxy = proxy();
    proxy.serve("shop", address).await;
    (proxy, serving)
}

/// Connects with so little room, and in packets so small, that the kernel keeps some dozen KiB for us and no more.
async fn narrow(proxy: &Proxy) -> TcpStream {
    let address = proxy.address();
    let connect = move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_tcp_mss(536).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    };
    TcpStream::from_std(tokio::task::spawn_blocking(connect).await.unwrap()).unwrap()
}

/// Reads until there are so many bytes of a body, or the connection ends; returns how many there were.
async fn body(visitor: &mut TcpStream, length: usize) -> Option<usize> {
    let mut answer = Vec::new();
    let begins = |answer: &[u8]| answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
    let read = async {
        while begins(&answer).is_none_or(|at| answer.len() - at < length)
            && visitor.read_buf(&mut answer).await.is_ok_and(|count| count > 0)
        {}
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.unwrap();
    begins(&answer).map(|at| answer.len() - at)
}

/// Lengths of answers, of some of which the last part is in the proxy when the kernel takes no more.
fn lengths() -> impl Iterator<Item = usize> {
    (8..24).map(|n| n * 8 * 1024)
}

/// The end of an answer to a client that neither ends its upload nor reads fast: what the kernel does not take yet is not lost with
/// the upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_is_sent_to_its_end_to_a_client_that_reads_slowly() {
    const LENGTH: usize = 400_000;
    let (proxy, serving) = early().await;
    for fields in ["", "Connection: close\r\n"] {
        // So little room that the kernel takes the answer in small pieces.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut visitor = socket.connect(proxy.address()).await.unwrap();
        let head =
            format!("POST /{LENGTH} HTTP/1.1\r\nHost: shop.test\r\n{fields}Content-Length: 1000000\r\n\r\nbegun");
        visitor.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            while answer.len() < LENGTH && visitor.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
            visitor.read_to_end(&mut answer).await.unwrap_or_default()
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| answer.len() - at - 4);
        assert_eq!(body, Some(LENGTH), "{fields}");
    }
    serving.abort();
}

/// For HTTP the connection is over when the end of its last answer stands in a buffer; for the client it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_last_answer_waits_for_a_client_that_stops_reading() {
    let (proxy, serving) = early().await;
    let visit = async |length: usize, ends_upload: bool| {
        let mut visitor = narrow(&proxy).await;
        let head = format!(
            "POST /{length} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 10\r\n\r\nbegun"
        );
        visitor.write_all(head.as_bytes()).await.unwrap();
        // It takes nothing for longer than the proxy takes to look at it again.
        tokio::time::sleep(Duration::from_millis(800)).await;
        if ends_upload {
            visitor.write_all(b"ended").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        (length, ends_upload, body(&mut visitor, length).await)
    };
    let visits = lengths().flat_map(|length| [(length, false), (length, true)]);
    for (length, ends_upload, body) in
        futures_util::future::join_all(visits.map(|(length, ends)| visit(length, ends))).await
    {
        assert_eq!(body, Some(length), "the upload ends: {ends_upload}");
    }
    serving.abort();
}

/// The time of an idle connection begins when the last answer was taken, not when it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_has_the_time_of_a_body_and_then_that_of_an_idle_connection() {
    let (proxy, serving) = early().await;
    let limits = json!({ "limits": { "idle_timeout": "1s" } });
    assert_eq!(proxy.call("PUT", "/v1/proxy", limits).await.status, 200);
    let visit = async |length: usize| {
        let mut visitor = narrow(&proxy).await;
        visitor.write_all(format!("GET /{length} HTTP/1.1\r\nHost: shop.test\r\n\r\n").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let body = body(&mut visitor, length).await;
        let taken = Instant::now();
        let rest = tokio::time::timeout(Duration::from_secs(30), visitor.read_to_end(&mut Vec::new())).await.unwrap();
        (length, body, rest.unwrap_or(0), taken.elapsed())
    };
    for (length, body, rest, idle) in futures_util::future::join_all(lengths().map(visit)).await {
        assert_eq!((body, rest), (Some(length), 0));
        assert!(idle < Duration::from_secs(5), "{idle:?}");
    }
    serving.abort();
}
