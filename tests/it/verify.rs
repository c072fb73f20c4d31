//! `bgctl verify`: the self-test of a live site, what it finds, and what is left of it when it is cut off.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tests::{Ended, Load, Site, client, eventually, load};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);

/// A site where v2 is live on GREEN, and v1 was before it.
async fn site(keep: &str) -> Site {
    let site = Site::new(PROGRAMS);
    site.up().await;
    said(&site.switch(&site.version("v1", QUICK), &[]).end().await, 0, &["LIVE: shop on BLUE"]);
    said(&site.switch(&site.version("v2", QUICK), &["--keep", keep]).end().await, 0, &["LIVE: shop on GREEN"]);
    site
}

/// Load that leaves the machine some time.
fn busy() -> Load {
    Load { keep_alive: 4, pause: Duration::from_millis(10), ..Load::default() }
}

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

fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
}

/// The same process of the same version serves on the same slot, and there is the same to go back to.
async fn assert_as_before(site: &Site, live: &[Pid]) {
    assert_eq!(running(site, "v2"), live, "{:?}", site.processes());
    let shop = site.shop().await;
    assert_eq!((&shop["live"], &shop["slots"]["blue"]["state"]), (&json!("green"), &json!("empty")), "{shop}");
    let back = site.bgctl(&["rollback", "shop"]).await;
    said(&back, 0, &["LIVE: shop on BLUE"]);
    assert_eq!(answered(site).await, "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_site_is_flipped_to_and_fro_and_is_as_it_was_before() {
    let site = site("stopped").await;
    let live = running(&site, "v2");
    let load = load(site.address(), busy());
    // Of an odd number one more leads back.
    let verified = site.bgctl(&["verify", "shop", "--flips", "3", "--rps", "200"]).await;
    said(&verified, 0, &["200 requests a second of shop.test/ through 127.0.0.1:", "flip 4: GREEN is live"]);
    let report = verified.report();
    assert_eq!(
        (&report["failed"], &report["connections_closed"], &report["live"]),
        (&json!(0), &json!(0), &json!("green"))
    );
    let flips = report["flips"].as_array().unwrap();
    assert_eq!(flips.len(), 4, "{report}");
    assert!(flips.iter().all(|flip| flip["flip_micros"].is_u64() && flip["idle_millis"].is_f64()), "{report}");
    // Five interludes of 0.3 s, at 200 a second.
    assert!(report["requests"].as_u64().unwrap() >= 200 && report["latency"]["slowest_millis"].as_f64() > Some(0.0));
    let flipped = verified.events.iter().filter(|event| event["event"] == "flipped").count();
    assert_eq!(flipped, 4, "{:?}", verified.events);
    load.stop().await.assert_none_failed();

    let history = site.bgctl(&["history", "shop"]).await;
    assert_eq!(
        (&history.events[0]["entries"][0]["what"], &history.events[0]["entries"][0]["outcome"]),
        (&json!("verify"), &json!("done"))
    );
    // It made nothing live that could be gone back to.
    let v2 = history.events[0]["entries"][1]["image"].as_str().unwrap().to_owned();
    let none = site
        .bgctl(&["rollback", "shop", "--to", history.events[0]["entries"][0]["deployment"].as_str().unwrap()])
        .await;
    said(&none, 4, &["never had a deployment"]);
    assert_as_before(&site, &live).await;
    said(&site.bgctl(&["rollback", "shop", "--to", &v2]).await, 0, &["LIVE: shop on GREEN"]);
    assert_eq!(site.processes().len(), 2, "the proxy and one version: {:?}", site.processes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_warm_stays_so_and_replicas_are_all_tried() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    said(&site.switch(&site.version("v1", QUICK), &[]).end().await, 0, &["LIVE: "]);
    let warm = site.switch(&site.version("v2", QUICK), &["--keep", "warm", "--replicas", "2"]).end().await;
    said(&warm, 0, &["LIVE: shop on GREEN"]);
    let (v1, v2) = (running(&site, "v1"), running(&site, "v2"));
    let verified = site.bgctl(&["verify", "shop", "--flips", "2"]).await;
    said(&verified, 0, &["started shop_BLUE from", "started shop_BLUE_2 from"]);
    assert_eq!((running(&site, "v1"), running(&site, "v2")), (v1.clone(), v2), "{:?}", site.processes());
    let shop = site.shop().await;
    assert_eq!(shop["slots"]["blue"]["endpoints"][0]["healthy"], true, "{shop}");
    assert_eq!(shop["slots"]["blue"]["state"], "warm", "{shop}");
    // So a switch that fails takes nothing from what can be gone back to.
    let failed = site.switch(&site.script("v3", "exit 3"), &["--replicas", "1"]).end().await;
    said(&failed, 5, &["traffic still on GREEN"]);
    said(&site.bgctl(&["rollback", "shop"]).await, 0, &["LIVE: shop on BLUE"]);
    assert_eq!(running(&site, "v1"), v1);
}

/// The second run of this version fails what the first one answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_fails_is_told_and_ends_the_flips() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let (folder, v1) = (tempfile::tempdir().unwrap(), site.version("v1", QUICK));
    let flag = folder.path().join("ran");
    let line = format!("mkdir '{}' && exec '{v1}'\nFAILS=/page exec '{}' v1 0", flag.display(), PROGRAMS.app);
    said(&site.switch(&site.script("moody", &line), &[]).end().await, 0, &["LIVE: shop on BLUE"]);
    let verified = site.bgctl(&["verify", "shop", "--path", "/page"]).await;
    said(&verified, 7, &["answered HTTP/1.1 500"]);
    let report = verified.report();
    assert_eq!((report["flips"].as_array().unwrap().len(), &report["exit_code"]), (2, &json!(7)), "{report}");
    assert!(report["failed"].as_u64() > Some(0) && report["failures"][0]["why"].is_string(), "{report}");
    assert_eq!((site.shop().await["live"].clone(), running(&site, "v1").len()), (json!("blue"), 1));
}

/// S10: what its drains end of other people's requests is no success, however well its own fare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_of_somebody_else_that_it_cuts_is_counted_and_ends_the_flips() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let switched = site.switch(&site.version("v1", QUICK), &["--drain", "500ms"]).end().await;
    said(&switched, 0, &["LIVE: shop on BLUE"]);
    let mut download = client(site.address()).await.unwrap();
    download.send("GET /stream/1000/100 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (site.shop().await["slots"]["blue"]["in_flight"] == 1).then_some(())).await;
    let verified = site.bgctl(&["verify", "shop", "--flips", "10"]).await;
    said(&verified, 7, &[]);
    assert!(download.answer().await.is_err());
    let report = verified.report();
    assert_eq!((&report["cut"], &report["closed"], &report["failed"]), (&json!(1), &json!(0), &json!(0)), "{report}");
    assert_eq!((report["flips"].as_array().unwrap().len(), &report["exit_code"]), (2, &json!(7)), "{report}");
    // The drain of the flip that left it behind says the same.
    let drained = verified.events.iter().find(|event| event["event"] == "drained").unwrap();
    assert_eq!(drained["counts"]["cut"], 1, "{drained}");
    let plain = site.bgctl_plain(&["verify", "shop", "--flips", "2"]).await;
    let words = String::from_utf8(plain.stdout).unwrap();
    assert!(plain.status.success() && words.contains("0 cut and 0 closed at the end of a drain"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_tried_is_refused_before_anything_is_changed() {
    let site = site("stopped").await;
    let before = site.shop().await;
    let refused = async |words: &[&str]| site.bgctl(&[&["verify", "shop"], words].concat()).await;
    said(&refused(&["--at", "127.0.0.1:1"]).await, 1, &["can't be reached from here", "--at HOST:PORT"]);
    said(&site.bgctl(&["pause", "shop"]).await, 0, &[]);
    said(&refused(&[]).await, 1, &["closed to its visitors"]);
    said(&site.bgctl(&["resume", "shop"]).await, 0, &[]);
    assert_eq!(site.shop().await["generation"], before["generation"]);

    let mut switch = site.switch(&site.version("v3", Duration::from_secs(3)), &["--no-flip"]);
    switch.until("step").await;
    let locked = refused(&[]).await;
    said(&locked, 6, &["switch to"]);
    assert_eq!(locked.report()["exit_code"], 6);
    said(&switch.end().await, 0, &["STAGED"]);
    said(&refused(&[]).await, 4, &["waits for its flip", "--continue"]);
    assert_eq!(site.shop().await["slots"]["blue"]["state"], "ready", "what is staged is left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_between_two_flips_leads_home() {
    let site = site("stopped").await;
    let live = running(&site, "v2");
    let load = load(site.address(), busy());
    let mut verify = site.start(&["verify", "shop", "--flips", "1000"]);
    let flipped = verify.until("flipped").await;
    assert_eq!(flipped["live"], "blue");
    verify.signal(Signal::INT);
    said(&verify.end().await, 130, &["interrupted", "traffic still on GREEN"]);
    assert_as_before(&site, &live).await;
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_killed_is_led_home_by_the_next_run() {
    // Side by side, as each waits for the lease of the dead one to run out.
    tokio::join!(killed_at(&["step", "park"]), killed_at(&["step", "stage"]), killed_at(&["flipped"]));
}

/// What was warm when it was killed is put back by the next run, which need not be a `recover`, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_warm_before_one_that_was_killed_is_warm_again_after_the_next_run() {
    tokio::join!(killed_with_a_warm_version("stage"), killed_with_a_warm_version("flip"));
}

async fn killed_with_a_warm_version(step: &str) {
    let site = site("warm").await;
    let (v1, v2) = (running(&site, "v1"), running(&site, "v2"));
    let warm = site.shop().await["slots"]["blue"]["deployment"].clone();
    let mut verify = site.start(&["verify", "shop", "--flips", "1000"]);
    loop {
        if verify.until("step").await["step"] == step {
            break;
        }
    }
    // A step is told before it is done.
    let is_other = async || (site.shop().await["slots"]["blue"]["deployment"] != warm).then_some(());
    eventually("the second run is in the place of what was warm", is_other).await;
    verify.signal(Signal::KILL);
    assert_eq!(verify.end().await.code, None);
    let failed = site.switch(&site.script("v3", "exit 3"), &["--lock-wait", "40s"]).end().await;
    said(
        &failed,
        5,
        &["verify by", "was left open", "BLUE is warm again: `bgctl rollback shop", "traffic still on GREEN"],
    );
    assert_eq!((running(&site, "v1"), running(&site, "v2")), (v1.clone(), v2), "{:?}", site.processes());
    said(&site.bgctl(&["rollback", "shop"]).await, 0, &["LIVE: shop on BLUE"]);
    assert_eq!((answered(&site).await, running(&site, "v1")), ("v1".to_owned(), v1));
}

async fn killed_at(what: &[&str]) {
    let site = site("stopped").await;
    let live = running(&site, "v2");
    let load = load(site.address(), busy());
    let mut verify = site.start(&["verify", "shop", "--flips", "1000"]);
    loop {
        let event: Value = verify.until(what[0]).await;
        if what.get(1).is_none_or(|step| event["step"] == *step) {
            break;
        }
    }
    verify.signal(Signal::KILL);
    assert_eq!(verify.end().await.code, None);
    let recovered = site.bgctl(&["recover", "shop", "--lock-wait", "40s"]).await;
    said(&recovered, 0, &["verify by", "was left open", "everything is as it was before"]);
    assert_eq!(recovered.talk.contains("GREEN is live again"), what[0] == "flipped", "{}", recovered.talk);
    eventually("the second run is gone", async || (running(&site, "v2") == live).then_some(())).await;
    assert_as_before(&site, &live).await;
    load.stop().await.assert_none_failed();
}
