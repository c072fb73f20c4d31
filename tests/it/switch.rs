//! `bgctl switch` and its kin by the real programs, on plain processes: what fails, what is undone, what a kill leaves.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Behaviour, Ended, Load, Site, client, eventually, load, measured, proxy, upstream};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(600);

/// A site where v1 serves.
async fn site_with_v1() -> Site {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let v1 = site.version("v1", QUICK);
    let first = site.switch(&v1, &[]).end().await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    assert_eq!(first.report()["old"], Value::Null);
    site
}

/// Who answers a visitor.
async fn answered(site: &Site) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

fn assert_said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
    assert_eq!(ended.report()["exit_code"], code, "{ended:?}");
}

/// S10: a switch that cut an answer is done, and says so, and is no plain success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_cut_an_answer_ends_with_7() {
    let site = site_with_v1().await;
    let mut patient = client(site.address()).await.unwrap();
    patient.send("GET /slow/20000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (site.shop().await["slots"]["blue"]["in_flight"] == 1).then_some(())).await;
    let v2 = site.switch(&site.version("v2", QUICK), &["--drain", "200ms"]).end().await;
    assert_said(&v2, 7, &["LIVE: shop on GREEN"]);
    assert_eq!(v2.report()["requests"]["cut"], 1, "{v2:?}");
    assert_eq!(answered(&site).await, "v2");
}

/// What is warm is one pointer away: ten times there and back under load, and the middle one of these times counts, as the machine
/// has more to do than this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_version_is_gone_back_to_within_moments_by_the_proxy_and_by_the_whole_command() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    for version in ["v1", "v2"] {
        assert_said(
            &site.switch(&site.version(version, QUICK), &["--keep", "warm"]).end().await,
            0,
            &["LIVE: shop on "],
        );
    }
    let running = load(site.address(), Load { pause: Duration::from_millis(10), slow: 0, ..Load::default() });
    let mut commands = Vec::new();
    for _ in 0..10 {
        let before = site.shop().await["live"].clone();
        let began = Instant::now();
        let back = site.bgctl(&["rollback", "shop"]).await;
        commands.push(began.elapsed());
        assert_said(&back, 0, &["LIVE: shop on "]);
        assert_ne!(site.shop().await["live"], before);
    }
    running.stop().await.assert_none_failed();

    // The proxy's own part: no request begins on the slot that is left behind its answer (S3).
    let (blue, green, proxy) = (upstream("blue").await, upstream("green").await, proxy());
    for app in [&blue, &green] {
        proxy.serve("shop", app.address()).await;
    }
    let running = load(proxy.address(), Load { pause: Duration::from_millis(10), slow: 0, ..Load::default() });
    let mut calls = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        let back = proxy.call("POST", "/v1/services/shop/rollback", json!({})).await;
        calls.push(began.elapsed());
        assert_eq!(back.status, 200, "{back:?}");
    }
    running.stop().await.assert_none_failed();
    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (command, call) = (middle(&mut commands), middle(&mut calls));
    measured("a_warm_rollback", &format!("{call:?} by the proxy, {command:?} by the whole command"));
    assert!(call < Duration::from_millis(10) && command < Duration::from_millis(300), "{calls:?} {commands:?}");
}

