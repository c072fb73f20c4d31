//! Heads and trailers of many lines, in whatever pieces they come: what is told apart, and where the limits are.

use std::time::Duration;

use tests::{Proxy, Upstream, client, proxy, upstream};

async fn site() -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    (proxy, app)
}

/// What the application got since the first so many requests, probes aside.
fn seen(app: &Upstream, first: usize) -> usize {
    app.seen_from(first).iter().filter(|seen| !seen.head.contains("bgproxy-health")).count()
}

fn fields(count: usize) -> String {
    (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect()
}

/// More than a hundred fields are read by another parser than most requests, which is not to be found out too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_head_that_begins_behind_another_request_is_served_whole() {
    let (proxy, app) = site().await;
    let many = format!("GET /many HTTP/1.1\r\nHost: shop.test\r\n{}\r\n", fields(190));
    let few = "GET /few HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let body = "1;2;3\n".repeat(60);
    let post = format!("POST /few HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (before, at) in [(few, 3), (few, many.len() / 2), (few, many.len() - 3), (&post, many.len() / 2)] {
        let first = app.seen_count();
        let (begun, rest) = many.split_at(at);
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send(format!("{before}{begun}")).await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
        // Its beginning is parsed and found to be no whole head before the rest comes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        visitor.send(format!("{rest}{few}")).await.unwrap();
        for _ in 0..2 {
            assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200, "cut at {at} behind {before:?}");
        }
        let seen = app.seen_from(first);
        let head = seen.iter().find(|seen| seen.head.starts_with("GET /many ")).unwrap().head.to_lowercase();
        assert!((0..190).all(|n| head.matches(&format!("\r\nx-{n}: {n}\r\n")).count() == 1), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_and_fields_beyond_their_limits_are_told_apart_behind_another_request_too() {
    let (proxy, app) = site().await;
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: shop.test\r\n\r\n", "a".repeat(length - 1));
    let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{}\r\n", fields(count - 1));
    let large = format!("GET / HTTP/1.1\r\nHost: shop.test\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let few = "GET /few HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    for (status, request) in [
        (200, target(16 * 1024)),
        (414, target(16 * 1024 + 1)),
        (200, head(200)),
        (431, head(201)),
        (431, large.clone()),
    ] {
        for before in ["", few] {
            for pieces in [1, 2, 7] {
                let first = app.seen_count();
                let mut visitor = client(proxy.address()).await.unwrap();
                let text = format!("{before}{request}");
                for piece in text.as_bytes().chunks(text.len().div_ceil(pieces)) {
                    // Refused before its last piece, where it is too long already.
                    drop(visitor.send(piece).await);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                if !before.is_empty() {
                    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
                }
                let answer = visitor.answer().await.unwrap().unwrap();
                let place = format!("{} bytes in {pieces} pieces behind {before:?}", request.len());
                assert_eq!((answer.status, answer.closes()), (status, status != 200), "{place}");
                assert_eq!(seen(&app, first), usize::from(status == 200) + usize::from(!before.is_empty()), "{place}");
            }
        }
    }
}

/// The same limit whichever parser has the connection, and in HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_fields_may_trail_a_body_and_no_more() {
    let (proxy, app) = site().await;
    let post = |count: usize| {
        let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}3\r\nabc\r\n0\r\n{}\r\n", fields(count))
    };
    let long = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{}\r\n", fields(190));
    for before in ["", &long] {
        for (count, status) in [(100, 200), (101, 400), (150, 400)] {
            let mut visitor = client(proxy.address()).await.unwrap();
            if !before.is_empty() {
                visitor.send(before).await.unwrap();
                assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
            }
            let first = app.seen_count();
            visitor.send(post(count)).await.unwrap();
            let answer = visitor.answer().await.unwrap().unwrap();
            assert_eq!((answer.status, answer.closes()), (status, status != 200), "{count} behind {before:?}");
            assert_eq!(seen(&app, first), usize::from(status == 200));
        }
    }
    let socket = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let _connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    for (count, status) in [(100_u16, 200), (101, 400)] {
        let request = http::Request::post("http://shop.test/").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        let trailers = (0..count).map(|n| (format!("x-{n}").parse().unwrap(), n.into())).collect();
        body.send_trailers(trailers).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{count}");
        sender = sender.ready().await.unwrap();
    }
}
