//! Applications that speak HTTP/2 by prior knowledge: gRPC by itself, everything where a service asks for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tests::{Proxy, client, eventually, proxy, upstream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A fake application that speaks HTTP/2 and nothing else.
struct Application {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Streams that their clients have reset.
    resets: Arc<AtomicUsize>,
    heads: Arc<std::sync::Mutex<Vec<http::request::Parts>>>,
    _tasks: JoinSet<()>,
}

async fn application() -> Application {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, resets) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let heads: Arc<std::sync::Mutex<Vec<http::request::Parts>>> = Arc::default();
    let mut tasks = JoinSet::new();
    let app = (Arc::clone(&connections), Arc::clone(&resets), Arc::clone(&heads));
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (connections, resets, heads) = app.clone();
            connections.fetch_add(1, Ordering::SeqCst);
            serving.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                let mut streams = JoinSet::new();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let (head, body) = request.into_parts();
                    if head.uri.path() == "/last" {
                        connection.graceful_shutdown();
                    }
                    heads.lock().unwrap().push(head.clone());
                    let resets = Arc::clone(&resets);
                    streams.spawn(async move {
                        if answer(head.uri.path(), body, respond).await.is_err() {
                            resets.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
                while streams.join_next().await.is_some() {}
            });
        }
    });
    Application { address, connections, resets, heads, _tasks: tasks }
}

fn status(code: &'static str) -> HeaderMap {
    [("grpc-status", code)].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect()
}

async fn answer(path: &str, mut body: RecvStream, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    match path {
        // Each message as it comes.
        "/echo" => {
            let mut stream = respond.send_response(head, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                stream.send_data(data, false)?;
            }
            let mut trailers = status("0");
            if let Some(theirs) = body.trailers().await? {
                trailers.insert("x-theirs", theirs["x-request-trailer"].clone());
            }
            stream.send_trailers(trailers)
        }
        // An error with nothing but a head.
        "/fail" => {
            head.headers_mut().extend(status("5"));
            respond.send_response(head, true).map(drop)
        }
        // Answers before the client is through.
        "/early" => {
            let mut stream = respond.send_response(head, false)?;
            // Left with a request that has not ended, the stream is reset once this is sent (RFC 9113 section 8.1).
            stream.send_trailers(status("8"))
        }
        "/grpc.health.v1.Health/Check" => {
            let mut asked = Vec::new();
            while let Some(data) = body.data().await {
                asked.extend_from_slice(&data?);
            }
            assert_eq!(asked, [0; 5]);
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x08, 0x01]), false)?;
            stream.send_trailers(status("0"))
        }
        "/reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "/hang" => {
            let mut stream = respond.send_response(head, false)?;
            match std::future::poll_fn(|cx| stream.poll_reset(cx)).await {
                Ok(_) | Err(_) => Err(Reason::CANCEL.into()),
            }
        }
        _ => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            stream.send_data("h2c".into(), true)
        }
    }
}

async fn site(options: Value) -> (Proxy, Application) {
    let (app, proxy) = (application().await, proxy());
    serve(&proxy, app.address, options).await;
    (proxy, app)
}