/// A dry run changes nothing: not even the proxy is started that a switch would need.
#[tokio::test]
async fn a_dry_run_starts_nothing_and_needs_no_proxy() {
    let site = Site::new(PROGRAMS);
    let shown = site.switch(&site.version("v1", QUICK), &["--dry-run"]).end().await;
    assert_eq!(shown.code, Some(0), "{}", shown.talk);
    assert!(shown.events[0]["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{shown:?}");
    assert_eq!(site.processes(), []);
    let missing = site.switch("/nowhere/at/all", &["--dry-run"]).end().await;
    assert_eq!(missing.code, Some(3), "{}", missing.talk);
    assert!(missing.talk.contains("a dry run fetches none"), "{}", missing.talk);
}

/// The whole life of a service under load: not one request fails, whatever becomes of the versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_come_fail_and_go_back_under_load_without_a_failed_request() {
    let site = site_with_v1().await;
    let first = site.shop().await["slots"]["blue"]["deployment"].clone();
    let load = load(site.address(), Load { pause: Duration::from_millis(2), ..Load::default() });

    let v2 = site.switch(&site.version("v2", QUICK), &[]).end().await;
    assert_said(&v2, 0, &["LIVE: shop on GREEN", "old slot drains"]);
    let report = v2.report();
    assert_eq!((&report["old"]["slot"], &report["new"]["slot"]), (&json!("blue"), &json!("green")));
    assert_eq!(
        (&report["requests"]["cut"], &report["requests"]["failed"], &report["kept"]),
        (&json!(0), &json!(0), &json!("stopped"))
    );
    assert!(report["flip_micros"].as_u64().is_some() && report["healthy_seconds"].as_f64().is_some(), "{report}");

    // It is told within moments of the exit, not after the deadline.
    let began = Instant::now();
    let exits = site.script("v3", "echo cannot open the database >&2; exit 3");
    let v3 = site.switch(&exits, &["--deadline", "30s"]).end().await;
    assert_said(&v3, 5, &["exited with code 3", "cannot open the database", "traffic still on GREEN"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    let v4 = site.switch(&site.version("v4", NEVER), &["--deadline", "500ms"]).end().await;
    assert_said(&v4, 5, &["did not become healthy", "503", "v4 loads", "traffic still on GREEN"]);

    let missing = site.switch("/nonexistent/v5", &[]).end().await;
    assert_said(&missing, 3, &["/nonexistent/v5", "no such program"]);

    // Two failures later, going back is still what it was.
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert_said(&back, 0, &["LIVE: shop on BLUE"]);
    assert_eq!(answered(&site).await, "v1");
    assert_eq!(back.report()["deployment"], first, "it is the deployment that it was");

    let warm = site.switch(&site.version("v5", QUICK), &["--keep", "warm"]).end().await;
    assert_said(&warm, 0, &["LIVE: shop on GREEN"]);
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert_said(&back, 0, &["LIVE: shop on BLUE"]);
    assert_eq!(back.report()["healthy_seconds"], Value::Null, "a pure flip waits for nothing");

    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");
    assert_eq!(verdict.versions.keys().collect::<Vec<_>>(), ["v1", "v2", "v5"]);

    let down = site.bgctl(&["--yes", "down", "--volumes"]).await;
    assert_eq!((down.code, site.processes()), (Some(0), Vec::new()), "{}", down.talk);
}

/// F5 and Ctrl-C before the flip: the second one is told who holds the lock, and the first one undoes what it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_switch_is_told_who_holds_the_lock_and_ctrl_c_before_the_flip_undoes_everything() {
    let site = site_with_v1().await;
    let before = site.processes();
    let mut first = site.switch(&site.version("v2", NEVER), &[]);
    first.until("probe").await;
    let second = site.switch(&site.version("v3", QUICK), &[]).end().await;
    let lease = site.shop().await["lease"].clone();
    assert_said(&second, 6, &[lease["who"].as_str().unwrap(), lease["since"].as_str().unwrap(), "switch to "]);

    first.signal(Signal::INT);
    let first = first.end().await;
    assert_said(&first, 130, &["interrupted", "traffic still on BLUE"]);
    assert_eq!(answered(&site).await, "v1");
    let shop = site.shop().await;
    assert_eq!((&shop["slots"]["green"]["state"], &shop["lease"]), (&json!("empty"), &Value::Null), "{shop}");
    assert_eq!(site.processes(), before, "what was started is gone");
}

/// Ctrl-C after the flip: it stands, the proxy drains by itself, and the way back is said and works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_after_the_flip_lets_it_stand_and_says_the_way_back() {
    let site = site_with_v1().await;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut switch = site.switch(&site.version("v2", QUICK), &["--bake", "60s"]);
        switch.until("drained").await;
        switch.signal(signal);
        assert_said(&switch.end().await, code, &["GREEN is live and stays so", "rollback shop"]);
        assert_eq!(answered(&site).await, "v2");
        let back = site.bgctl(&["rollback", "shop"]).await;
        assert_said(&back, 0, &["LIVE: shop on BLUE"]);
        assert_eq!(answered(&site).await, "v1");
    }
}

