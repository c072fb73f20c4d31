//! The journal: what was done is remembered, and what was left open by a kill at any step is found, told and settled.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Ended, Load, Site, client, eventually, load};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);

async fn site(versions: &[&str]) -> Site {
    let site = Site::new(PROGRAMS);
    site.up().await;
    for version in versions {
        assert_done(&site.switch(&site.version(version, QUICK), &[]).end().await);
    }
    site
}

fn assert_done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.talk);
}

async fn answered(site: &Site) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

async fn history(site: &Site) -> Vec<Value> {
    let ended = site.bgctl(&["history", "shop"]).await;
    assert_done(&ended);
    ended.events[0]["entries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_tells_who_did_what_and_how_it_ended_and_any_of_it_can_be_gone_back_to() {
    let site = site(&["v1"]).await;
    let v2 = site.version("v2", QUICK);
    assert_done(&site.switch(&v2, &["--note", "the big one"]).end().await);
    let failed = site.switch(&site.script("bad", "echo out of luck >&2; exit 3"), &[]).end().await;
    assert_eq!(failed.code, Some(5), "{}", failed.talk);
    assert_done(&site.switch(&site.version("v4", QUICK), &[]).end().await);
    assert_done(&site.switch(&site.version("v5", QUICK), &[]).end().await);
    let entries = history(&site).await;
    let outcomes: Vec<&str> = entries.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["done", "done", "undone", "done", "done"]);
    assert_eq!((&entries[3]["note"], &entries[2]["report"]["exit_code"]), (&json!("the big one"), &json!(5)));
    assert!(entries.iter().all(|entry| entry["who"].as_str().unwrap().contains('@') && entry["ended"].is_string()));
    assert_eq!(entries[3]["report"]["requests"]["failed"], 0, "{}", entries[3]);
    // The log of what was removed.
    let log = site.bgctl(&["logs", "shop", "--failed"]).await;
    assert_eq!(log.events, [json!({ "line": "out of luck" })], "{}", log.talk);
    // Neither warm nor kept: its image. The id's beginning will do.
    let id = entries[3]["deployment"].as_str().unwrap();
    assert_done(&site.bgctl(&["rollback", "shop", "--to", id]).await);
    assert_eq!(answered(&site).await, "v2");
    let nowhere = site.bgctl(&["rollback", "shop", "--to", "shop:unknown"]).await;
    assert_eq!(nowhere.code, Some(4), "{}", nowhere.talk);
    assert!(nowhere.talk.contains("never had a deployment or image `shop:unknown`"), "{}", nowhere.talk);
    // By its image, and there it is warm or kept: the quickest way.
    let v5 = entries[0]["image"].as_str().unwrap();
    assert_done(&site.bgctl(&["rollback", "shop", "--to", v5]).await);
    assert_eq!(answered(&site).await, "v5");
    assert_eq!(history(&site).await[0]["deployment"], entries[0]["deployment"], "it is the same deployment again");
    let unknown = site.bgctl(&["history", "nobody"]).await;
    assert_eq!(unknown.code, Some(1), "{}", unknown.talk);
}

/// A file with a hook, so that a switch has that step too.
fn hooked() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    std::fs::write(&file, "[services.shop.hooks]\nbefore_flip = \"true\"\n").unwrap();
    (folder, file.to_str().unwrap().to_owned())
}

/// Every step of a switch, as it tells them itself.
async fn steps() -> Vec<(String, String)> {
    let site = site(&["v1", "v2"]).await;
    let (_folder, file) = hooked();
    let switched = site.switch(&site.version("v3", QUICK), &["--pause", "--file", &file]).end().await;
    assert_done(&switched);
    let step = |event: &Value| {
        let word = |key: &str| event[key].as_str().map(str::to_owned);
        (event["event"] == "step").then(|| (word("step").unwrap(), word("state").unwrap()))
    };
    let steps: Vec<_> = switched.events.iter().filter_map(step).collect();
    let names: Vec<&str> = steps.iter().map(|(step, _)| step.as_str()).collect();
    for name in ["park", "create", "stage", "before_flip", "pause", "flip", "watch", "put_away"] {
        assert!(names.contains(&name), "{name} is no step of {names:?}");
    }
    steps
}

/// F4: the kill of a switch after every step in turn, and then a new switch, or `recover`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_killed_after_every_step_is_told_and_settled_and_nothing_is_left_behind() {
    settle_all(Victim::Bgctl).await;
}

/// The same with the proxy killed under it, and started again by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_whose_proxy_is_killed_after_any_step_is_told_and_settled_too() {
    settle_all(Victim::Proxy).await;
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Bgctl,
    Proxy,
}

