//! F2 and F3: a new version that dies or does badly right after its flip is taken back by the proxy itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Answer, Behaviour, Load, Proxy, Site, client, eventually, load, measured, proxy, upstream};

use crate::programs::PROGRAMS;

/// Stages an address and flips to it with a bake.
async fn serve_and_watch(proxy: &Proxy, address: std::net::SocketAddr, flip: Value) {
    let staged = proxy.stage("shop", address).await;
    assert_eq!(staged["event"], "healthy", "{staged}");
    let flipped = proxy.call("POST", "/v1/services/shop/flip", flip).await;
    assert_eq!(flipped.status, 200, "{flipped:?}");
}

/// Waits for the end of drain and bake, and returns the last line.
async fn end_of_bake(proxy: &Proxy) -> Value {
    let answer = proxy.call("POST", "/v1/services/shop/drain", json!({ "slot": "blue", "bake": true })).await;
    answer.lines.last().cloned().unwrap()
}

async fn status(proxy: &Proxy) -> Value {
    let Answer { lines, .. } = proxy.call("GET", "/v1/services/shop", json!({})).await;
    lines[0].clone()
}

/// Asserts that a dead version was left within 100 ms of the first failed request or probe; returns how long that was. By the
/// proxy's own clock, so that a machine that has much else to do counts for nothing but the proxy itself.
pub(crate) fn left_at_once(flipped_back: &Value) -> Duration {
    let micros = flipped_back["failing_micros"].as_u64();
    let failing = Duration::from_micros(micros.unwrap_or_else(|| panic!("it is told: {flipped_back}")));
    assert!(failing < Duration::from_millis(100), "{failing:?} after the first failure: {flipped_back}");
    failing
}

/// F2: nobody notices that the new version dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_dies_in_its_bake_is_left_within_moments_and_no_get_fails() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let visitors = Load { posts: 0, slow: 0, ..Load::default() };
    let running = load(proxy.address(), visitors);
    serve_and_watch(&proxy, green.address(), json!({ "bake": "20s" })).await;
    eventually("the new version answers", async || (green.seen_count() > 500).then_some(())).await;
    assert_eq!(status(&proxy).await["bake"]["back"], "blue");
    let (before, died) = (blue.seen_count(), Instant::now());
    drop(green);
    let end = end_of_bake(&proxy).await;
    let took = died.elapsed();
    assert_eq!(
        (&end["event"], &end["verdict"], &end["live"], &end["left"]),
        (&json!("flipped_back"), &json!("dead"), &json!("blue"), &json!("green")),
        "{end}"
    );
    assert!(end["reason"].as_str().unwrap().contains("connection refused"), "{end}");
    assert_eq!(end["counts"]["failed"], 0, "{end}");
    assert!(end["counts"]["retried"].as_u64().unwrap() > 0, "{end}");
    eventually("the old version answers all", async || (blue.seen_count() > before + 500).then_some(())).await;
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    let failing = left_at_once(&end);
    let (total, slowest) = (verdict.total, verdict.slowest);
    measured(
        "a_version_that_dies",
        &format!(
            "back {failing:?} after the first failure, told {took:?} after its death; {total} requests, slowest {slowest:?}"
        ),
    );
    let status = status(&proxy).await;
    assert_eq!((&status["live"], &status["bake"]), (&json!("blue"), &Value::Null), "{status}");
}

/// Without a single request the probes find it out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_dies_unseen_is_left_too_and_its_routes_with_it() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let body = json!({
        "endpoints": [green.address()], "deadline": "5s", "health": { "interval": "10ms" },
        "settings": { "domains": ["shop.test", "new.test"] },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    let flipped = proxy.call("POST", "/v1/services/shop/flip", json!({ "bake": "20s" })).await;
    assert_eq!(flipped.status, 200, "{flipped:?}");
    let routed = async |host: &str| {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.get(host, "/").await.unwrap().unwrap().status
    };
    assert_eq!(routed("new.test").await, 200);
    drop(green);
    let end = end_of_bake(&proxy).await;
    assert_eq!((&end["event"], &end["verdict"]), (&json!("flipped_back"), &json!("dead")), "{end}");
    left_at_once(&end);
    assert_eq!((routed("shop.test").await, routed("new.test").await), (200, 404));
}

