//! Replicas as containers, under load: names, labels and policies, a switch, `scale`, a kill, and the way back.

use std::time::Duration;

use serde_json::json;
use tests::{Ended, Load, eventually, load, measured};

use crate::docker_host::{TestGateway, Uptimer, docker, gateway};
use crate::docker_switch::judge;

const TEST: &str = "docker_replicas_are_switched";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_replicas_are_switched_scaled_killed_and_gone_back_to_under_load() {
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 1, fail: "" }) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let first = ["switch", "uptimer", "--image", &v1, "--domain", "uptimer.test", "--replicas", "2", "--bake", "0s"];
    said(&gateway.bgctl(&first).await, 0, &["started ", "_BLUE_2 from", "LIVE: uptimer v1 on BLUE"]);
    for (name, replica) in [("uptimer_BLUE", "1"), ("uptimer_BLUE_2", "2")] {
        assert_eq!(gateway.inspect(name)["Config"]["Labels"]["bluegreen.replica"], replica);
        assert_eq!(policy(&gateway, name), "always");
    }
    let (host, pause) = ("uptimer.test".to_owned(), Duration::from_millis(10));
    let load = load(gateway.address(), Load { host, slow: 0, pause, judge, ..Load::default() });

    let three = gateway.bgctl(&["switch", "uptimer", "--image", &v2, "--replicas", "3"]).await;
    said(&three, 0, &["LIVE: uptimer v2 on GREEN"]);
    assert_eq!(slots(&gateway), ["BLUE", "BLUE_2", "GREEN", "GREEN_2", "GREEN_3"]);
    assert_eq!(
        (policy(&gateway, "uptimer_BLUE_2"), policy(&gateway, "uptimer_GREEN_3")),
        ("no".into(), "always".into())
    );
    assert_eq!(gateway.inspect("uptimer_BLUE_2")["State"]["Running"], false);

    said(&gateway.bgctl(&["scale", "uptimer", "4"]).await, 0, &["SCALED: uptimer serves with 4 replicas on "]);
    assert_eq!((endpoints(&gateway).await, policy(&gateway, "uptimer_GREEN_4")), (4, "always".into()));
    said(&gateway.bgctl(&["scale", "uptimer", "2"]).await, 0, &["SCALED: uptimer serves with 2 replicas on "]);
    assert_eq!((endpoints(&gateway).await, slots(&gateway).len()), (2, 4));

    // While v1 is tried again and fails, the two that are kept wait under their kept names.
    let words =
        ["switch", "uptimer", "--image", &v1, "--health-path", "/", "--health-status", "201", "--deadline", "2s"];
    let mut failing = gateway.start(&words);
    failing.until("probe").await;
    assert_eq!(slots(&gateway), ["BLUE", "BLUE_2", "BLUE_2_kept", "BLUE_kept", "GREEN", "GREEN_2"]);
    said(&failing.end().await, 5, &["uptimer_BLUE_2", "traffic still on GREEN"]);
    assert_eq!(slots(&gateway), ["BLUE", "BLUE_2", "GREEN", "GREEN_2"]);
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    measured(TEST, &format!("{} requests, slowest {:?}", verdict.total, verdict.slowest));

    // A replica that is killed fails no GET but one whose answer had begun: the uptimer writes head and body apart.
    let host = "uptimer.test".to_owned();
    let load = tests::load(gateway.address(), Load { host, posts: 0, slow: 0, pause, judge, ..Load::default() });
    eventually("they answer", async || (load.so_far().total > 100).then_some(())).await;
    docker(&["kill", "-s", "KILL", &gateway.named("uptimer_GREEN_2")]).unwrap();
    let so_far = load.so_far().total;
    eventually("the other goes on", async || (load.so_far().total > so_far + 500).then_some(())).await;
    let verdict = load.stop().await;
    let had_begun = |(_, why): &(Duration, String)| why.contains("bytes of the body");
    assert!(verdict.failed <= 10 && verdict.failures.iter().all(had_begun), "{:#?}", verdict.failures);

    let back = gateway.bgctl(&["rollback", "uptimer"]).await;
    said(&back, 0, &["LIVE: uptimer v1 on BLUE"]);
    assert_eq!((endpoints(&gateway).await, &back.report()["replicas"]), (2, &json!(2)));
    one_after_the_other(&gateway, &v2).await;
    let down = gateway.bgctl(&["down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
    assert!(gateway.containers().is_empty(), "{:?}", gateway.containers());
}

/// Visitors wait while the old version is stopped and the new one starts; where that one exits, for the old one again.
async fn one_after_the_other(gateway: &TestGateway, v2: &str) {
    let Some(v3) = gateway.build(TEST, &Uptimer { version: 3, loading: 0, fail: "exit" }) else { return };
    let (host, pause) = ("uptimer.test".to_owned(), Duration::from_millis(10));
    let load = load(gateway.address(), Load { host, slow: 0, pause, judge, ..Load::default() });
    let mut switch = gateway.start(&["switch", "uptimer", "--image", v2, "--stop-first"]);
    switch.until("probe").await;
    assert_eq!(gateway.inspect("uptimer_BLUE")["State"]["Running"], false, "it was stopped before");
    let switched = switch.end().await;
    said(&switched, 0, &["visitors wait from now on", "stopped ", "LIVE: uptimer v2 on GREEN"]);
    let failed = gateway.bgctl(&["switch", "uptimer", "--image", &v3]).await;
    said(&failed, 5, &["exited with code 3", "GREEN again", "traffic still on GREEN"]);
    assert_eq!((policy(gateway, "uptimer_GREEN"), endpoints(gateway).await), ("always".to_owned(), 2));
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    measured(TEST, &format!("{} requests one after the other, the longest wait {:?}", verdict.total, verdict.slowest));
}

fn policy(gateway: &TestGateway, name: &str) -> String {
    gateway.inspect(name)["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap().to_owned()
}

/// The slots' containers, without the service's name.
fn slots(gateway: &TestGateway) -> Vec<String> {
    gateway.containers().iter().filter_map(|name| name.strip_prefix("uptimer_")).map(str::to_owned).collect()
}

/// How many endpoints the live slot has, once all of them are healthy: what visitors see meanwhile is what the load judges.
async fn endpoints(gateway: &TestGateway) -> usize {
    eventually("every endpoint is healthy", async || {
        let status = gateway.bgctl(&["status", "uptimer"]).await;
        let service = &status.events[0]["services"][0];
        let all = service["slots"][service["live"].as_str()?]["endpoints"].as_array()?;
        all.iter().all(|endpoint| endpoint["healthy"] == true).then_some(all.len())
    })
    .await
}

fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
}
