//! Several instances of a version: switched, gone back to, killed and settled together, under load.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{Behaviour, Ended, Load, Site, Upstream, client, eventually, load, proxy, upstream};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);

/// Load that leaves the machine some time.
fn busy() -> Load {
    Load { pause: Duration::from_millis(2), ..Load::default() }
}

/// A site where v1 serves, with so many replicas.
async fn site_with_v1(replicas: &str) -> Site {
    let site = Site::new(PROGRAMS);
    site.up().await;
    said(&site.switch(&site.version("v1", QUICK), &["--replicas", replicas]).end().await, 0, &["LIVE: shop on BLUE"]);
    site
}

/// Who answers a visitor.
async fn answered(site: &Site) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

/// The instances of a version that run.
fn running(site: &Site, version: &str) -> Vec<Pid> {
    let words = format!(" {version} ");
    site.processes().into_iter().filter(|(_, line)| line.contains(&words)).map(|(id, _)| id).collect()
}

/// How many endpoints a slot has, and how many of them are healthy.
async fn endpoints(site: &Site, slot: &str) -> (usize, usize) {
    let shop = site.shop().await;
    let all = shop["slots"][slot]["endpoints"].as_array().unwrap().clone();
    (all.len(), all.iter().filter(|endpoint| endpoint["healthy"] == true).count())
}

fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
}

/// Counted as a visitor sees it: each of the replicas answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_become_three_and_are_gone_back_to_under_load_without_a_failed_request() {
    let site = site_with_v1("2").await;
    assert_eq!((endpoints(&site, "blue").await, running(&site, "v1").len()), ((2, 2), 2));
    let load = load(site.address(), busy());
    let v2 = site.switch(&site.version("v2", QUICK), &["--replicas", "3"]).end().await;
    said(&v2, 0, &["started shop_GREEN from", "started shop_GREEN_2 from", "started shop_GREEN_3 from"]);
    assert_eq!((&v2.report()["replicas"], &v2.report()["requests"]["failed"]), (&json!(3), &json!(0)));
    assert_eq!((endpoints(&site, "green").await, running(&site, "v2").len()), ((3, 3), 3));
    assert_eq!(running(&site, "v1").len(), 0, "both were stopped");

    // Remembered, as every other setting is; and what would be done is said.
    let shown = site.start(&["switch", "shop", "--image", &site.version("v3", QUICK), "--dry-run"]).end().await;
    assert_eq!(shown.events[0]["settings"]["replicas"], 3, "{shown:?}");
    assert!(shown.events[0]["steps"].to_string().contains("create and start 3 replicas"), "{shown:?}");
    let v3 = site.switch(&site.version("v3", QUICK), &[]).end().await;
    said(&v3, 0, &["LIVE: shop on BLUE"]);
    assert_eq!((endpoints(&site, "blue").await, running(&site, "v3").len()), ((3, 3), 3));

    let back = site.bgctl(&["rollback", "shop"]).await;
    said(&back, 0, &["started shop_GREEN_3", "LIVE: shop on GREEN"]);
    assert_eq!((running(&site, "v2").len(), running(&site, "v3").len()), (3, 0));
    let warm = site.switch(&site.version("v4", QUICK), &["--replicas", "2", "--keep", "warm"]).end().await;
    said(&warm, 0, &["LIVE: shop on BLUE"]);
    assert_eq!((running(&site, "v2").len(), running(&site, "v4").len()), (3, 2));
    let back = site.bgctl(&["rollback", "shop"]).await;
    said(&back, 0, &["LIVE: shop on GREEN"]);
    assert_eq!(back.report()["healthy_seconds"], Value::Null, "a pure flip");
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");

    let reset = site.start(&["switch", "shop", "--reset", "--dry-run"]).end().await;
    assert_eq!(reset.events[0]["settings"]["replicas"], 1, "{reset:?}");
    let logs = site.bgctl(&["logs", "shop"]).await;
    let wrote = |name: &str| logs.events.iter().any(|line| line["instance"] == name && line["line"] == "v2 is ready");
    assert!(["shop_GREEN", "shop_GREEN_2", "shop_GREEN_3"].into_iter().all(wrote), "{logs:?}");
    let third = site.bgctl(&["logs", "shop", "--replica", "3"]).await;
    assert!(third.events.contains(&json!({ "line": "v2 is ready" })), "{third:?}");
    let status = site.bgctl_plain(&["status", "shop"]).await;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("3 healthy"), "{status}");
    said(&site.bgctl(&["--yes", "rm", "shop"]).await, 0, &["removed shop_GREEN_3", "removed shop_BLUE_2"]);
    assert_eq!(site.processes().len(), 1, "the proxy, and nothing else: {:?}", site.processes());
}

