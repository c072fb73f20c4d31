//! Services without a port: a worker comes, goes, fails and is gone back to with the same words as any other.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Ended, Site, client};

use crate::docker_host::{Uptimer, gateway};
use crate::programs::PROGRAMS;

fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
}

/// A worker that writes into a file when it starts, and when it is asked to stop.
fn worker(site: &Site, name: &str, diary: &Path) -> String {
    let diary = diary.display();
    site.script(
        name,
        &format!("trap 'echo {name} stops >> {diary}; exit 0' TERM\necho {name} starts >> {diary}\nwhile :; do sleep 0.1; done"),
    )
}

async fn status(site: &Site) -> Value {
    site.bgctl(&["status", "mailer"]).await.events[0]["services"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_switched_stopped_by_its_signal_and_gone_back_to_without_a_route() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let diary = folder.path().join("diary");
    let (v1, v2) = (worker(&site, "v1", &diary), worker(&site, "v2", &diary));
    // The catch-all is another service's, and stays so.
    let shop = site.version("shop", Duration::from_millis(100));
    // The next free one: the gateway has that.
    let port = site.address().port().to_string();
    let first = site.bgctl(&["switch", "shop", "--image", &shop, "--port", &port, "--bake", "0s"]).await;
    said(&first, 0, &["LIVE: shop on BLUE"]);

    let began = Instant::now();
    said(&site.bgctl(&["switch", "mailer", "--image", &v1, "--no-port"]).await, 0, &["LIVE: mailer on BLUE"]);
    assert!(began.elapsed() >= Duration::from_secs(5), "it must have run for 5 s: {:?}", began.elapsed());
    let live = status(&site).await;
    assert_eq!((&live["live"], &live["slots"]["blue"]["endpoints"]), (&json!("blue"), &json!([])));
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get("mailer.test", "/").await.unwrap().unwrap();
    assert_eq!(answer.field("x-version"), Some("shop"), "a worker takes no requests");
    let table = site.bgctl_plain(&["status", "mailer"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("no port"), "{table:?}");

    // Remembered; the old one is asked to stop when the new one has proved itself, and not before.
    let second = site.bgctl(&["switch", "mailer", "--image", &v2, "--replicas", "2"]).await;
    said(&second, 0, &["LIVE: mailer on GREEN", "the old version is stopped"]);
    assert_eq!((&second.report()["kept"], &second.report()["replicas"]), (&json!("stopped"), &json!(2)));
    // It has no requests, so none are spoken of.
    for words in ["drain", "requests", "watching", "in flight"] {
        assert!(!second.talk.contains(words), "`{words}` is said of a worker: {}", second.talk);
    }
    let read = || std::fs::read_to_string(&diary).unwrap();
    assert_eq!(read(), "v1 starts\nv2 starts\nv2 starts\nv1 stops\n");

    let exits = site.script("v3", "sleep 1; echo no queue to read from >&2; exit 3");
    let failed = site.bgctl(&["switch", "mailer", "--image", &exits, "--replicas", "1"]).await;
    said(&failed, 5, &["exited with code 3", "| no queue to read from", "GREEN still runs"]);
    assert_eq!(read(), "v1 starts\nv2 starts\nv2 starts\nv1 stops\n", "nothing happened to the old one");

    said(&site.bgctl(&["rollback", "mailer"]).await, 0, &["LIVE: mailer on BLUE"]);
    assert_eq!(read(), "v1 starts\nv2 starts\nv2 starts\nv1 stops\nv1 starts\nv2 stops\nv2 stops\n");
    let history = site.bgctl(&["history", "mailer"]).await;
    let outcomes: Vec<&Value> =
        history.events[0]["entries"].as_array().unwrap().iter().map(|entry| &entry["outcome"]).collect();
    assert_eq!(outcomes, ["done", "undone", "done", "done"]);

    for words in
        [&["pause", "mailer"][..], &["maintenance", "mailer", "on"], &["canary", "mailer", "5"], &["preview", "mailer"]]
    {
        said(&site.bgctl(words).await, 1, &["mailer has no port, so it has no visitors"]);
    }
    said(&site.bgctl(&["scale", "mailer", "2"]).await, 1, &["has no port", "--replicas 2"]);
    said(&site.bgctl(&["switch", "mailer", "--domain", "mailer.test"]).await, 1, &["--no-port", "--port gives it one"]);
    said(&site.bgctl(&["--yes", "rm", "mailer"]).await, 0, &["removed mailer_BLUE", "removed mailer_GREEN_2"]);
}

/// The same as containers: the engine's own policies say which one comes back with a reboot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_workers_come_and_go_like_every_other_service() {
    const TEST: &str = "docker_workers";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let first = ["switch", "mailer", "--image", &image, "--no-port", "--stop-grace", "1s", "--replicas", "2"];
    said(&gateway.bgctl(&first).await, 0, &["LIVE: mailer v1 on BLUE"]);
    let second = gateway.bgctl(&["switch", "mailer", "--env", "SECOND=1", "--replicas", "1"]).await;
    said(&second, 0, &["LIVE: mailer v1 on GREEN", "the old version is stopped"]);
    let state = |name: &str| {
        let container = gateway.inspect(name);
        (container["State"]["Running"].clone(), container["HostConfig"]["RestartPolicy"]["Name"].clone())
    };
    assert_eq!(state("mailer_GREEN"), (json!(true), json!("always")));
    assert_eq!(
        (state("mailer_BLUE"), state("mailer_BLUE_2")),
        ((json!(false), json!("no")), (json!(false), json!("no")))
    );
    said(&gateway.bgctl(&["rollback", "mailer"]).await, 0, &["LIVE: mailer v1 on BLUE"]);
    assert_eq!((state("mailer_BLUE_2"), state("mailer_GREEN").0), ((json!(true), json!("always")), json!(false)));
    let down = gateway.bgctl(&["down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
}
