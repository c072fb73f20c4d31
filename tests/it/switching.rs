//! Flips under load, on real sockets: the promises about traffic.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Behaviour, Load, Proxy, Running, Upstream, client, eventually, is_soak, load, measured, proxy, upstream};

/// S1, S2, S3, S4 and S5: many flips in a row under steady load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_under_load_fail_no_request_send_none_twice_and_close_no_connection() {
    let (flips, requests) = if is_soak() { (200, 100_000) } else { (20, 5_000) };
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let visitors = if is_soak() {
        let slow_for = Duration::from_secs(2);
        Load { keep_alive: 64, fresh: 16, posts: 8, slow: 8, slow_for, streams: 8, ..Load::default() }
    } else {
        Load { keep_alive: 16, fresh: 4, posts: 4, slow: 4, streams: 4, ..Load::default() }
    };
    let running = load(proxy.address(), visitors);
    for flip in 1..=flips {
        let (old, new) = if flip % 2 == 1 { (&blue, &green) } else { (&green, &blue) };
        let staged = proxy.stage("shop", new.address()).await;
        assert_eq!(staged["event"], "healthy", "{staged}");
        flip_once(&proxy, &running, old, requests * flip / flips).await;
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
    let (total, failed, slowest) = (verdict.total, verdict.failed, verdict.slowest);
    measured("flips_under_load", &format!("{flips} flips, {total} requests, {failed} failed, slowest {slowest:?}"));
}

/// Flips away from `old`, drains it, and goes on until so many requests are answered in all.
async fn flip_once(proxy: &Proxy, running: &Running, old: &Upstream, until: u64) {
    let before = old.seen_count();
    let flipped = proxy.flip("shop").await;
    let answered = Instant::now();
    assert_eq!(flipped.status, 200, "{flipped:?}");
    let drained = proxy.drain("shop").await;
    // S4: what the application has not answered yet is in flight.
    assert_eq!((&drained["event"], old.unanswered()), (&json!("drained"), 0), "{drained}");
    assert_eq!((&drained["counts"]["failed"], &drained["counts"]["cut"]), (&json!(0), &json!(0)));
    eventually("traffic goes on after the flip", async || (running.so_far().total >= until).then_some(())).await;
    // S3: whatever else the old slot received meanwhile had begun before the flip was answered.
    let ids = old.seen_from(before).into_iter().filter_map(|seen| seen.id);
    let late: Vec<String> = ids.filter(|id| running.began(id) > answered).collect();
    assert!(late.is_empty(), "sent after the flip was answered, and received by the old slot: {late:?}");
}

/// S4: a drain ends with the last answer and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_is_said_when_the_slow_answer_has_ended_and_not_before() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let slow =
        Load { keep_alive: 0, fresh: 0, posts: 0, slow: 1, slow_for: Duration::from_millis(700), ..Load::default() };
    let running = load(proxy.address(), slow);
    eventually("a slow request is under way", async || (blue.unanswered() == 1).then_some(())).await;
    proxy.stage("shop", green.address()).await;
    eventually("a slow request is under way", async || (blue.unanswered() == 1).then_some(())).await;
    let flipped = proxy.flip("shop").await;
    assert_eq!(flipped.lines[0]["in_flight"], 1, "{flipped:?}");
    let drained = proxy.drain("shop").await;
    assert_eq!((&drained["event"], blue.unanswered()), (&json!("drained"), 0), "{drained}");
    assert!(drained["seconds"].as_f64().unwrap() > 0.05, "{drained}");
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
    assert_eq!(status.lines[0]["slots"]["blue"]["in_flight"], 0, "{status:?}");
    running.stop().await.assert_none_failed();
}