/// One is enough to undo them all, and it is said which one, with its own last words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_that_never_gets_healthy_undoes_all_of_them() {
    let site = site_with_v1("2").await;
    said(&site.switch(&site.version("v2", QUICK), &[]).end().await, 0, &["LIVE: shop on GREEN"]);
    let load = load(site.address(), busy());
    let folder = tempfile::tempdir().unwrap();
    for (number, (last, words)) in [
        ("exec sleep 600", ["did not become healthy", "connection refused"]),
        ("exit 3", ["exited with code 3", "the last log lines of shop_BLUE"]),
    ]
    .into_iter()
    .enumerate()
    {
        // Whoever comes first serves; the others don't.
        let flag = folder.path().join(number.to_string());
        let v3 = site.version("v3", QUICK);
        let one =
            site.script("one", &format!("mkdir '{}' && exec '{v3}'\necho no room for me >&2; {last}", flag.display()));
        let failed = site.switch(&one, &["--replicas", "3", "--deadline", "2s"]).end().await;
        said(&failed, 5, &["| no room for me", "traffic still on GREEN"]);
        said(&failed, 5, &words);
        assert!(!failed.talk.contains("v3 is ready"), "the one that is well is not to blame: {}", failed.talk);
        assert_eq!((answered(&site).await, running(&site, "v2").len()), ("v2".to_owned(), 2));
        assert_eq!(site.processes().len(), 3, "{:?}", site.processes());
        let log = site.bgctl(&["logs", "shop", "--failed"]).await;
        assert!(log.events.contains(&json!({ "line": "== shop_BLUE_3" })), "{log:?}");
    }
    // What there was to go back to is there still, all of it.
    said(&site.bgctl(&["rollback", "shop"]).await, 0, &["LIVE: shop on BLUE"]);
    assert_eq!((answered(&site).await, running(&site, "v1").len()), ("v1".to_owned(), 2));
    load.stop().await.assert_none_failed();
}

/// F4, with several instances at every step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_of_replicas_that_is_killed_at_a_step_is_settled_by_the_next_run() {
    // Side by side, as each waits for the lease of the dead one to run out.
    tokio::join!(
        killed_at("park", "begun", "v2"),
        killed_at("create", "begun", "v2"),
        killed_at("stage", "begun", "v2"),
        killed_at("flip", "done", "v3"),
        killed_at("put_away", "begun", "v3"),
    );
}

async fn killed_at(step: &str, state: &str, live: &str) {
    let told = format!("killed at {step} {state}");
    let site = site_with_v1("2").await;
    said(&site.switch(&site.version("v2", QUICK), &[]).end().await, 0, &["LIVE: shop on GREEN"]);
    let load = load(site.address(), Load { pause: Duration::from_millis(20), slow: 0, ..busy() });
    let mut switch = site.switch(&site.version("v3", QUICK), &["--replicas", "3"]);
    loop {
        let event = switch.until("step").await;
        if event["step"] == step && event["state"] == state {
            break;
        }
    }
    switch.signal(Signal::KILL);
    assert_eq!(switch.end().await.code, None, "{told}");
    let recovered = site.bgctl(&["recover", "shop", "--lock-wait", "40s"]).await;
    said(&recovered, 0, &["was left open"]);
    assert_eq!(answered(&site).await, live, "{told}: {}", recovered.talk);
    let replicas = if live == "v3" { 3 } else { 2 };
    eventually(&told, async || {
        (running(&site, live).len() == replicas && site.processes().len() == replicas + 1).then_some(())
    })
    .await;
    let back = site.bgctl(&["rollback", "shop"]).await;
    said(&back, 0, &["LIVE: shop on "]);
    let before = if live == "v3" { "v2" } else { "v1" };
    assert_eq!((answered(&site).await.as_str(), running(&site, before).len()), (before, 2), "{told}: {}", back.talk);
    load.stop().await.assert_none_failed();
}

