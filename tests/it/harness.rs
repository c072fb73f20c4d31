//! The harness itself: load that can't fail would prove nothing.

use std::time::Duration;

use tests::{Behaviour, Load, client, eventually, load, upstream};

#[tokio::test]
async fn load_on_a_good_application_has_no_failure_and_counts_every_request_once() {
    let app = upstream("v1").await;
    let running = load(app.address(), Load { slow_for: Duration::from_millis(20), ..Load::default() });
    eventually("500 requests are done", async || (running.so_far().total >= 500).then_some(())).await;
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.versions.get("v1"), Some(&verdict.total));
    let mut ids: Vec<_> = app.seen().into_iter().map(|seen| seen.id.unwrap()).collect();
    assert_eq!(ids.len() as u64, verdict.total);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, verdict.total, "an id came twice");
}

#[tokio::test]
async fn load_counts_each_way_of_failing_and_says_it_in_words() {
    let ways = [
        (Behaviour::Status(502), "502"),
        (Behaviour::Cut, "after 2 of 102 bytes"),
        (Behaviour::Close, "closed without an answer"),
        (Behaviour::Reset, "reset"),
    ];
    for (behaviour, words) in ways {
        let app = upstream("v1").await;
        app.behave(behaviour.clone());
        let visitors = Load { keep_alive: 1, fresh: 0, posts: 0, slow: 0, ..Load::default() };
        let running = load(app.address(), visitors);
        eventually("a request is done", async || (running.so_far().total >= 3).then_some(())).await;
        let verdict = running.stop().await;
        assert_eq!(verdict.failed, verdict.total, "{behaviour:?}");
        assert!(verdict.failures[0].1.contains(words), "{behaviour:?}: {:?}", verdict.failures[0]);
    }
}

#[tokio::test]
async fn each_behaviour_is_what_a_client_sees() {
    let app = upstream("v1").await;
    for (behaviour, expected) in [
        (Behaviour::Http10, "v1"),
        (Behaviour::Slow { pieces: 3, pause: Duration::from_millis(1) }, "v1v1v1"),
        (Behaviour::Answer, "v1"),
    ] {
        app.behave(behaviour.clone());
        let mut visitor = client(app.address()).await.unwrap();
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{behaviour:?}");
        assert_eq!(answer.closes(), behaviour == Behaviour::Http10);
    }
    app.behave(Behaviour::Echo);
    let mut visitor = client(app.address()).await.unwrap();
    visitor
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().text(), "abc");
    assert_eq!(app.seen().last().unwrap().body_bytes, 3);
}
