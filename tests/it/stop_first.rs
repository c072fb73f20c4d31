//! `switch --stop-first`: versions that can't run side by side, since each takes the same lock, one after the other.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Ended, Load, Site, client, eventually, load, measured};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(600);

/// A version that ends at once with code 1 where another one runs.
fn alone(site: &Site, name: &str, loading: Duration) -> String {
    let version = site.version(&format!("{name}-itself"), loading);
    site.script(name, &format!("exec flock --nonblock --no-fork '{}' '{version}'", lock(&version, name)))
}

/// The file that all versions lock.
fn lock(version: &str, name: &str) -> String {
    version.strip_suffix(&format!("/{name}-itself")).unwrap().to_owned() + "/lock"
}

/// A site where v1 serves, and nothing else can meanwhile.
async fn site_with_v1() -> Site {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let first = site.switch(&alone(&site, "v1", QUICK), &["--stop-first"]).end().await;
    said(&first, 0, &["LIVE: shop on BLUE"]);
    assert!(!first.talk.contains("visitors wait"), "there was nothing to stop: {}", first.talk);
    site
}

async fn answered(site: &Site) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
}

fn calm() -> Load {
    Load { pause: Duration::from_millis(5), ..Load::default() }
}

/// They wait, and none of them is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_version_is_stopped_before_the_new_one_starts_while_visitors_wait() {
    let site = site_with_v1().await;
    let load = load(site.address(), calm());
    let folder = tempfile::tempdir().unwrap();
    // What goes before can't run beside the old version either.
    let lock = lock(&site.version("v2-itself", QUICK), "v2");
    let ran = folder.path().join("ran");
    let before = format!("flock --nonblock '{lock}' touch '{}'", ran.display());
    let v2 = site.switch(&alone(&site, "v2", QUICK), &["--before", &before, "--bake", "30s"]).end().await;
    said(&v2, 0, &["visitors wait from now on", "stopped shop_BLUE", "LIVE: shop on GREEN", "visitors wait no more"]);
    let report = v2.report();
    assert_eq!(
        (&report["kept"], &report["requests"]["failed"], &report["requests"]["cut"]),
        (&json!("stopped"), &json!(0), &json!(0))
    );
    assert!(ran.exists(), "it could take the lock");
    let back = site.bgctl(&["rollback", "shop"]).await;
    said(&back, 0, &["visitors wait from now on", "stopped shop_GREEN", "started shop_BLUE", "LIVE: shop on BLUE"]);
    assert_eq!(answered(&site).await, "v1-itself");
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");
    measured("stop_first", &format!("{} requests, the longest wait {:?}", verdict.total, verdict.slowest));
    assert_eq!(site.processes().len(), 2, "{:?}", site.processes());
    for wrong in [&["--keep", "warm"][..], &["--no-flip"]] {
        said(&site.switch(&alone(&site, "v3", QUICK), wrong).end().await, 1, &["--stop-first"]);
    }
}

/// The old one is started again, and those who waited are answered by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_new_version_fails_the_old_one_is_brought_back_and_answers_who_waited() {
    let site = site_with_v1().await;
    let load = load(site.address(), calm());
    let exits = site.script("v2", "echo cannot open the database >&2; exit 3");
    let failed = site.switch(&exits, &[]).end().await;
    said(&failed, 5, &["exited with code 3", "started shop_BLUE again", "traffic still on BLUE"]);
    assert_eq!(answered(&site).await, "v1-itself");
    let late = site.switch(&alone(&site, "v3", NEVER), &["--deadline", "1s"]).end().await;
    said(&late, 5, &["did not become healthy", "started shop_BLUE again", "traffic still on BLUE"]);
    let hook = site.switch(&alone(&site, "v3", QUICK), &["--before", "exit 4"]).end().await;
    said(&hook, 9, &["started shop_BLUE again", "traffic still on BLUE"]);

    let mut interrupted = site.switch(&alone(&site, "v3", NEVER), &["--before", ""]);
    interrupted.until("probe").await;
    interrupted.signal(Signal::INT);
    said(&interrupted.end().await, 130, &["started shop_BLUE again", "traffic still on BLUE"]);
    assert_eq!(answered(&site).await, "v1-itself");
    load.stop().await.assert_none_failed();
    assert_eq!((site.processes().len(), &site.shop().await["paused"]), (2, &Value::Null));
}

/// F4: between the end of the old version and the flip nothing serves, and those who wait are let go when something does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_while_nothing_serves_is_settled_by_the_next_one() {
    tokio::join!(killed_at("stop_first", "done"), killed_at("stage", "begun"), killed_at("flip", "done"));
}

async fn killed_at(step: &str, state: &str) {
    let site = site_with_v1().await;
    let load = load(site.address(), calm());
    let mut switch = site.switch(&alone(&site, "v2", Duration::from_secs(1)), &[]);
    loop {
        let event = switch.until("step").await;
        if event["step"] == step && event["state"] == state {
            break;
        }
    }
    switch.signal(Signal::KILL);
    assert_eq!(switch.end().await.code, None);
    let recovered = site.bgctl(&["recover", "shop", "--lock-wait", "40s"]).await;
    said(&recovered, 0, &["was left open"]);
    let live = if step == "flip" { "v2-itself" } else { "v1-itself" };
    assert_eq!(answered(&site).await, live, "killed at {step}: {}", recovered.talk);
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    eventually("one version runs", async || (site.processes().len() == 2).then_some(())).await;
    assert_eq!(site.shop().await["paused"], Value::Null);
}

/// What the old version does not answer in time ends with it: that is counted, and no plain success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_before_the_old_version_is_stopped_is_counted() {
    let site = site_with_v1().await;
    let mut slow = client(site.address()).await.unwrap();
    slow.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (site.shop().await["slots"]["blue"]["in_flight"] == 1).then_some(())).await;
    let began = Instant::now();
    let v2 = site.switch(&alone(&site, "v2", QUICK), &["--drain", "500ms"]).end().await;
    said(&v2, 7, &["1 requests did not end within 500ms, and are cut", "LIVE: shop on GREEN"]);
    assert_eq!(v2.report()["requests"]["cut"], 1);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(answered(&site).await, "v2-itself");
}