/// The others answer what it can't, and it is tried no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_under_load_fails_no_get() {
    let site = site_with_v1("3").await;
    let load = load(site.address(), Load { posts: 0, slow: 0, ..busy() });
    eventually("they answer", async || (load.so_far().total > 500).then_some(())).await;
    let killed = running(&site, "v1")[1];
    kill_process(killed, Signal::KILL).unwrap();
    eventually("a probe finds it dead", async || (endpoints(&site, "blue").await == (3, 2)).then_some(())).await;
    let so_far = load.so_far().total;
    eventually("the others go on", async || (load.so_far().total > so_far + 500).then_some(())).await;
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    tests::measured("a_replica_that_is_killed", &format!("{} requests, slowest {:?}", verdict.total, verdict.slowest));
    let status = site.bgctl_plain(&["status", "shop"]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("2 of 3 healthy: "), "{status:?}");
    // The next version has as many as were wanted of this one.
    said(&site.switch(&site.version("v2", QUICK), &[]).end().await, 0, &["LIVE: shop on GREEN"]);
    assert_eq!(running(&site, "v2").len(), 3);
}

/// From one to three, to two, and back to one; whoever stays serves all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_slot_is_scaled_up_and_down_under_load_without_a_failed_request() {
    let site = site_with_v1("1").await;
    let first = running(&site, "v1");
    let load = load(site.address(), Load { slow_for: Duration::from_millis(700), ..busy() });
    for (wanted, words) in [
        (
            "3",
            &["started shop_BLUE_2", "started shop_BLUE_3", "SCALED: shop serves with 3 replicas on BLUE, 1 before"][..],
        ),
        ("2", &["stopped and removed shop_BLUE_3", "SCALED: shop serves with 2 replicas on BLUE, 3 before"]),
        ("2", &["SCALED: shop serves with 2 replicas on BLUE, as before"]),
        ("1", &["SCALED: shop serves with 1 replica on BLUE, 2 before"]),
        ("2", &["SCALED: shop serves with 2 replicas on BLUE, 1 before"]),
    ] {
        let scaled = site.bgctl(&["scale", "shop", wanted]).await;
        said(&scaled, 0, words);
        assert_eq!(
            (&scaled.events[0]["replicas"].to_string()[..], &scaled.events[0]["in_flight"]),
            (wanted, &json!(0))
        );
        let count: usize = wanted.parse().unwrap();
        assert_eq!((endpoints(&site, "blue").await, running(&site, "v1").len()), ((count, count), count));
        assert!(running(&site, "v1").contains(&first[0]), "the first one was never touched");
        let so_far = load.so_far().total;
        eventually("they answer", async || (load.so_far().total > so_far + 200).then_some(())).await;
    }
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");
    tests::measured("scaled_up_and_down", &format!("{} requests, slowest {:?}", verdict.total, verdict.slowest));
    for wrong in ["0", "-1", "many"] {
        let refused = site.bgctl(&["scale", "shop", wrong]).await;
        assert_eq!(refused.code, Some(1), "{}", refused.talk);
    }
    assert_eq!(site.bgctl(&["scale", "nobody", "2"]).await.code, Some(1));
    // The next version has as many; and all of them are gone back to.
    said(&site.switch(&site.version("v2", QUICK), &[]).end().await, 0, &["LIVE: shop on GREEN"]);
    assert_eq!(running(&site, "v2").len(), 2);
    said(&site.bgctl(&["rollback", "shop"]).await, 0, &["LIVE: shop on BLUE"]);
    assert_eq!(running(&site, "v1").len(), 2);
    let history = site.bgctl(&["history", "shop"]).await;
    assert_eq!(
        (&history.events[0]["entries"][2]["what"], &history.events[0]["entries"][2]["outcome"]),
        (&json!("scale to 2"), &json!("done"))
    );
}

