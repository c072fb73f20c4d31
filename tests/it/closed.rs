//! Pause, resume and maintenance: a service that is closed on purpose.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Answer, Client, Load, Proxy, Site, client, eventually, load, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

async fn call(proxy: &Proxy, verb: &str, body: Value) -> Value {
    let Answer { status, lines } = proxy.call("POST", &format!("/v1/services/shop/{verb}"), body).await;
    assert_eq!(status, 200, "{lines:?}");
    lines[0].clone()
}

async fn waiting(proxy: &Proxy) -> u64 {
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    status["paused"]["waiting"].as_u64().unwrap_or_default()
}

/// Sends requests that wait, one after the other, and returns their connections in that order.
async fn queue(proxy: &Proxy, count: usize) -> Vec<Client> {
    let mut visitors = Vec::new();
    for number in 0..count {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send(format!("GET /{number} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await.unwrap();
        visitors.push(visitor);
        eventually("it waits", async || (waiting(proxy).await == number as u64 + 1).then_some(())).await;
    }
    visitors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_paused_service_wait_and_are_let_go_to_the_version_that_is_live_then() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("GET /slow/300 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (blue.unanswered() == 1).then_some(())).await;
    // The call waits for what is under way, and tells what is left.
    assert_eq!(call(&proxy, "pause", json!({ "requests": 4 })).await["in_flight"], 1);
    assert_eq!(call(&proxy, "pause", json!({ "requests": 4, "drain": "5s" })).await["in_flight"], 0);
    assert_eq!(slow.answer().await.unwrap().unwrap().status, 200);
    let mut visitors = queue(&proxy, 4).await;
    let mut late = client(proxy.address()).await.unwrap();
    let refused = late.get("shop.test", "/").await.unwrap().unwrap();
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("5")), "{}", refused.text());
    // A flip in the pause lets nobody go, and a resume while the old slot drains lets all go at once.
    proxy.serve("shop", green.address()).await;
    assert_eq!(waiting(&proxy).await, 4);
    let resumed = Instant::now();
    assert_eq!(call(&proxy, "resume", json!({})).await["paused"], Value::Null);
    for visitor in &mut visitors {
        let answer = visitor.answer().await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "green"));
    }
    assert!(resumed.elapsed() < Duration::from_secs(1), "{:?}", resumed.elapsed());
    assert_eq!(late.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    let metrics = proxy.text("/metrics").await;
    assert!(metrics.contains("bgproxy_requests_held_total{service=\"shop\",slot=\"blue\"} 5\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_no_request_longer_than_told_and_ends_by_itself() {
    let blue = upstream("blue").await;
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    call(&proxy, "pause", json!({ "wait": "200ms", "lasts": "1s" })).await;
    let began = Instant::now();
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 503);
    assert!((0.2..0.9).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    // One pause after another: the first one's end is not the second one's.
    call(&proxy, "pause", json!({ "wait": "5s", "lasts": "1500ms" })).await;
    let again = Instant::now();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    assert!((1.4..3.0).contains(&again.elapsed().as_secs_f64()), "{:?}", again.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_of_a_service_under_maintenance_see_a_page_and_chosen_ones_the_application() {
    let blue = upstream("blue").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    let stage = json!({
        "endpoints": [blue.address()], "settings": { "domains": ["shop.test"] },
        "health": { "path": "/healthz", "interval": "10ms" },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", stage).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip("shop").await.status, 200);
    let page = json!({ "message": "back at 5 <soon>", "pass": "s3cret" });
    assert_eq!(call(&proxy, "maintenance", page).await["maintenance"]["message"], "back at 5 <soon>");
    // An operator's word outlives a kill of the proxy.
    for round in 0..2 {
        let mut visitor = client(proxy.address()).await.unwrap();
        let shown = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!((shown.status, shown.field("retry-after")), (503, Some("5")));
        assert!(shown.text().contains("back at 5 &lt;soon&gt;."), "round {round}: {}", shown.text());
        assert_eq!(visitor.get("shop.test", "/healthz").await.unwrap().unwrap().status, 200);
        visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\nCookie: a=b; bg-pass-shop=s3cret\r\n\r\n").await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().text(), "blue");
        proxy.kill();
        proxy.start().await;
    }
    call(&proxy, "maintenance", json!({ "allow": ["127.0.0.0/8"] })).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    call(&proxy, "maintenance", json!({ "message": "x" })).await;
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 503);
    assert_eq!(call(&proxy, "maintenance", json!({ "on": false })).await["maintenance"], Value::Null);
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
}

/// The commands, and a switch around whose flip visitors wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_held_around_the_flip_of_versions_that_cannot_serve_side_by_side() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let quick = Duration::from_millis(100);
    for version in ["v1", "v2"] {
        let running = (version == "v2")
            .then(|| load(site.address(), Load { slow: 1, pause: Duration::from_millis(2), ..Load::default() }));
        let switched = site.switch(&site.version(version, quick), &["--pause"]).end().await;
        assert_eq!(switched.code, Some(0), "{}", switched.talk);
        if let Some(running) = running {
            assert!(switched.report()["requests"]["held"].as_u64().unwrap() > 0, "{}", switched.report());
            running.stop().await.assert_none_failed();
        }
    }
    for (words, said) in [
        (&["pause", "shop"][..], "PAUSED: shop holds up to 1024 requests for 30s each; 0 in flight"),
        (&["resume", "shop"], "shop goes on: 0 requests let go"),
        (&["maintenance", "shop", "on", "--message", "soon"], "all of them: `--allow` and `--pass` let some in"),
        (
            &["maintenance", "shop", "on", "--allow", "10.0.0.0/8", "--pass"],
            "served all the same: 10.0.0.0/8, whoever sends the cookie below",
        ),
        (&["maintenance", "shop", "on"], "the way back: bgctl maintenance shop off --engine process"),
        (&["maintenance", "shop", "off"], "shop serves its visitors"),
    ] {
        let ended = site.bgctl(words).await;
        assert_eq!(ended.code, Some(0), "{}", ended.talk);
        assert!(ended.talk.contains(said), "{words:?}: {}", ended.talk);
    }
    // A request that does not end in time is not cut: the flip is not done, and visitors go on.
    let v2 = site.shop().await["live"].clone();
    let slow = load(
        site.address(),
        Load { keep_alive: 2, fresh: 0, posts: 0, slow: 1, slow_for: Duration::from_secs(4), ..Load::default() },
    );
    eventually("slow ones are under way", async || (slow.so_far().total > 50).then_some(())).await;
    let refused = site.switch(&site.version("v3", quick), &["--pause", "--drain", "300ms"]).end().await;
    assert_eq!(refused.code, Some(4), "{}", refused.talk);
    assert!(
        refused.talk.contains("did not end within 300ms") && refused.talk.contains("traffic still on"),
        "{}",
        refused.talk
    );
    assert_eq!(site.shop().await["live"], v2);
    slow.stop().await.assert_none_failed();
}
