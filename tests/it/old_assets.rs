//! What a version lacks is asked of the other one for a while: after a flip, in a canary, and no longer than its slot is there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Behaviour, Proxy, Response, Upstream, client, eventually, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

const OLD: &str = "/assets/app.1111.js";
const NEW: &str = "/assets/app.2222.js";

/// Two versions, each without the other's assets.
async fn versions() -> (Upstream, Upstream) {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    green.behave_for(OLD, Behaviour::Status(404));
    blue.behave_for(NEW, Behaviour::Status(404));
    (blue, green)
}

async fn set(proxy: &Proxy) {
    let options = json!({ "old_assets": { "paths": ["/assets/*"], "minutes": 10 } });
    proxy.set_options(&["shop.test"], options).await;
}

async fn send(proxy: &Proxy, method: &str, target: &str, fields: &str) -> Response {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(format!("{method} {target} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")).await.unwrap();
    if method == "HEAD" { visitor.head_answer().await.unwrap() } else { visitor.answer().await.unwrap().unwrap() }
}

async fn get(proxy: &Proxy, target: &str) -> (u16, String) {
    let answer = send(proxy, "GET", target, "").await;
    (answer.status, answer.text())
}

fn is(status: u16, version: &str) -> (u16, String) {
    (status, version.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_page_gets_its_assets_after_a_flip_and_they_are_counted() {
    let ((blue, green), proxy) = (versions().await, proxy());
    proxy.serve("shop", blue.address()).await;
    proxy.serve("shop", green.address()).await;
    assert_eq!(get(&proxy, OLD).await, is(404, "green"), "nobody asked for it");
    set(&proxy).await;
    assert_eq!(get(&proxy, OLD).await, is(200, "blue"));
    let with_query = format!("{OLD}?v=1");
    green.behave_for(&with_query, Behaviour::Status(404));
    assert_eq!(get(&proxy, &with_query).await, is(200, "blue"), "a query is no part of the path");
    green.behave_for(OLD, Behaviour::Status(404));
    assert_eq!(send(&proxy, "HEAD", OLD, "").await.status, 200);
    assert_eq!(get(&proxy, NEW).await, is(200, "green"));
    // Neither has it, or the old one fails on it: it is what the new one says.
    for behaviour in [Behaviour::Status(404), Behaviour::Status(500), Behaviour::Redirect("/login"), Behaviour::Close] {
        blue.behave_for(OLD, behaviour.clone());
        assert_eq!(get(&proxy, OLD).await, is(404, "green"), "{behaviour:?}");
    }
    blue.behave_for(OLD, Behaviour::Answer);
    // Other paths and methods, and requests with a body, are the new version's alone.
    let before = blue.seen_count();
    assert_eq!(send(&proxy, "POST", OLD, "Content-Length: 0\r\n").await.status, 404);
    assert_eq!(send(&proxy, "GET", OLD, "Content-Length: 2\r\n\r\nhi").await.status, 404);
    green.behave_for("/page", Behaviour::Status(404));
    assert_eq!(get(&proxy, "/page").await, is(404, "green"));
    let asked = blue.seen_from(before).into_iter().filter(|seen| !seen.first_line.contains(" / ")).count();
    assert_eq!(asked, 0, "the old version was asked for what is not its own");

    let counts = proxy.drain("shop").await["counts"].clone();
    assert_eq!(
        (&counts["old_assets"], &counts["failed"], &counts["cut"]),
        (&json!(3), &json!(0), &json!(0)),
        "{counts}"
    );
    let metric = "bgproxy_old_assets_total{service=\"shop\",slot=\"blue\"} 3\n";
    eventually("they are counted", async || proxy.text("/metrics").await.contains(metric).then_some(())).await;
    // The slot has drained all the same.
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    assert_eq!(status["slots"]["blue"]["state"], "warm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_way_round_after_the_way_back_and_in_a_canary() {
    let ((blue, green), proxy) = (versions().await, proxy());
    proxy.serve("shop", blue.address()).await;
    set(&proxy).await;
    assert_eq!(get(&proxy, NEW).await, is(404, "blue"));
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    assert_eq!(get(&proxy, NEW).await, is(404, "blue"), "nobody has seen a page of the new version");
    let canary = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": 50 })).await;
    assert_eq!(canary.status, 200, "{canary:?}");
    // Whichever side a visitor is on, there is nothing that it does not get.
    for _ in 0..20 {
        assert_eq!(get(&proxy, OLD).await, is(200, "blue"));
        assert_eq!(get(&proxy, NEW).await, is(200, "green"));
    }
    proxy.flip("shop").await;
    assert_eq!((get(&proxy, OLD).await, get(&proxy, NEW).await), (is(200, "blue"), is(200, "green")));
    proxy.flip("shop").await;
    assert_eq!((get(&proxy, OLD).await, get(&proxy, NEW).await), (is(200, "blue"), is(200, "green")));
}

/// Takes what is in the idle slot away.
async fn clear(proxy: &Proxy) -> Value {
    let answer = proxy.call("POST", "/v1/services/shop/stage", json!({ "endpoints": [] })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.lines.last().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_cleared_is_asked_no_more_and_what_it_sends_is_waited_for() {
    let ((blue, green), proxy) = (versions().await, proxy());
    proxy.serve("shop", blue.address()).await;
    set(&proxy).await;
    proxy.serve("shop", green.address()).await;
    blue.behave_for(OLD, Behaviour::Slow { pieces: 4, pause: Duration::from_millis(150) });
    let mut visitor = client(proxy.address()).await.unwrap();
    let before = blue.seen_count();
    visitor.send(format!("GET {OLD} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await.unwrap();
    let is_there = || blue.seen_from(before).iter().any(|seen| seen.first_line.contains(OLD));
    eventually("the old version is asked", async || is_there().then_some(())).await;
    clear(&proxy).await;
    // Now its container may be stopped: nothing of ours is on it.
    assert_eq!(blue.unanswered(), 0);
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    assert_eq!(get(&proxy, OLD).await, is(404, "green"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_proxy_forgets_nothing_of_it() {
    let (blue, green) = versions().await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    set(&proxy).await;
    proxy.serve("shop", green.address()).await;
    proxy.drain("shop").await;
    proxy.kill();
    proxy.start().await;
    eventually("the old version is asked again", async || (get(&proxy, OLD).await == is(200, "blue")).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_version_that_hangs_keeps_nobody_waiting_for_long() {
    let ((blue, green), proxy) = (versions().await, proxy());
    proxy.serve("shop", blue.address()).await;
    set(&proxy).await;
    proxy.serve("shop", green.address()).await;
    blue.behave_for(OLD, Behaviour::Hang);
    let began = Instant::now();
    assert_eq!(get(&proxy, OLD).await, is(404, "green"));
    let waited = began.elapsed();
    assert!((4..15).contains(&waited.as_secs()), "{waited:?}");
    // Nothing is left behind on either slot.
    eventually("nothing is in flight", async || {
        let slots = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0)["slots"].clone();
        (slots["blue"]["in_flight"] == 0 && slots["green"]["in_flight"] == 0).then_some(())
    })
    .await;
}