/// Probes speak HTTP/1, which such an application does not.
async fn serve(proxy: &Proxy, address: SocketAddr, options: Value) {
    let body = json!({
        "endpoints": [address], "health": { "enabled": false },
        "settings": { "domains": ["shop.test"], "options": options },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip("shop").await.status, 200);
}

async fn connect(proxy: &Proxy) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://shop.test{path}"));
    request.header("content-type", "application/grpc+proto").header("te", "trailers").body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_goes_both_ways_message_by_message_with_trailers_and_needs_no_setting() {
    let (proxy, app) = site(json!({})).await;
    let sender = connect(&proxy).await;
    let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(call("/echo"), false).unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    for message in ["one", "two", "three"] {
        stream.send_data(message.into(), false).unwrap();
        // The answer to it comes while the request is still open.
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message);
    }
    let theirs = [("x-request-trailer".parse().unwrap(), "passed".parse().unwrap())].into_iter().collect();
    stream.send_trailers(theirs).unwrap();
    assert!(answer.body_mut().data().await.is_none());
    let trailers = answer.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!((&trailers["grpc-status"], &trailers["x-theirs"]), (&"0".parse().unwrap(), &"passed".parse().unwrap()));
    let head = app.heads.lock().unwrap()[0].clone();
    assert_eq!((head.uri.to_string().as_str(), head.method.as_str()), ("http://shop.test/echo", "POST"));
    for (name, value) in [("te", "trailers"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http")] {
        assert_eq!(head.headers[name], value);
    }
    assert!(!head.headers.contains_key("host") && !head.headers.contains_key("connection"), "{head:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_the_head_or_before_the_request_is_through_reaches_the_client() {
    let (proxy, app) = site(json!({})).await;
    let sender = connect(&proxy).await;
    let ask = async |path: &str, ends: bool| {
        let (answer, stream) = sender.clone().ready().await.unwrap().send_request(call(path), ends).unwrap();
        (answer.await.unwrap(), stream)
    };
    let (failed, _) = ask("/fail", true).await;
    assert_eq!((failed.status(), &failed.headers()["grpc-status"]), (StatusCode::OK, &"5".parse().unwrap()));
    let (mut early, _stream) = ask("/early", false).await;
    assert!(early.body_mut().data().await.is_none());
    assert_eq!(early.body_mut().trailers().await.unwrap().unwrap()["grpc-status"], "8");
    let (reset, _) = ask("/reset", true).await;
    assert_eq!(reset.status(), StatusCode::BAD_GATEWAY);
    // All on one connection to the application.
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    // A client that leaves ends its stream there, and no other.
    let (left, _) = ask("/hang", true).await;
    let (stays, _) = ask("/hang", true).await;
    drop(left);
    eventually("the application is told", async || (app.resets.load(Ordering::SeqCst) == 1).then_some(())).await;
    drop(stays);
    eventually("of the other too", async || (app.resets.load(Ordering::SeqCst) == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_moves_calls_and_lets_those_under_way_finish() {
    let (proxy, blue) = site(json!({})).await;
    let green = application().await;
    let sender = connect(&proxy).await;
    let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(call("/echo"), false).unwrap();
    let mut answer = answer.await.unwrap();
    serve(&proxy, green.address, json!({})).await;
    let (other, _) = sender.clone().ready().await.unwrap().send_request(call("/fail"), true).unwrap();
    assert_eq!(other.await.unwrap().headers()["grpc-status"], "5");
    assert_eq!((blue.heads.lock().unwrap().len(), green.heads.lock().unwrap().len()), (1, 1));
    stream.send_data("still".into(), true).unwrap();
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "still");
    assert_eq!(proxy.drain("shop").await["event"], "drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_says_goodbye_costs_no_request() {
    let (proxy, app) = site(json!({})).await;
    let sender = connect(&proxy).await;
    for round in 0..50 {
        let path = if round % 2 == 0 { "/last" } else { "/fail" };
        let (answer, _) = sender.clone().ready().await.unwrap().send_request(call(path), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK, "round {round}");
    }
    let connections = app.connections.load(Ordering::SeqCst);
    assert!((25..=51).contains(&connections), "{connections}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_take_more_than_one_connection() {
    let (proxy, app) = site(json!({})).await;
    let mut open = Vec::new();
    for visitor in 0..3 {
        let sender = connect(&proxy).await;
        for call_number in 0..100 {
            let (answer, stream) = sender.clone().ready().await.unwrap().send_request(call("/echo"), false).unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
            let answer = answer.unwrap_or_else(|_| panic!("call {call_number} of visitor {visitor} waits")).unwrap();
            open.push((answer, stream));
        }
    }
    let connections = app.connections.load(Ordering::SeqCst);
    assert!((3..=4).contains(&connections), "{connections}");
    for (answer, stream) in &mut open {
        stream.send_data("x".into(), true).unwrap();
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "x");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_speak_http_2_where_the_service_does_and_know_grpcs_own_check() {
    let (app, proxy) = (application().await, proxy());
    let stage = async |protocol: &str, path: &str| {
        let body = json!({
            "endpoints": [app.address], "health": { "interval": "10ms", "path": path }, "deadline": "300ms",
            "settings": { "domains": ["shop.test"], "options": { "protocol": protocol } },
        });
        proxy.call("POST", "/v1/services/shop/stage", body).await.lines.last().unwrap().clone()
    };
    for (protocol, path, event) in [
        ("http1", "/", "error"),
        ("h2c", "/", "healthy"),
        ("http1", "/grpc.health.v1.Health/Check", "healthy"),
        ("h2c", "/grpc.health.v1.Health/Check", "healthy"),
        // Answers, with an error in its head.
        ("h2c", "/fail", "healthy"),
    ] {
        let last = stage(protocol, path).await;
        assert_eq!(last["event"], event, "{protocol} {path}: {last}");
    }
    let heads = app.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.headers["user-agent"] == "bgproxy-health"));
    assert!(heads.iter().all(|head| head.uri.host() == Some("shop.test")), "{:?}", heads[0].uri);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_asks_for_h2c_has_it_for_clients_of_http_1_too() {
    let (proxy, app) = site(json!({ "protocol": "h2c", "request_bytes": "1KiB" })).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    for _ in 0..3 {
        let answer = visitor.get("shop.test", "/page?a=b").await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "h2c"));
    }
    let post =
        "POST /echo HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
    visitor.send(post).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().text(), "abcde");
    let long = format!("POST /page HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(2000));
    visitor.send(long).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 413);
    assert_eq!(app.heads.lock().unwrap()[0].uri, "http://shop.test/page?a=b");
    // One that speaks HTTP/1 alone is said to give no valid answer.
    let old = upstream("v1").await;
    serve(&proxy, old.address(), json!({ "protocol": "h2c" })).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 502);
}
