//! HTTP/1 on the wire, bytes on both sides: what is refused, what reaches the application, what the client gets back.

use std::time::Duration;

use tests::{Behaviour, Client, Proxy, Response, Upstream, client, eventually, proxy, upstream};

/// A proxy with one service in front of a fake application.
async fn site() -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    (proxy, app)
}

/// Sends bytes on a connection of their own and returns the first answer, and whether the connection was closed after it.
async fn send(proxy: &Proxy, bytes: &[u8]) -> (Response, bool) {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(bytes).await.unwrap();
    let answer = visitor.answer().await.unwrap().unwrap_or_else(|| panic!("closed: {}", bytes.escape_ascii()));
    let closed = answer.closes();
    (answer, closed)
}

/// What the application got since the first so many requests, probes aside: the heads.
fn heads(app: &Upstream, first: usize) -> Vec<String> {
    app.seen_from(first).into_iter().map(|seen| seen.head).filter(|head| !head.contains("bgproxy-health")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_or_ambiguous_is_refused_closed_and_never_forwarded() {
    let (proxy, app) = site().await;
    let long = "a".repeat(17 * 1024);
    let fields: String = (0..250).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "x".repeat(70 * 1024));
    let cases: Vec<(u16, String)> = [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\nHost: shop.test\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\nHost: other.test\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test/evil\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test:port\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: user@shop.test\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test, other.test\r\n\r\n"),
        (400, "GET http://other.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: +2\r\n\r\nab"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2, 2\r\n\r\nab"),
        (501, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : shop.test\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\n folded: 1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.test\r\nX: a\0b\r\n\r\n"),
        (400, "GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        (400, "NONSENSE\r\n\r\n"),
        (501, "CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n"),
    ]
    .into_iter()
    .map(|(status, text)| (status, text.to_owned()))
    .chain([
        (414, format!("GET /{long} HTTP/1.1\r\nHost: shop.test\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{large}\r\n")),
    ])
    .collect();
    let before = app.seen_count();
    for (status, request) in cases {
        let shown = request.escape_default().to_string().chars().take(90).collect::<String>();
        let (answer, closed) = send(&proxy, request.as_bytes()).await;
        assert_eq!((answer.status, closed), (status, true), "{shown}");
    }
    assert_eq!(heads(&app, before), Vec::<String>::new());
}

/// More than a hundred fields are read by another parser than most requests: whatever came before them, in how many pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_many_fields_is_served_like_any_other() {
    let (proxy, app) = site().await;
    let fields: String = (0..190).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let many = format!("POST /many HTTP/1.1\r\nHost: shop.test\r\n{fields}Content-Length: 3\r\n\r\nabc");
    let before = app.seen_count();
    let mut visitor = client(proxy.address()).await.unwrap();
    // On its own, and again on the same connection.
    for _ in 0..2 {
        visitor.send(&many).await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    }
    // Behind another request, whose answer must not be lost, and before one more.
    assert_eq!(visitor.get("shop.test", "/few").await.unwrap().unwrap().status, 200);
    visitor
        .send(format!(
            "GET /few HTTP/1.1\r\nHost: shop.test\r\n\r\n{many}GET /last HTTP/1.1\r\nHost: shop.test\r\n\r\n"
        ))
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    }
    // In pieces, on a connection that has served none.
    let mut visitor = client(proxy.address()).await.unwrap();
    for piece in many.as_bytes().chunks(200) {
        visitor.send(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    let seen = app.seen_from(before);
    let many: Vec<_> = seen.iter().filter(|seen| seen.head.starts_with("POST /many ")).collect();
    assert_eq!(many.len(), 4);
    for seen in many {
        let head = seen.head.to_lowercase();
        assert!((0..190).all(|n| head.matches(&format!("\r\nx-{n}: {n}\r\n")).count() == 1), "{head}");
        assert_eq!(seen.body_bytes, 3);
    }
}

/// A connection that is idle for some seconds is parked; what was read of its next request must not be lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_behind_another_is_waited_for_and_served_whole() {
    let (proxy, app) = site().await;
    let before = app.seen_count();
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET /first HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /second HT").await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    // Longer than an idle connection is kept as it is, shorter than a head may take.
    tokio::time::sleep(Duration::from_millis(6500)).await;
    visitor.send("TP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    let heads = heads(&app, before);
    assert!(heads.iter().any(|head| head.starts_with("GET /second HTTP/1.1\r\n")), "{heads:?}");
}

/// RFC 9112 section 6.3: chunked coding beats a length; the application sees one of them, and the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_beside_chunked_coding_is_taken_out_and_the_connection_ends() {
    let (proxy, app) = site().await;
    let before = app.seen_count();
    let request = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (answer, closed) = send(&proxy, request.as_bytes()).await;
    assert_eq!((answer.status, closed), (200, true));
    let seen = app.seen_from(before).remove(0);
    assert!(!seen.head.to_lowercase().contains("content-length"), "{}", seen.head);
    assert_eq!(seen.body_bytes, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_chunk_is_the_clients_fault_and_never_a_whole_body() {
    let (proxy, app) = site().await;
    for chunk in ["zz\r\nabc\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcX\r\n0\r\n\r\n", "fffffffffffffffff\r\n"] {
        let before = app.seen_count();
        let request = format!("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        let (answer, closed) = send(&proxy, request.as_bytes()).await;
        assert_eq!((answer.status, closed), (400, true), "{chunk:?}");
        assert_eq!(heads(&app, before), Vec::<String>::new(), "{chunk:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_target_becomes_a_path_and_its_host() {
    let (proxy, app) = site().await;
    let before = app.seen_count();
    let (answer, _) = send(&proxy, b"GET http://SHOP.test/a?b=c HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    let head = heads(&app, before).remove(0);
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert_eq!(head.to_lowercase().matches("\r\nhost: shop.test\r\n").count(), 1, "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hop_by_hop_fields_end_here_and_ours_can_not_be_taken_away() {
    let (proxy, app) = site().await;
    let before = app.seen_count();
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close, X-Private, Host, X-Forwarded-For, X-Request-Id\r\n\
        X-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nForwarded: for=6.6.6.6\r\nX-Public: 1\r\n\r\n";
    let (answer, _) = send(&proxy, request.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let head = heads(&app, before).remove(0).to_lowercase();
    for gone in
        ["x-private", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "6.6.6.6", "evil.test", "https"]
    {
        assert!(!head.contains(gone), "`{gone}` in {head}");
    }
    for there in [
        "\r\nhost: shop.test\r\n",
        "\r\nx-forwarded-for: 127.0.0.1\r\n",
        "\r\nx-real-ip: 127.0.0.1\r\n",
        "\r\nx-forwarded-proto: http\r\n",
        "\r\nx-forwarded-host: shop.test\r\n",
        "\r\nx-forwarded-port: 80\r\n",
        "\r\nx-request-id: ",
        "\r\nx-public: 1\r\n",
        "\r\nte: trailers\r\n",
    ] {
        assert_eq!(head.matches(there).count(), 1, "`{there}` in {head}");
    }
    assert!(answer.field("x-request-id").is_some_and(|id| head.contains(id)), "the client is told the id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_1_0_application_keeps_1_1_clients_and_serves_1_0_ones() {
    let (proxy, app) = site().await;
    app.behave(Behaviour::Http10);
    let mut visitor = client(proxy.address()).await.unwrap();
    for _ in 0..3 {
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.closes()), (200, "v1", false));
    }
    let (answer, closed) = send(&proxy, b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!((answer.status, answer.text().as_str(), closed), (200, "v1", true));
}

/// A request whose body comes without a length, for an application that knows HTTP/1.0 only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_reaches_an_http_1_0_application_with_its_length() {
    let (proxy, app) = site().await;
    app.behave(Behaviour::Http10);
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.get("shop.test", "/").await.unwrap().unwrap();
    let before = app.seen_count();
    visitor
        .send("POST / HTTP/1.1\r\nHost: shop.test\r\nX-Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    let seen = app.seen_from(before).remove(0);
    let head = seen.head.to_lowercase();
    assert!(head.contains("\r\ncontent-length: 7\r\n") && !head.contains("\r\ntransfer-encoding"), "{head}");
    assert_eq!(seen.body_bytes, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let (proxy, _app) = site().await;
    let mut visitor = client(proxy.address()).await.unwrap();
    let one = |path: &str, id: u32| format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nX-Load-Id: {id}\r\n\r\n");
    visitor.send([one("/slow/100", 1), one("/", 2), one("/slow/20", 3)].concat()).await.unwrap();
    for id in ["1", "2", "3"] {
        let answer = visitor.answer().await.unwrap().unwrap();
        assert_eq!((answer.status, answer.field("x-load-id")), (200, Some(id)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_gets_its_answer() {
    let (proxy, _app) = site().await;
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET /slow/200 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    visitor.finish().await.unwrap();
    let answer = visitor.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "v1"));
}

/// Whether it waits or has gone can't be told from its FIN; nobody who has gone may keep an application busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_that_is_given_nothing_counts_as_gone_soon_and_one_that_is_given_something_does_not() {
    let (proxy, app) = site().await;
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (app.unanswered() == 1).then_some(())).await;
    let open = app.open_connections();
    visitor.finish().await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(visitor.rest().await.unwrap(), b"");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    eventually("its connection to the application ends", async || (app.open_connections() < open).then_some(())).await;
    // A stream that goes on is followed to its end, though its client has closed its own side long ago.
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET /stream/30/100 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    visitor.finish().await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_of_a_client_that_leaves_ends_within_about_a_second() {
    let (proxy, app) = site().await;
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (app.unanswered() == 1).then_some(())).await;
    let open = app.open_connections();
    drop(visitor);
    let left = std::time::Instant::now();
    eventually("its connection to the application ends", async || (app.open_connections() < open).then_some(())).await;
    assert!(left.elapsed() < Duration::from_millis(1500), "{:?}", left.elapsed());
}

/// The answer to an upload that the application refuses at once must not be lost in the reset of what nobody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let (proxy, app) = site().await;
    app.behave(Behaviour::Early(413));
    for _ in 0..20 {
        let mut visitor = client(proxy.address()).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4000000\r\n\r\n";
        visitor.send(head).await.unwrap();
        let answer = upload(&mut visitor, 4_000_000).await;
        assert_eq!(answer.status, 413);
    }
}

/// Uploads as a browser does: writes until the end or an error, and reads the answer whatever happened.
async fn upload(visitor: &mut Client, bytes: usize) -> Response {
    for _ in 0..bytes / 50_000 {
        if visitor.send(vec![b'x'; 50_000]).await.is_err() {
            break;
        }
    }
    visitor.answer().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_continue_is_the_applications_own() {
    let (proxy, app) = site().await;
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    // It says no: the client never hears a 100.
    app.behave(Behaviour::Early(417));
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(head).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 417);
    // It says 100, and then what it has to say.
    app.behave(Behaviour::Continue);
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(head).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 100);
    visitor.send("abc").await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    // It knows nothing of it: after a second the client is told to go on.
    app.behave(Behaviour::Answer);
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(head).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 100);
    visitor.send("abc").await.unwrap();
    let answer = visitor.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.field("x-body-bytes")), (200, Some("3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_or_broken_answer_is_a_502_and_never_an_empty_close() {
    let (proxy, app) = site().await;
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "",
    ] {
        app.behave(Behaviour::Raw(raw));
        let mut visitor = client(proxy.address()).await.unwrap();
        let answer = visitor.get("shop.test", "/").await.unwrap_or_else(|error| panic!("{raw:?}: {error}"));
        let answer = answer.unwrap_or_else(|| panic!("{raw:?}: an empty close"));
        assert_eq!(answer.status, 502, "{raw:?}: {}", answer.text());
    }
    // A body that breaks off is no whole one: not for a client that counts, and not for one that waits for the end.
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
    ] {
        app.behave(Behaviour::Raw(raw));
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.get("shop.test", "/").await.expect_err(raw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_bodies_keep_the_connection_in_step() {
    let (proxy, app) = site().await;
    let mut visitor = client(proxy.address()).await.unwrap();
    for raw in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        app.behave(Behaviour::Raw(raw));
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert!([204, 304].contains(&answer.status) && !answer.closes(), "{raw:?}: {answer:?}");
    }
    app.behave(Behaviour::Raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\n"));
    visitor.send("HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let answer = visitor.head_answer().await.unwrap();
    assert_eq!((answer.field("content-length"), answer.field("x-gone")), (Some("1000"), None));
    app.behave(Behaviour::Raw(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: 1\r\nSet-Cookie: b=2; c\r\nContent-Length: 2\r\n\r\nok",
    ));
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.fields("set-cookie"), ["a=1", "b=2; c"]);
}

/// Interim answers are dropped, whatever they say, up to a number that is sane; the final one is what the client gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_end_here_and_are_bounded_in_number() {
    let (proxy, app) = site().await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nContent-Length: 7\r\n\r\n";
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\nok";
    let mut visitor = client(proxy.address()).await.unwrap();
    app.behave(Behaviour::Raw(format!("{}{processing}{last}", hints.repeat(15)).leak()));
    for _ in 0..2 {
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.closes()), (200, "ok", false));
        assert_eq!((answer.field("link"), answer.field("x")), (None, Some("1")));
    }
    app.behave(Behaviour::Raw(format!("{}{last}", hints.repeat(17)).leak()));
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 502);
    // None that is the last is an answer.
    app.behave(Behaviour::Raw(hints));
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 502);
}

/// F11 and S2: an idle connection that the application has just closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_under_a_request_is_noticed_by_nobody_but_whoever_posts() {
    let (proxy, app) = site().await;
    app.behave(Behaviour::Once);
    let mut visitor = client(proxy.address()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    }
    let gets = heads(&app, 0).len();
    assert!(gets > 5, "no connection was closed under a GET");
    let post = "POST / HTTP/1.1\r\nHost: shop.test\r\nX-Load-Id: 7\r\nContent-Length: 3\r\n\r\nabc";
    let mut statuses = Vec::new();
    for _ in 0..2 {
        visitor.send(post).await.unwrap();
        statuses.push(visitor.answer().await.unwrap().unwrap().status);
    }
    assert!(statuses.contains(&502), "one of them met a closed connection: {statuses:?}");
    let posts = heads(&app, 0).iter().filter(|head| head.starts_with("POST")).count();
    assert_eq!(posts, 2, "what may have arrived is not sent again");
}

/// RFC 9110 section 6.5: what trails a message goes on, both ways, but for what decides about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways_and_can_not_smuggle_what_stands_before_a_body() {
    let (proxy, app) = site().await;
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n";
    app.behave(Behaviour::Raw(answer));
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n").await.unwrap();
    let raw = String::from_utf8(visitor.rest().await.unwrap()).unwrap().to_lowercase();
    assert!(raw.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{raw}");
    // The other way: the fake keeps no trailers, so this application is a bare socket.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let body = serde_json::json!({
        "endpoints": [listener.local_addr().unwrap()], "health": { "enabled": false },
        "settings": { "domains": ["bare.test"] },
    });
    proxy.call("POST", "/v1/services/bare/stage", body).await;
    assert_eq!(proxy.flip("bare").await.status, 200);
    let seen = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") || !seen.windows(5).any(|bytes| bytes == b"\r\n0\r\n") {
            assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0, "{}", seen.escape_ascii());
        }
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8(seen).unwrap().to_lowercase()
    });
    let mut visitor = client(proxy.address()).await.unwrap();
    let post = "POST / HTTP/1.1\r\nHost: bare.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
        2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nHost: evil.test\r\nAuthorization: x\r\n\r\n";
    visitor.send(post).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 204);
    let seen = seen.await.unwrap();
    assert!(seen.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_may_have_an_ipv6_address() {
    if tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
        tests::skipped("an_application_may_have_an_ipv6_address", "this host has no IPv6");
        return;
    }
    let app = tests::upstream_at("[::1]:0".parse().unwrap(), "v6").await;
    let proxy = proxy();
    proxy.serve("shop", app.address()).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().text(), "v6");
}

/// The time for an answer begins when the request is sent: an upload that the application let go on is not late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_after_100_continue_may_take_longer_than_the_answer_may() {
    let (proxy, app) = site().await;
    app.behave(Behaviour::Continue);
    let options = serde_json::json!({ "domains": ["shop.test"], "options": { "response_timeout": "300ms" } });
    assert_eq!(proxy.call("PUT", "/v1/services/shop", options).await.status, 200);
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor
        .send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 100);
    for byte in b"0123456789" {
        tokio::time::sleep(Duration::from_millis(100)).await;
        visitor.send([*byte]).await.unwrap();
    }
    let answer = visitor.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"));
}