/// As with a switch: it is undone, said which one and why, and kept for `logs --failed`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_never_gets_healthy_is_taken_back_and_the_others_go_on() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let (v1, flag) = (site.version("v1", QUICK), folder.path().join("first"));
    // Whoever comes first serves; what becomes of the others is in a file.
    let then = folder.path().join("then");
    let line = format!("mkdir '{}' && exec '{v1}'\necho no room for me >&2; . '{}'", flag.display(), then.display());
    let image = site.script("one", &line);
    said(&site.switch(&image, &["--deadline", "2s"]).end().await, 0, &["LIVE: shop on BLUE"]);
    let load = load(site.address(), busy());
    for (last, words) in [("exec sleep 600", "did not become healthy in time"), ("exit 3", "exited with code 3")] {
        std::fs::write(&then, last).unwrap();
        let failed = site.bgctl(&["scale", "shop", "3"]).await;
        said(&failed, 5, &[words, "| no room for me", "traffic still on BLUE, with 1 replica as before"]);
        assert_eq!((endpoints(&site, "blue").await, site.processes().len()), ((1, 1), 2), "{}", failed.talk);
        let log = site.bgctl(&["logs", "shop", "--failed"]).await;
        assert!(log.events.contains(&json!({ "line": "no room for me" })), "{log:?}");
    }
    // Ctrl-C undoes it as well.
    std::fs::write(&then, "exec sleep 600").unwrap();
    let scale = site.start(&["scale", "shop", "2"]);
    eventually("it is tried", async || (endpoints(&site, "blue").await == (2, 1)).then_some(())).await;
    scale.signal(Signal::INT);
    said(&scale.end().await, 130, &["interrupted", "traffic still on BLUE"]);
    assert_eq!((endpoints(&site, "blue").await, site.processes().len()), ((1, 1), 2));
    load.stop().await.assert_none_failed();
}

/// F4 for `scale`: up and down, and the next run knows what to make of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_that_is_killed_is_undone_or_finished_by_the_next_run() {
    tokio::join!(killed_on_the_way_up(true), killed_on_the_way_up(false), killed_on_the_way_down());
}

async fn killed_on_the_way_up(finished: bool) {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let late = if finished { site.version("v1", Duration::from_secs(2)) } else { "sleep 600".to_owned() };
    let v1 = site.version("v0", QUICK);
    let flag = folder.path().join("first");
    let image = site.script("one", &format!("mkdir '{}' && exec '{v1}'\nexec {late}", flag.display()));
    said(&site.switch(&image, &[]).end().await, 0, &["LIVE: shop on BLUE"]);
    let load = load(site.address(), Load { pause: Duration::from_millis(20), ..Load::default() });
    let scale = site.start(&["scale", "shop", "3"]);
    eventually("they are tried", async || (endpoints(&site, "blue").await.0 == 3).then_some(())).await;
    scale.signal(Signal::KILL);
    assert_eq!(scale.end().await.code, None);
    let recovered = site.bgctl(&["recover", "shop", "--lock-wait", "40s"]).await;
    said(&recovered, 0, &["scale to 3 by ", "was left open", if finished { "finished" } else { "undone" }]);
    // What became healthy by itself meanwhile stays.
    let count = if finished { 3 } else { 1 };
    assert_eq!((endpoints(&site, "blue").await, site.processes().len()), ((count, count), count + 1));
    load.stop().await.assert_none_failed();
}

async fn killed_on_the_way_down() {
    let site = site_with_v1("3").await;
    let slow = Load { keep_alive: 0, fresh: 0, posts: 0, slow: 6, slow_for: Duration::from_secs(3), ..Load::default() };
    let load = load(site.address(), slow);
    eventually("all are under way", async || (site.shop().await["slots"]["blue"]["in_flight"] == 6).then_some(()))
        .await;
    let scale = site.start(&["scale", "shop", "1"]);
    eventually("they take no more", async || (endpoints(&site, "blue").await.0 == 1).then_some(())).await;
    assert_eq!(running(&site, "v1").len(), 3, "what is under way there is waited for");
    scale.signal(Signal::KILL);
    assert_eq!(scale.end().await.code, None);
    load.stop().await.assert_none_failed();
    let again = site.bgctl(&["scale", "shop", "2", "--lock-wait", "40s"]).await;
    said(&again, 0, &["scale to 1 by ", "was left open", "SCALED: shop serves with 2 replicas on BLUE, 1 before"]);
    assert_eq!((endpoints(&site, "blue").await, running(&site, "v1").len()), ((2, 2), 2));
}

