//! Flips under load, on real sockets: the promises about traffic.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Behaviour, Load, eventually, is_soak, load, proxy, upstream};

/// S1 (without streams), S2 and S5: many flips in a row under steady load.
///
/// Of S3 it shows little: the old slot's log is read once, after the drain, and the first 100 ms after the flip are left
/// out. Proof needs the time at which each request began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_under_load_fail_no_request_send_none_twice_and_close_no_connection() {
    let (flips, requests) = if is_soak() { (200, 100_000) } else { (20, 5_000) };
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.stage("shop", blue.address()).await;
    assert_eq!(proxy.flip("shop").await.status, 200);
    let visitors = if is_soak() {
        Load { keep_alive: 64, fresh: 16, posts: 8, slow: 8, slow_for: Duration::from_secs(2), ..Load::default() }
    } else {
        Load { keep_alive: 16, fresh: 4, posts: 4, slow: 4, ..Load::default() }
    };
    let running = load(proxy.address(), visitors);
    let mut late = Vec::new();
    for flip in 1..=flips {
        let (old, new) = if flip % 2 == 1 { (&blue, &green) } else { (&green, &blue) };
        let staged = proxy.stage("shop", new.address()).await;
        assert_eq!(staged["event"], "healthy", "{staged}");
        let enough = requests * flip / flips;
        eventually("traffic between flips", async || (running.so_far().total >= enough).then_some(())).await;
        let flipped = proxy.flip("shop").await;
        let answered = Instant::now();
        assert_eq!(flipped.status, 200, "{flipped:?}");
        let drained = proxy.drain("shop").await;
        assert_eq!(drained["event"], "drained", "{drained}");
        assert_eq!((&drained["counts"]["failed"], &drained["counts"]["cut"]), (&json!(0), &json!(0)));
        // Arrival is seen by the application a little after the proxy sent it.
        let grace = Duration::from_millis(100);
        let visits = old.seen().into_iter().filter(|seen| seen.id.is_some() && seen.at > answered + grace);
        late.extend(visits.filter(|seen| seen.at < Instant::now()).map(|seen| (flip, seen.first_line)));
        assert!(late.is_empty(), "requests reached the old slot after the flip: {late:?}");
    }
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert!(verdict.total >= requests, "only {} requests", verdict.total);
    assert_eq!(verdict.closed, 0, "client connections were closed");
    assert!(verdict.versions.len() == 2, "both versions answered: {:?}", verdict.versions);
    let mut ids = HashSet::new();
    for seen in blue.seen().into_iter().chain(green.seen()).filter(|seen| seen.first_line.starts_with("POST")) {
        assert!(ids.insert(seen.id.clone()), "sent twice: {:?}", seen.id);
    }
    assert!(!ids.is_empty(), "no POST was sent");
}

/// S4: a drain ends with the last answer and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_is_said_when_the_slow_answer_has_ended_and_not_before() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.stage("shop", blue.address()).await;
    proxy.flip("shop").await;
    let slow =
        Load { keep_alive: 0, fresh: 0, posts: 0, slow: 1, slow_for: Duration::from_millis(700), ..Load::default() };
    let running = load(proxy.address(), slow);
    eventually("a slow request is under way", async || blue.seen().iter().any(|s| s.id.is_some()).then_some(())).await;
    proxy.stage("shop", green.address()).await;
    let flipped = proxy.flip("shop").await;
    assert_eq!(flipped.lines[0]["in_flight"], 1, "{flipped:?}");
    let drained = proxy.drain("shop").await;
    assert_eq!(drained["event"], "drained", "{drained}");
    assert!(drained["seconds"].as_f64().unwrap() > 0.05, "{drained}");
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
    assert_eq!(status.lines[0]["slots"]["blue"]["in_flight"], 0, "{status:?}");
    running.stop().await.assert_none_failed();
}

/// S8, for a 503: what is not healthy is not flipped to, and the reason is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_answers_503_is_refused_with_the_reason_and_the_old_one_serves_on() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    green.behave(Behaviour::Status(503));
    let proxy = proxy();
    proxy.stage("shop", blue.address()).await;
    proxy.flip("shop").await;
    let body = json!({ "endpoints": [green.address()], "deadline": "300ms", "health": { "interval": "20ms" } });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    let last = staged.lines.last().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&json!("error"), &json!("not_healthy")), "{last}");
    assert!(last["message"].as_str().unwrap().contains("503"), "{last}");
    let flipped = proxy.flip("shop").await;
    assert_eq!((flipped.status, &flipped.lines[0]["code"]), (409, &json!("not_healthy")), "{flipped:?}");
    let mut visitor = tests::client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().field("x-version"), Some("blue"));
}
