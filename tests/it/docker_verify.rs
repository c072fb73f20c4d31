//! `bgctl verify` on a real engine: two containers of one image, and nothing left of the second.

use serde_json::json;

use crate::docker_host::{Uptimer, gateway};

const TEST: &str = "verify_leaves_containers_as_they_were";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_flips_between_two_containers_of_one_image_and_leaves_them_as_they_were() {
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 0, fail: "" }) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    for image in [&v1, &v2] {
        let words = ["switch", "uptimer", "--image", image, "--domain", "uptimer.test", "--bake", "0s"];
        let switched = gateway.bgctl(&words).await;
        assert_eq!(switched.code, Some(0), "{}", switched.talk);
    }
    let seen = || {
        ["uptimer_BLUE", "uptimer_GREEN"].map(|name| {
            let container = gateway.inspect(name);
            let policy = container["HostConfig"]["RestartPolicy"]["Name"].clone();
            (container["Id"].clone(), container["State"]["Running"].clone(), policy)
        })
    };
    let before = seen();
    let verified = gateway.bgctl(&["verify", "uptimer", "--flips", "4", "--rps", "50"]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.talk);
    let report = verified.report();
    assert_eq!((&report["failed"], &report["live"]), (&json!(0), &json!("green")), "{report}");
    assert_eq!((report["flips"].as_array().unwrap().len(), &report["connections_closed"]), (4, &json!(0)), "{report}");
    assert_eq!(seen(), before);
    assert_eq!(gateway.containers().len(), 4, "{:?}", gateway.containers());
    tests::measured(TEST, &format!("{} requests, flips {}", report["requests"], report["flips"]));
    let back = gateway.bgctl(&["rollback", "uptimer"]).await;
    assert_eq!(back.code, Some(0), "{}", back.talk);
    assert_eq!(seen()[0].0, before[0].0, "the container that waited is gone back to");
}