/// F3: a fifth of errors where there were none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_answers_badly_is_left_and_an_equally_good_one_stays() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let running = load(proxy.address(), Load { slow: 0, pause: Duration::from_millis(2), ..Load::default() });
    eventually("there is a baseline", async || (blue.seen_count() > 500).then_some(())).await;
    serve_and_watch(&proxy, green.address(), json!({ "bake": "20s" })).await;
    green.behave(Behaviour::Sometimes { status: 500, one_in: 5 });
    let since = Instant::now();
    let end = end_of_bake(&proxy).await;
    let took = since.elapsed();
    assert_eq!((&end["event"], &end["verdict"]), (&json!("flipped_back"), &json!("bad")), "{end}");
    assert!(end["reason"].as_str().unwrap().contains("requests failed, and of the old version's 0 of"), "{end}");
    assert_eq!(end["failing_micros"], Value::Null, "it answers: {end}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    measured("a_version_that_answers_badly", &format!("left after {took:?}: {}", end["reason"]));
    green.behave(Behaviour::Answer);
    serve_and_watch(&proxy, green.address(), json!({ "bake": "1500ms" })).await;
    let end = end_of_bake(&proxy).await;
    assert_eq!((&end["event"], &end["live"]), (&json!("baked"), &json!("green")), "{end}");
    running.stop().await;
}

/// What could be answered is, and nothing is done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_bake_the_old_version_answers_what_may_be_repeated_and_nothing_else() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    serve_and_watch(&proxy, green.address(), json!({ "bake": "2s" })).await;
    // It answers its probes, so it is not dead: only what visitors send breaks.
    green.behave_for("/break", Behaviour::Reset);
    let ask = async |head: &str, body: &str| {
        let mut visitor = client(proxy.address()).await.unwrap();
        let length = body.len();
        let request = format!("{head} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}");
        visitor.send(request).await.unwrap();
        let answer = visitor.answer().await.unwrap().unwrap();
        (answer.status, answer.field("x-version").map(str::to_owned), answer.field("x-body-bytes").map(str::to_owned))
    };
    let from_blue = |bytes: usize| (200, Some("blue".to_owned()), Some(bytes.to_string()));
    assert_eq!(ask("GET /break", "").await, from_blue(0));
    assert_eq!(ask("PUT /break", &"x".repeat(60_000)).await, from_blue(60_000));
    // Longer than what is kept, and not repeatable: the visitor is told.
    assert_eq!(ask("PUT /break", &"x".repeat(70_000)).await.0, 502);
    assert_eq!(ask("POST /break", "pay").await.0, 502);
    let posts = blue.seen().iter().filter(|seen| seen.first_line.starts_with("POST")).count();
    assert_eq!(posts, 0, "a POST went to both");
    let end = end_of_bake(&proxy).await;
    assert_eq!((&end["event"], &end["counts"]["failed"]), (&json!("baked"), &json!(2)), "{end}");
    assert!(end["counts"]["retried"].as_u64().unwrap() >= 2, "{end}");
    // The bake is over: nobody goes back any more.
    assert_eq!(ask("GET /break", "").await.0, 502);
}

/// F2 as the operator sees it: the kill of a new version right after its flip ends the switch with exit code 4, and everything
/// is as it was before it, the way back of the version that serves included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_to_a_version_that_dies_in_its_bake_says_so_and_leaves_everything_as_it_was() {
    const QUICK: Duration = Duration::from_millis(100);
    let site = Site::new(PROGRAMS);
    site.up().await;
    for version in ["v1", "v2"] {
        let ended = site.switch(&site.version(version, QUICK), &[]).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.talk);
    }
    let before = site.processes();
    let load = load(site.address(), Load { posts: 0, slow: 0, ..Load::default() });
    let v3 = site.script("v3", &format!("echo no license >&2; exec '{}' v3 100", PROGRAMS.app));
    let mut switch = site.switch(&v3, &["--bake", "30s"]);
    switch.until("flipped").await;
    // As the promise has it: one second after the flip, when everybody is there.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(load.so_far().versions.contains_key("v3"));
    site.kill(" v3 ");
    let back = switch.until("flipped_back").await;
    measured("a_switch_to_a_version_that_dies", &format!("back {:?} after the first failure", left_at_once(&back)));
    assert_eq!((&back["live"], &back["verdict"]), (&json!("green"), &json!("dead")), "{back}");
    let ended = switch.end().await;
    assert_eq!((ended.code, &ended.report()["exit_code"]), (Some(4), &json!(4)), "{}", ended.talk);
    for words in [
        "shop on BLUE was flipped back: nothing answers there",
        "connection refused",
        "no license",
        "traffic still on GREEN",
    ] {
        assert!(ended.talk.contains(words), "`{words}` is not said in: {}", ended.talk);
    }
    load.stop().await.assert_none_failed();
    let shop = site.shop().await;
    assert_eq!((&shop["live"], &shop["slots"]["blue"]["state"]), (&json!("green"), &json!("empty")), "{shop}");
    assert_eq!(site.processes(), before, "what was started is gone");
    let rolled = site.bgctl(&["rollback", "shop"]).await;
    assert_eq!(rolled.code, Some(0), "{}", rolled.talk);
    let mut visitor = client(site.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().field("x-version"), Some("v1"));
}