/// F4: `bgctl` is killed at a step, and the next run finds what is there and finishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_killed_at_any_step_leaves_the_site_up_and_the_next_one_finishes() {
    // Side by side, as each waits for the lease of the dead one to run out.
    let steps = ["staged", "probe", "healthy", "flipped", "drained"];
    let (a, b, c, d, e) = tokio::join!(
        killed_at(steps[0]),
        killed_at(steps[1]),
        killed_at(steps[2]),
        killed_at(steps[3]),
        killed_at(steps[4]),
    );
    for (step, live) in steps.iter().zip([a, b, c, d, e]) {
        let flipped = ["flipped", "drained"].contains(step);
        // A kill right after `healthy` may come before the flip or after it.
        if *step != "healthy" {
            assert_eq!(live, if flipped { "v2" } else { "v1" }, "killed at {step}");
        }
    }
}

/// Kills a switch to v2 at an event, and switches again; returns who answered in between.
async fn killed_at(step: &str) -> String {
    let site = site_with_v1().await;
    let load = load(site.address(), Load { pause: Duration::from_millis(10), slow: 1, ..Load::default() });
    let v2 = site.version("v2", Duration::from_millis(300));
    let mut switch = site.switch(&v2, &["--bake", "60s"]);
    switch.until(step).await;
    switch.signal(Signal::KILL);
    assert_eq!(switch.end().await.code, None);
    let live = answered(&site).await;

    let again = site.switch(&site.version("v3", QUICK), &["--lock-wait", "40s"]).end().await;
    assert_said(&again, 0, &["LIVE: shop on "]);
    assert_eq!(answered(&site).await, "v3", "killed at {step}");
    // The proxy, v3, and nothing else that runs: what the dead run started is stopped or gone.
    eventually("only the live version runs", async || (site.processes().len() == 2).then_some(())).await;
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "killed at {step}");
    live
}

/// A new version is looked at before any visitor sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_without_a_flip_is_gone_on_with_or_left() {
    let site = site_with_v1().await;
    let nothing = site.bgctl(&["switch", "shop", "--continue"]).await;
    assert_said(&nothing, 4, &["no version that waits for its flip"]);
    let load = load(site.address(), Load { pause: Duration::from_millis(5), ..Load::default() });
    for (version, goes_on) in [("v2", false), ("v3", true)] {
        let staged = site.switch(&site.version(version, QUICK), &["--no-flip"]).end().await;
        assert_said(&staged, 0, &["STAGED: shop is healthy on GREEN; visitors are on BLUE", "--continue"]);
        assert_eq!(
            (answered(&site).await, site.shop().await["slots"]["green"]["state"].clone()),
            ("v1".into(), json!("ready"))
        );
        if goes_on {
            let done = site.bgctl(&["switch", "shop", "--continue"]).await;
            assert_said(&done, 0, &["LIVE: shop on GREEN"]);
        }
    }
    assert_eq!(answered(&site).await, "v3");
    load.stop().await.assert_none_failed();
    eventually("only the live version runs", async || (site.processes().len() == 2).then_some(())).await;
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert_said(&back, 0, &["LIVE: shop on BLUE"]);
    assert_eq!(answered(&site).await, "v1");
}