/// S10: what is counted of a switch is what the applications and the visitors saw of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_of_a_switch_is_what_the_applications_saw() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    let mut ask = async |times: usize| {
        for _ in 0..times {
            assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
        }
    };
    // Before the switch: not its affair.
    ask(5).await;
    proxy.stage("shop", green.address()).await;
    ask(7).await;
    let mut patient = client(proxy.address()).await.unwrap();
    patient.send("GET /slow/20000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (blue.unanswered() == 1).then_some(())).await;
    let flipped = proxy.call("POST", "/v1/services/shop/flip", json!({ "drain": "100ms" })).await;
    assert_eq!(flipped.status, 200, "{flipped:?}");
    ask(4).await;
    let drained = proxy.drain("shop").await;
    let counts = &drained["counts"];
    let visits = |app: &Upstream| app.seen().iter().filter(|seen| !seen.head.contains("bgproxy-health")).count();
    assert_eq!((visits(&blue), visits(&green)), (5 + 7 + 1, 4));
    let count = |what: &str| counts[what].as_u64().unwrap();
    assert_eq!((count("old"), count("new"), count("cut")), (7, 4, 1), "{drained}");
    assert_eq!((count("held"), count("retried"), count("failed")), (0, 0, 0), "{drained}");
    let answer = patient.answer().await;
    assert!(!matches!(&answer, Ok(Some(answer)) if answer.status == 200), "{answer:?}");
}

/// S8: what is not healthy is not flipped to, and the reason is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_not_healthy_is_refused_with_the_reason_and_the_old_one_serves_on() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    // A port that nobody listens on, while nobody else is given it.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    for (behaviour, address, reason) in [
        (Behaviour::Status(503), green.address(), "503"),
        (Behaviour::Redirect("http://elsewhere.test/login"), green.address(), "elsewhere.test"),
        (Behaviour::Hang, green.address(), "no answer"),
        (Behaviour::Close, green.address(), "closed"),
        (Behaviour::Answer, closed.local_addr().unwrap(), "refused"),
    ] {
        green.behave(behaviour.clone());
        let health = json!({ "interval": "20ms", "timeout": "100ms" });
        let body = json!({ "endpoints": [address], "deadline": "300ms", "health": health });
        let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
        let last = staged.lines.last().unwrap();
        assert_eq!((&last["event"], &last["code"]), (&json!("error"), &json!("not_healthy")), "{last}");
        assert!(said(last).contains(reason), "{behaviour:?}: {last}");
        let flipped = proxy.flip("shop").await;
        assert_eq!((flipped.status, &flipped.lines[0]["code"]), (409, &json!("not_healthy")), "{flipped:?}");
        assert!(said(&flipped.lines[0]).contains(reason), "{behaviour:?}: {flipped:?}");
        let mut visitor = client(proxy.address()).await.unwrap();
        assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().field("x-version"), Some("blue"));
    }
}

fn said(line: &Value) -> &str {
    line["message"].as_str().unwrap()
}

/// S9: one service flips all the time, the other notices nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flips_of_one_service_touch_neither_connections_nor_answers_of_another() {
    let (blue, green, bystander) = (upstream("blue").await, upstream("green").await, upstream("bystander").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    proxy.serve("other", bystander.address()).await;
    let visitors = Load { host: "other.test".to_owned(), posts: 0, slow: 0, fresh: 0, ..Load::default() };
    let running = load(proxy.address(), visitors.clone());
    // Each worker opens what it needs at first; afterwards the pool must last.
    let grown = async |until: u64| {
        eventually("traffic goes on", async || (running.so_far().total >= until).then_some(())).await;
        bystander.connections()
    };
    let before = grown(2_000).await;
    for flip in 1..=20 {
        let new = if flip % 2 == 1 { &green } else { &blue };
        proxy.serve("shop", new.address()).await;
    }
    let done = running.so_far().total;
    let after = grown(done + 2_000).await;
    let probes = bystander.seen().iter().filter(|seen| seen.id.is_none()).count();
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0);
    // A probe has a connection of its own; a pool may open one more where all are in use at once.
    let pooled = (before, after.saturating_sub(probes));
    assert!(pooled.1 <= visitors.keep_alive + 2, "the pool was dropped: {pooled:?} connections, {probes} probes");
    assert!(verdict.slowest < Duration::from_millis(500), "an answer took {:?}", verdict.slowest);
}