async fn settle_all(victim: Victim) {
    let steps = steps().await;
    // Side by side, as each waits for the lease of the dead one to run out.
    let local = tokio::task::LocalSet::new();
    let all = async {
        let mut killed = tokio::task::JoinSet::new();
        for (number, (step, state)) in steps.into_iter().enumerate() {
            killed.spawn_local(async move { killed_at(victim, (&step, &state), number % 3).await });
            if killed.len() == 6 {
                killed.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(ended) = killed.join_next().await {
            ended.unwrap();
        }
    };
    local.run_until(all).await;
}

/// Kills a switch at a step, and settles what it left in one of three ways.
async fn killed_at(victim: Victim, (step, state): (&str, &str), way: usize) {
    let site = site(&["v1", "v2"]).await;
    // Without a proxy nobody could be served.
    let load = (victim == Victim::Bgctl)
        .then(|| load(site.address(), Load { pause: Duration::from_millis(20), keep_alive: 2, ..Load::default() }));
    let (_folder, file) = hooked();
    let mut switch = site.switch(&site.version("v3", QUICK), &["--pause", "--file", &file]);
    loop {
        let event = switch.until("step").await;
        if event["step"] == step && event["state"] == state {
            break;
        }
    }
    let told = format!("{victim:?} killed at {step} {state}");
    match victim {
        Victim::Bgctl => {
            switch.signal(Signal::KILL);
            assert_eq!(switch.end().await.code, None);
        }
        Victim::Proxy => {
            site.kill("bgproxy");
            let ended = switch.end().await;
            // Where all that was left was to note it, it has done what it should.
            assert!(matches!(ended.code, Some(2) | Some(0)), "{told}: {ended:?}");
            site.up().await;
        }
    }
    // The end is written right behind the last step, and may be quicker than the kill.
    let may_have_ended = victim == Victim::Proxy || (step, state) == ("put_away", "done");
    let wait = ["--lock-wait", "40s"];
    let live = match way {
        0 => {
            let again = site.switch(&site.version("v4", QUICK), &wait).end().await;
            assert_eq!(again.code, Some(0), "{told}: {}", again.talk);
            assert!(may_have_ended || again.talk.contains("was left open"), "{told}: {}", again.talk);
            "v4".to_owned()
        }
        1 => {
            let recovered = site.bgctl(&["recover", "shop", "--lock-wait", "40s"]).await;
            assert_eq!(recovered.code, Some(0), "{told}: {}", recovered.talk);
            assert!(may_have_ended || recovered.talk.contains("was left open"), "{told}: {}", recovered.talk);
            answered(&site).await
        }
        _ => {
            let undone = site.bgctl(&["recover", "shop", "--undo", "--lock-wait", "40s"]).await;
            assert_eq!(undone.code, Some(0), "{told}: {}", undone.talk);
            let live = answered(&site).await;
            // What had ended well is not open, so there was nothing to undo.
            assert!(live == "v2" || may_have_ended, "{told}: {live}: {}", undone.talk);
            live
        }
    };
    assert_eq!(answered(&site).await, live, "{told}");
    assert!(live != "v1", "{told}: it went further back than it was");
    // Visitors were served all the time, whatever was killed when.
    if let Some(load) = load {
        let verdict = load.stop().await;
        assert_eq!(verdict.failed, 0, "{told}: {:#?}", verdict.failures);
    }
    let entries = history(&site).await;
    let open: Vec<&Value> = entries.iter().filter(|entry| entry["ended"].is_null()).collect();
    assert!(open.is_empty(), "{told}: {open:#?}");
    let shop = site.shop().await;
    assert_eq!((&shop["lease"], &shop["paused"]), (&Value::Null, &Value::Null), "{told}: {shop}");
    // The proxy, one version, and nothing else that runs.
    eventually(&told, async || (site.processes().len() == 2).then_some(())).await;
    // What was there to go back to is there still.
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert_eq!(back.code, Some(0), "{told}: {}", back.talk);
}

/// Hours of drain are the proxy's affair; whoever comes next puts the old version away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_switch_ends_with_the_flip_and_the_next_run_puts_the_old_version_away() {
    let site = site(&["v1"]).await;
    let slow = Load { keep_alive: 0, fresh: 0, posts: 0, slow: 1, slow_for: Duration::from_secs(3), ..Load::default() };
    let load = load(site.address(), slow);
    eventually("it is under way", async || (site.shop().await["slots"]["blue"]["in_flight"] == 1).then_some(())).await;
    let began = std::time::Instant::now();
    let detached = site.switch(&site.version("v2", QUICK), &["--detach"]).end().await;
    assert_done(&detached);
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    let report = detached.report();
    assert_eq!((&report["requests"], &report["kept"]), (&Value::Null, &json!("warm")), "{report}");
    assert_eq!((answered(&site).await, site.processes().len()), ("v2".to_owned(), 3));
    let early = site.bgctl(&["recover", "shop"]).await;
    assert!(early.talk.contains("when the old one has drained"), "{}", early.talk);
    load.stop().await.assert_none_failed();
    eventually("it has drained", async || (site.shop().await["slots"]["blue"]["state"] == "warm").then_some(())).await;
    let late = site.bgctl(&["recover", "shop"]).await;
    assert!(late.talk.contains("finished"), "{}", late.talk);
    assert_eq!((answered(&site).await, site.processes().len()), ("v2".to_owned(), 2));
    assert_eq!(history(&site).await[0]["outcome"], "done");
}

/// A restart of the proxy lets nobody in beside the one who holds the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_a_restart_of_the_proxy() {
    let app = tests::upstream("v1").await;
    let mut proxy = tests::proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let acquire = json!({ "action": "acquire", "who": "alice@laptop", "what": "switch" });
    let lease = proxy.call("POST", "/v1/services/shop/lease", acquire.clone()).await;
    assert_eq!(lease.status, 200);
    proxy.kill();
    proxy.start().await;
    let second = proxy.call("POST", "/v1/services/shop/lease", acquire.clone()).await;
    assert_eq!((second.status, &second.lines[0]["code"]), (423, &json!("locked")), "{second:?}");
    let release = json!({ "action": "release", "lease": lease.lines[0]["lease"] });
    assert_eq!(proxy.call("POST", "/v1/services/shop/lease", release).await.status, 200);
    proxy.kill();
    proxy.start().await;
    assert_eq!(proxy.call("POST", "/v1/services/shop/lease", acquire).await.status, 200);
}