/// Addresses that nobody runs for us go the same way: stage, healthy, flip, drain, and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_routed_to_changed_and_gone_back_to_under_load() {
    let (a, b) = (upstream("a").await, upstream("b").await);
    let site = Site::new(PROGRAMS);
    site.up().await;
    let route = async |to: &str, more: &[&str]| {
        site.bgctl(&[&["route", "shop", "--to", to, "--domain", "shop.test", "--bake", "0s"], more].concat()).await
    };
    let (to_a, to_b) = (a.address().to_string(), b.address().to_string());
    assert_said(&route(&to_a, &[]).await, 0, &["LIVE: shop on BLUE"]);
    let load = load(site.address(), Load { pause: Duration::from_millis(2), ..Load::default() });
    assert_said(&route(&to_b, &[]).await, 0, &["LIVE: shop on GREEN"]);
    a.behave(Behaviour::Status(500));
    assert_said(&route(&to_a, &["--deadline", "500ms"]).await, 5, &["500", "traffic still on GREEN"]);
    a.behave(Behaviour::Answer);
    assert_said(&route(&to_a, &[]).await, 0, &["LIVE: shop on BLUE"]);
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert_said(&back, 0, &["LIVE: shop on GREEN"]);
    assert_eq!(answered(&site).await, "b");

    // Routes alone: no flip, no staging.
    let routes = site.bgctl(&["route", "shop", "--domain", "shop.test", "--domain", "www.shop.test"]).await;
    assert_eq!(routes.code, Some(0), "{}", routes.talk);
    let mut visitor = client(site.address()).await.unwrap();
    assert_eq!(visitor.get("www.shop.test", "/").await.unwrap().unwrap().field("x-version"), Some("b"));

    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");
    let down = site.bgctl(&["--yes", "down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_our_own_instances_is_not_routed_away_from_them() {
    let app = upstream("a").await;
    let site = site_with_v1().await;
    let route = site.bgctl(&["route", "shop", "--to", &app.address().to_string()]).await;
    assert_said(&route, 1, &["shop_BLUE", "rm shop"]);
    assert_eq!(answered(&site).await, "v1");
}

/// What the file says reaches the running proxy without a container being touched, and outlives the next switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_changes_routes_and_options_of_a_running_service_and_says_what() {
    let site = site_with_v1().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    let path = file.to_str().unwrap().to_owned();
    let apply = async |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        site.bgctl(&[&["--file", &path, "apply"], more].concat()).await
    };
    let post = async || {
        let mut visitor = client(site.address()).await.unwrap();
        let body = "x".repeat(2000);
        let request = format!("POST / HTTP/1.1\r\nHost: www.shop.test\r\nContent-Length: 2000\r\n\r\n{body}");
        visitor.send(request).await.unwrap();
        visitor.answer().await.unwrap().unwrap().status
    };
    let processes = site.processes();
    let text = "[services.shop]\ndomains = [\"shop.test\", \"www.shop.test\"]\n[services.shop.options]\nrequest_bytes = \"1k\"\n";
    let applied = apply(text, &[]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.talk);
    let changed = &applied.events[0][0]["changed"];
    assert_eq!(changed["options.request_bytes"], json!([null, "1KiB"]), "{changed}");
    assert_eq!(changed["domains"], json!([["shop.test"], ["shop.test", "www.shop.test"]]), "{changed}");
    assert_eq!(post().await, 413);
    assert_eq!(site.processes(), processes);
    // Again, and nothing is left to do; nor does the next switch undo it.
    assert_eq!(apply(text, &["shop"]).await.events[0][0]["changed"], json!({}));
    let v2 = site.start(&["switch", "shop", "--image", &site.version("v2", QUICK), "--bake", "0s"]).end().await;
    assert_said(&v2, 0, &["LIVE: shop on GREEN"]);
    assert_eq!(post().await, 413);
    // What can't be applied is said, and changes nothing.
    let before = site.shop().await["generation"].clone();
    for (text, words) in [
        ("[services.shop]\ndomains = [\"a b\"]\n", "bluegreen.toml:2:12"),
        ("[services.shop]\n[services.nobody]\ndomains = [\"nobody.test\"]\n", "there is no service `nobody`"),
        ("", "names no service"),
    ] {
        let refused = apply(text, &[]).await;
        assert_eq!(refused.code, Some(1), "{}", refused.talk);
        assert!(refused.talk.contains(words), "{}", refused.talk);
    }
    assert_eq!(apply("[services.shop]\n", &["other"]).await.code, Some(1));
    assert_eq!(site.shop().await["generation"], before);
}