/// The same number again brings back whoever died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_died_is_started_again_by_scale() {
    let site = site_with_v1("3").await;
    let load = load(site.address(), Load { posts: 0, slow: 0, ..busy() });
    kill_process(running(&site, "v1")[2], Signal::KILL).unwrap();
    eventually("it is noticed", async || (endpoints(&site, "blue").await == (3, 2)).then_some(())).await;
    let scaled = site.bgctl(&["scale", "shop", "3"]).await;
    said(&scaled, 0, &["started shop_BLUE", "SCALED: shop serves with 3 replicas on BLUE, as before"]);
    assert_eq!((endpoints(&site, "blue").await, running(&site, "v1").len()), ((3, 3), 3));
    load.stop().await.assert_none_failed();
}

/// The proxy by itself: what is under way on an endpoint that is taken out is waited for, and counted where it takes too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_on_an_endpoint_that_is_taken_out_is_waited_for() {
    let (a, b) = (upstream("a").await, upstream("b").await);
    let proxy = proxy();
    proxy.serve("shop", a.address()).await;
    let change = async |list: &[&Upstream], drain: &str| {
        let list: Vec<String> = list.iter().map(|app| app.address().to_string()).collect();
        let body = json!({ "endpoints": list, "drain": drain, "deadline": "2s" });
        proxy.call("POST", "/v1/services/shop/endpoints", body).await
    };
    let status = async || proxy.call("GET", "/v1/services/shop", Value::Null).await.lines[0].clone();
    let load = load(proxy.address(), Load { slow: 6, slow_for: Duration::from_millis(1500), ..busy() });
    for (drain, takes_too_long) in [("10s", false), ("100ms", true)] {
        let more = change(&[&a, &b], drain).await;
        assert_eq!(more.lines.last().unwrap()["event"], "endpoints", "{more:?}");
        eventually("both have slow ones", async || (b.unanswered() > 0).then_some(())).await;
        // Fast ones come and go; a slow one is there for long.
        eventually("a slow one is on it", async || {
            let seen = b.seen();
            let slow = seen.iter().rev().take(50).find(|seen| seen.first_line.contains("/slow/"));
            slow.is_some_and(|seen| seen.at.elapsed() < Duration::from_millis(200)).then_some(())
        })
        .await;
        let fewer = change(&[&a], drain).await;
        let last = fewer.lines.last().unwrap();
        assert_eq!(last["event"], "endpoints", "{fewer:?}");
        assert_eq!(last["in_flight"].as_u64().unwrap() > 0, takes_too_long, "{fewer:?}");
        let seen = b.seen_count();
        let so_far = load.so_far().total;
        eventually("the other goes on", async || (load.so_far().total > so_far + 200).then_some(())).await;
        let probes = b.seen_from(seen).into_iter().filter(|seen| seen.id.is_some()).count();
        assert_eq!(probes, 0, "it gets no new requests");
    }
    // A third that never answers well stays out of it.
    let c = upstream("c").await;
    c.behave(Behaviour::Status(500));
    let sick = change(&[&a, &c], "1s").await;
    assert_eq!(sick.lines.last().unwrap()["code"], "not_healthy", "{sick:?}");
    assert_eq!(status().await["slots"]["blue"]["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(change(&[&a], "1s").await.lines.last().unwrap()["in_flight"], 0);
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.versions.keys().collect::<Vec<_>>(), ["a", "b"]);
    for (list, words) in [(vec![], "at least one"), (vec![&a, &a], "twice")] {
        let refused = change(&list, "1s").await;
        assert!(refused.status == 400 && refused.lines[0]["message"].as_str().unwrap().contains(words), "{refused:?}");
    }
    assert_eq!(change(&[&a, &b], "1s").await.status, 200);
    let moved = change(&[&b, &a], "1s").await;
    assert!(moved.lines[0]["message"].as_str().unwrap().contains("at the end of the list"), "{moved:?}");
}
