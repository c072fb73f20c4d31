//! `bgctl demo` by the real programs, to its verdict: good where all is well, and bad where a version was killed.

use serde_json::json;
use tests::{Site, measured};

use crate::programs::PROGRAMS;

const WORDS: [&str; 4] = ["demo", "--fast", "--proxy-binary", PROGRAMS.bgproxy];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_proves_a_switch_and_a_rollback_without_a_failed_request() {
    let site = Site::new(PROGRAMS);
    let demo = site.bgctl(&WORDS).await;
    assert_eq!(demo.code, Some(0), "{}", demo.talk);
    let report = demo.report();
    assert_eq!(
        (&report["failed"], &report["connections_closed"], &report["exit_code"]),
        (&json!(0), &json!(0), &json!(0))
    );
    let order: Vec<_> = report["timeline"].as_array().unwrap().iter().map(|span| &span["version"]).collect();
    assert_eq!(order, [1, 2, 1]);
    assert_eq!(report["flip_micros"].as_array().unwrap().len(), 2);
    assert_eq!((&report["posts"], &report["posts_twice"]), (&report["posts_received"], &json!([])));
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests > 100, "{report}");
    assert_eq!(site.processes(), [], "it cleans up after itself");
    measured(
        "the_demo",
        &format!("{requests} requests, {} failed, flips {} us", report["failed"], report["flip_micros"]),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_says_so_where_a_version_was_killed_under_traffic() {
    let site = Site::new(PROGRAMS);
    let mut demo = site.start(&WORDS);
    demo.until("traffic").await;
    site.kill("--release 1");
    let demo = demo.end().await;
    assert_eq!(demo.code, Some(7), "{}", demo.talk);
    let report = demo.report();
    assert!(report["failed"].as_u64().unwrap() > 0, "{report}");
    assert!(report["failures"][0]["why"].as_str().unwrap().contains("50"), "{report}");
    assert_eq!(site.processes(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_is_interrupted_says_so_in_its_report_and_leaves_nothing() {
    let site = Site::new(PROGRAMS);
    let mut demo = site.start(&WORDS);
    demo.until("traffic").await;
    demo.signal(rustix::process::Signal::INT);
    let demo = demo.end().await;
    assert_eq!((demo.code, &demo.report()["exit_code"]), (Some(130), &json!(130)), "{}", demo.talk);
    assert_eq!(site.processes(), []);
}