/// A client that takes nothing keeps no slot: at the drain deadline its answer is cut and counted, and others' are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_cut_at_the_drain_deadline_and_counted() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    blue.behave(Behaviour::Large(100 << 20));
    let mut stuck = client(proxy.address()).await.unwrap();
    stuck.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("the answer is under way", async || (blue.seen_count() > 1).then_some(())).await;
    let staged = proxy.stage("shop", green.address()).await;
    assert_eq!(staged["event"], "healthy", "{staged}");
    let flipped = proxy.call("POST", "/v1/services/shop/flip", json!({ "drain": "300ms" })).await;
    assert_eq!(flipped.lines[0]["in_flight"], 1, "{flipped:?}");
    let drained = proxy.drain("shop").await;
    assert_eq!((&drained["event"], &drained["counts"]["cut"]), (&json!("drained"), &json!(1)), "{drained}");
    let seconds = drained["seconds"].as_f64().unwrap();
    assert!((0.3..1.5).contains(&seconds), "{drained}");
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
    assert_eq!(status.lines[0]["slots"]["blue"]["in_flight"], 0, "{status:?}");
    assert!(stuck.answer().await.is_err(), "a cut answer does not look like a whole one");
}

/// A service that is removed takes no new request, and answers those that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_service_answers_what_it_has_before_it_is_gone() {
    let blue = upstream("blue").await;
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("GET /slow/300 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (blue.unanswered() == 1).then_some(())).await;
    let removed = proxy.call("DELETE", "/v1/services/shop", json!({ "drain": "5s" })).await;
    assert_eq!((removed.status, blue.unanswered()), (204, 0));
    assert_eq!(slow.answer().await.unwrap().unwrap().status, 200);
    let mut late = client(proxy.address()).await.unwrap();
    assert_eq!(late.get("shop.test", "/").await.unwrap().unwrap().status, 404);
}

/// A slot of several endpoints: a slow one gets less, and one that dies is not noticed.
/// What was reset without a byte of an answer goes to another endpoint, not to the same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_one_endpoint_breaks_off_silently_is_answered_by_another() {
    let (good, bad) = (upstream("good").await, upstream("bad").await);
    let proxy = proxy();
    let body = json!({
        "endpoints": [good.address(), bad.address()], "deadline": "5s",
        "settings": { "domains": ["shop.test"] }, "health": { "interval": "1m", "passes": 1 },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip("shop").await.status, 200);
    bad.behave(Behaviour::Close);
    for _ in 0..20 {
        let mut visitor = client(proxy.address()).await.unwrap();
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!((answer.status, answer.field("x-version")), (200, Some("good")));
    }
    assert!(!bad.seen().is_empty(), "it was never asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_of_several_endpoints_spreads_its_requests_and_loses_one_without_a_failure() {
    let (a, b, c) = (upstream("a").await, upstream("b").await, upstream("c").await);
    let proxy = proxy();
    let body = json!({
        "endpoints": [a.address(), b.address(), c.address()], "deadline": "5s",
        "settings": { "domains": ["shop.test"] }, "health": { "interval": "10ms" },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    assert_eq!(proxy.flip("shop").await.status, 200);
    a.behave(Behaviour::Late(Duration::from_millis(30)));
    // A POST under way when its endpoint dies is lost: nobody may send it twice.
    let visitors = Load { keep_alive: 16, fresh: 4, posts: 0, slow: 0, ..Load::default() };
    let running = load(proxy.address(), visitors);
    eventually("3000 requests", async || (running.so_far().total >= 3_000).then_some(())).await;
    let so_far = running.so_far().versions;
    assert!(so_far["a"] * 3 < so_far["b"] && so_far["a"] * 3 < so_far["c"], "the slow one gets less: {so_far:?}");
    assert!(so_far["b"] * 2 > so_far["c"] && so_far["c"] * 2 > so_far["b"], "the others alike: {so_far:?}");
    drop(c);
    let done = running.so_far().total;
    eventually("3000 more", async || (running.so_far().total >= done + 3_000).then_some(())).await;
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0);
}
