//! The options of a service: by the admin API and by the file, in force at once, kept over a switch.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Behaviour, Proxy, Response, Upstream, client, eventually, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

async fn site(options: Value) -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    set(&proxy, options).await;
    (proxy, app)
}

async fn set(proxy: &Proxy, options: Value) {
    proxy.set_options(&["shop.test"], options).await;
}

async fn send(proxy: &Proxy, request: impl AsRef<[u8]>) -> Response {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(request).await.unwrap();
    visitor.answer().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_413_whether_its_length_is_told_or_not() {
    let (proxy, app) = site(json!({ "request_bytes": "1KiB" })).await;
    let post = |framing: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{framing}\r\n\r\n{body}");
    let (fits, too_long) = ("x".repeat(1024), "x".repeat(1025));
    let answer = send(&proxy, post("Content-Length: 1024", &fits)).await;
    assert_eq!(answer.status, 200);
    let before = app.seen_count();
    // Its length alone is enough: nothing of the body need come, and a client that asks first is told so.
    for fields in ["Content-Length: 1025", "Content-Length: 1025\r\nExpect: 100-continue"] {
        let answer = send(&proxy, post(fields, "")).await;
        assert_eq!((answer.status, answer.closes()), (413, true), "{fields}");
    }
    let chunked = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answer = send(&proxy, post("Transfer-Encoding: chunked", &chunked(&too_long))).await;
    assert_eq!((answer.status, answer.closes()), (413, true));
    let arrived = app.seen_from(before).into_iter().filter(|seen| seen.first_line.starts_with("POST")).count();
    assert_eq!(arrived, 0, "a body over the limit arrived whole");
    assert_eq!(send(&proxy, post("Transfer-Encoding: chunked", &chunked(&fits))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_pages_are_the_services_own_and_an_api_still_gets_json() {
    let pages = json!({ "5xx": "<p>soon back: {{status}} {{reason}} {{request_id}}", "504": "slow" });
    let (proxy, app) = site(json!({ "error_pages": pages })).await;
    app.behave(Behaviour::Raw("nonsense\r\n\r\n"));
    let ask = |more: &str| format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n");
    let answer = send(&proxy, ask("X-Request-Id: a-<b>1\r\n")).await;
    assert_eq!((answer.status, answer.text().as_str()), (502, "<p>soon back: 502 Bad Gateway a-b1"));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let answer = send(&proxy, ask("Accept: application/json\r\n")).await;
    assert_eq!(serde_json::from_str::<Value>(&answer.text()).unwrap()["status"], 502);
    // Before its first version it has its own page too.
    let body = json!({ "domains": ["new.test"], "options": { "error_pages": { "503": "soon" } } });
    proxy.call("PUT", "/v1/services/new", body).await;
    let answer = send(&proxy, "GET / HTTP/1.1\r\nHost: new.test\r\n\r\n").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "soon"));
    // An answer of the application is its own, and what is no service's is ours.
    app.behave(Behaviour::Status(503));
    assert_eq!(send(&proxy, ask("")).await.text(), "v1");
    let answer = send(&proxy, "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await;
    assert!(answer.status == 404 && answer.text().contains("No service"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_of_the_service_wins_over_the_proxys_own() {
    let (proxy, app) = site(json!({ "response_timeout": "200ms" })).await;
    app.behave(Behaviour::Hang);
    let began = Instant::now();
    assert_eq!(send(&proxy, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.status, 504);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_stay_until_others_are_given() {
    let (proxy, app) = site(json!({ "request_bytes": "1KiB", "response_timeout": "7s" })).await;
    let options = async || {
        let answer = proxy.call("GET", "/v1/services/shop", json!({})).await;
        answer.lines[0]["settings"]["options"].clone()
    };
    // Routes alone, and a switch that says nothing of options.
    proxy.call("PUT", "/v1/services/shop", json!({ "domains": ["shop.test", "other.test"] })).await;
    proxy.serve("shop", app.address()).await;
    let kept = options().await;
    assert_eq!((&kept["request_bytes"], &kept["response_timeout"]), (&json!("1KiB"), &json!("7s")));
    // Given, they are given whole.
    set(&proxy, json!({ "sticky": true })).await;
    let given = options().await;
    assert_eq!((&given["sticky"], &given["request_bytes"]), (&json!(true), &Value::Null));
    for wrong in [
        json!({ "stiky": true }),
        json!({ "request_bytes": "1x" }),
        json!({ "response_timeout": "0s" }),
        json!({ "response_timeout": "9000y" }),
        json!({ "error_pages": { "200": "" } }),
    ] {
        let body = json!({ "domains": ["shop.test"], "options": wrong });
        let refused = proxy.call("PUT", "/v1/services/shop", body).await;
        assert_eq!((refused.status, &refused.lines[0]["code"]), (400, &json!("bad_request")), "{wrong}");
    }
    assert_eq!(options().await, given);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_sets_options_and_a_change_of_it_is_in_force_at_once() {
    let app = upstream("v1").await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("413.html");
    std::fs::write(&page, "our own page").unwrap();
    let config = |bytes: &str| {
        format!(
            "[services.shop]\ndomains = [\"shop.test\"]\nendpoints = [\"{}\"]\n[services.shop.options]\n\
             request_bytes = \"{bytes}\"\nerror_pages = {{ \"413\" = \"{}\" }}\n",
            app.address(),
            page.display()
        )
    };
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&config("1k"));
    proxy.start().await;
    let ask = async || {
        let body = "x".repeat(2048);
        send(&proxy, format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2048\r\n\r\n{body}")).await
    };
    assert_eq!(ask().await.text(), "our own page");
    // A page by itself too.
    std::fs::write(&page, "another page").unwrap();
    eventually("the new page is shown", async || (ask().await.text() == "another page").then_some(())).await;
    proxy.rewrite_config(&config("1x"));
    eventually("the bad file is told", async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await;
        let warnings = status.lines[0]["warnings"].to_string();
        warnings.contains("bgproxy.toml:5:17").then_some(())
    })
    .await;
    assert_eq!(ask().await.status, 413);
    proxy.rewrite_config(&config("1m"));
    eventually("the good file is in force", async || (ask().await.status == 200).then_some(())).await;
}

/// Stages several endpoints and flips to them.
async fn serve_all(proxy: &Proxy, apps: &[&Upstream], options: Value) {
    let endpoints: Vec<_> = apps.iter().map(|app| app.address()).collect();
    let body = json!({
        "endpoints": endpoints, "settings": { "domains": ["shop.test"], "options": options },
        "health": { "interval": "10ms" },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip("shop").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_with_the_cookie_stays_with_an_endpoint_until_that_is_gone() {
    let (one, two, three) = (upstream("one").await, upstream("two").await, upstream("three").await);
    let proxy = proxy();
    serve_all(&proxy, &[&one, &two], json!({ "sticky": true })).await;
    let ask = async |cookie: &str| {
        send(&proxy, format!("GET / HTTP/1.1\r\nHost: shop.test\r\nCookie: a=b; {cookie}; c=d\r\n\r\n")).await
    };
    for _ in 0..4 {
        let first = ask("x=y").await;
        let set = first.field("set-cookie").unwrap().to_owned();
        assert!(set.starts_with("bg-shop=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
        let cookie = set.split(';').next().unwrap();
        for _ in 0..10 {
            let again = ask(cookie).await;
            assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
        }
    }
    // It is the first answer of the other version that tells the new one.
    let old = ask("x=y").await.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    serve_all(&proxy, &[&three, &two], json!({ "sticky": true })).await;
    drop(one);
    let moved = ask(&old).await;
    assert_eq!(moved.status, 200);
    // And without the wish for it, or a choice, there is no cookie.
    serve_all(&proxy, &[&three], json!({ "sticky": true })).await;
    assert_eq!(ask("x=y").await.field("set-cookie"), None);
    serve_all(&proxy, &[&three, &two], json!({})).await;
    assert_eq!(ask("x=y").await.field("set-cookie"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_in_a_row_is_left_aside_though_its_probes_pass() {
    let (good, bad) = (upstream("good").await, upstream("bad").await);
    let proxy = proxy();
    serve_all(&proxy, &[&good, &bad], json!({})).await;
    bad.behave(Behaviour::Status(503));
    let mut visitor = client(proxy.address()).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..60 {
        answers.push(visitor.get("shop.test", "/").await.unwrap().unwrap().text());
    }
    let failed = answers.iter().filter(|text| *text == "bad").count();
    // Five in a row, whoever else was asked between them; one worker serves the connection.
    assert_eq!(failed, 5, "{answers:?}");
    assert!(answers[30..].iter().all(|text| text == "good"), "{answers:?}");
    let metrics = proxy.text("/metrics").await;
    assert!(metrics.contains("bgproxy_ejections_total{service=\"shop\",slot=\"blue\"} 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_its_rate_and_is_told_when_to_come_back() {
    let (proxy, app) = site(json!({ "requests_per_second": 1, "burst": 3 })).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(visitor.get("shop.test", "/").await.unwrap().unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let seen = app.seen().iter().filter(|seen| !seen.head.contains("bgproxy-health")).count();
    assert_eq!(seen, 3);
    let refused = visitor.get("shop.test", "/").await.unwrap().unwrap();
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")));
    // What we answer ourselves is counted to the service too.
    let metrics = proxy.text("/metrics").await;
    let count = "bgproxy_requests_total{service=\"shop\",slot=\"blue\",class=\"4xx\"} 3\n";
    assert!(metrics.contains(count), "{metrics}");
    // The same connection goes on, and after a while so does its address.
    let passes = async || (visitor.get("shop.test", "/").await.unwrap().unwrap().status == 200).then_some(());
    eventually_mut("the rate lets one through again", passes).await;
}

async fn eventually_mut(what: &str, mut check: impl AsyncFnMut() -> Option<()>) {
    let until = Instant::now() + Duration::from_secs(10);
    while check().await.is_none() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_the_rate_and_the_log_are_those_of_the_client_that_it_names() {
    let app = upstream("v1").await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let config = format!(
        "trusted_proxies = [\"private\"]\n[log]\naccess = \"json\"\naccess_file = \"{}\"\n[services.shop]\n\
         domains = [\"shop.test\"]\nendpoints = [\"{}\"]\n[services.shop.options]\nrequests_per_second = 1\n",
        log.display(),
        app.address()
    );
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&config);
    proxy.start().await;
    let ask = async |forwarded: &str| {
        send(
            &proxy,
            format!("GET /{forwarded} HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 6.6.6.6, {forwarded}\r\n\r\n"),
        )
        .await
        .status
    };
    assert_eq!([ask("192.0.2.1").await, ask("192.0.2.2").await, ask("192.0.2.1").await], [200, 200, 429]);
    let line = eventually("the request is logged", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().find(|line| line.contains("\"target\":\"/192.0.2.2\"")).map(str::to_owned)
    })
    .await;
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["client"], "192.0.2.2");
    let head = app.seen().into_iter().map(|seen| seen.head).find(|head| head.contains("GET /192.0.2.2")).unwrap();
    let lower = head.to_lowercase();
    assert!(lower.contains("\r\nx-real-ip: 192.0.2.2\r\n"), "{head}");
    assert!(lower.contains("\r\nx-forwarded-for: 6.6.6.6, 192.0.2.2, 127.0.0.1\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections_and_no_more() {
    let app = upstream("v1").await;
    let config = format!(
        "[limits]\nconnections_per_address = 3\n[services.shop]\ndomains = [\"shop.test\"]\nendpoints = [\"{}\"]\n",
        app.address()
    );
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&config);
    proxy.start().await;
    // The one that waited for the start may not have been given back yet.
    let visitors = eventually("there are three places", async || {
        let mut visitors = Vec::new();
        for _ in 0..3 {
            let mut visitor = client(proxy.address()).await.unwrap();
            let answer = visitor.get("shop.test", "/").await.ok().flatten()?;
            assert_eq!(answer.status, 200);
            visitors.push(visitor);
        }
        Some(visitors)
    })
    .await;
    let mut beyond = client(proxy.address()).await.unwrap();
    assert!(!matches!(beyond.get("shop.test", "/").await, Ok(Some(_))), "a fourth connection was served");
    let metrics = proxy.text("/metrics").await;
    assert!(!metrics.contains("bgproxy_connections_refused_total 0\n"), "{metrics}");
    drop(visitors);
    eventually("places are given again", async || {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.get("shop.test", "/").await.ok().flatten().map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_may_listen_on_a_unix_socket() {
    use tokio::io::AsyncWriteExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let (app, listener) = (upstream("v1").await, tokio::net::UnixListener::bind(&path).unwrap());
    // The fake listens on TCP; this is its other door.
    let address = app.address();
    let door = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(address).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                drop(far.shutdown().await);
            });
        }
    });
    let proxy = proxy();
    let endpoint = format!("unix:{}", path.display());
    let body = json!({
        "endpoints": [&endpoint], "settings": { "domains": ["shop.test"] }, "health": { "interval": "10ms" },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    proxy.flip("shop").await;
    let mut visitor = client(proxy.address()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().text(), "v1");
    }
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
    assert_eq!(status.lines[0]["slots"]["blue"]["endpoints"][0]["address"], endpoint);
    // Two for probes, one for the visitor.
    assert!(app.connections() <= 4, "{}", app.connections());
    door.abort();
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffered_upload_reaches_the_application_whole_and_keeps_no_version_from_draining() {
    let (proxy, blue) = site(json!({ "buffer_requests": true })).await;
    let green = upstream("v2").await;
    for app in [&blue, &green] {
        app.behave(Behaviour::Echo);
    }
    let posts =
        |app: &Upstream| app.seen().into_iter().filter(|seen| seen.first_line.starts_with("POST")).collect::<Vec<_>>();
    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
    let mut asking = client(proxy.address()).await.unwrap();
    asking
        .send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(asking.answer().await.unwrap().unwrap().status, 100);
    proxy.serve("shop", green.address()).await;
    assert_eq!(proxy.drain("shop").await["event"], "drained");
    assert_eq!(posts(&blue).len(), 0);
    slow.send("2\r\nde\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(slow.answer().await.unwrap().unwrap().text(), "abcde");
    asking.send("xy").await.unwrap();
    assert_eq!(asking.answer().await.unwrap().unwrap().text(), "xy");
    let seen = posts(&green);
    let head = seen[0].head.to_lowercase();
    assert!(head.contains("\r\ncontent-length: 5\r\n") && !head.contains("transfer-encoding"), "{head}");
    // What is too long for memory goes over the disk, and nothing of it stays there.
    let body: String = (0..400_000).map(|n| format!("{n:06}\n")).collect();
    let framings = [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ];
    for framed in framings {
        let answer = send(&proxy, format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{framed}")).await;
        assert!(answer.text() == body, "{} bytes of {}", answer.body.len(), body.len());
    }
    let mut names: Vec<_> = std::fs::read_dir(proxy.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["handover.sock", "lock", "services"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_without_a_length_reaches_an_application_of_http_1_0_with_one() {
    let (proxy, app) = site(json!({})).await;
    app.behave(Behaviour::Http10);
    // Its first answer tells that it knows no chunked coding.
    assert_eq!(send(&proxy, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.status, 200);
    // Two workers, each of which has to be told.
    let body = "x".repeat(3_000_000);
    let post = format!(
        "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\nPOST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(post).await.unwrap();
    for _ in 0..2 {
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    }
    let seen = app.seen().pop().unwrap();
    assert_eq!(seen.body_bytes, 3_000_000);
    assert!(seen.head.to_lowercase().contains("\r\ncontent-length: 3000000\r\n"), "{}", seen.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_tells_whose_connection_it_is_and_has_to() {
    let app = upstream("v1").await;
    let config = |networks: &str| {
        format!(
            "proxy_protocol = [{networks}]\n[limits]\nheader_timeout = \"300ms\"\n[services.shop]\ndomains = [\"shop.test\"]\n\
             endpoints = [\"{}\"]\n",
            app.address()
        )
    };
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&config(""));
    proxy.start().await;
    proxy.rewrite_config(&config("\"127.0.0.0/8\""));
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x02\x0a\0\0\x01\x12\x67\0\x50";
    let ask = async |header: &[u8]| {
        let mut visitor = client(proxy.address()).await.unwrap();
        // In two pieces, the first of which ends within the header.
        let (first, second) = header.split_at(header.len() / 2);
        visitor.send(first).await.unwrap();
        visitor.send([second, request.as_bytes()].concat()).await.unwrap();
        visitor.answer().await.ok().flatten().map(|answer| answer.status)
    };
    eventually("who says nothing is refused", async || (ask(b"").await.is_none()).then_some(())).await;
    for (header, client) in [(&b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n"[..], "192.0.2.1"), (version2, "192.0.2.2")]
    {
        assert_eq!(ask(header).await, Some(200));
        let head = app.seen().pop().unwrap().head.to_lowercase();
        assert!(head.contains(&format!("\r\nx-forwarded-for: {client}\r\n")), "{head}");
    }
    for bad in [&b"PROXY TCP4 nonsense\r\n"[..], b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 99999\r\n"] {
        assert_eq!(ask(bad).await, None, "{}", bad.escape_ascii());
    }
    // Half a header is waited for as long as for a head.
    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("PROXY TCP4 192").await.unwrap();
    assert_eq!(slow.rest().await.unwrap(), b"");
    proxy.rewrite_config(&config(""));
    eventually("it is needed no more", async || (ask(b"").await == Some(200)).then_some(())).await;
}
