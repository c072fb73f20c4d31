//! A restart of the Docker daemon: exactly what was live comes back. Only where `BG_DOCKER_RESTART` is set: to the command
//! that restarts the daemon and waits for it, such as `.ci/restart-docker`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use ctl::engine::{Exit, Happening};
use tests::{client, measured, skipped};

use crate::docker_host::{TestGateway, Uptimer, docker, gateway};

const TEST: &str = "a_daemon_restart";
/// How soon the sites answer once the daemon does.
const BACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_restart_brings_back_exactly_the_live_slots() {
    let Some(command) = std::env::var("BG_DOCKER_RESTART").ok().filter(|command| !command.is_empty()) else {
        // Not a part that BG_REQUIRE_DOCKER asks for: it stops everybody's containers.
        return skipped(TEST, "BG_DOCKER_RESTART does not name a command that restarts the daemon");
    };
    let Some(gateway) = gateway(TEST).await else { return };
    let image = |version| gateway.build(TEST, &Uptimer { version, loading: 0, fail: "" });
    let (Some(first), Some(second)) = (image(1), image(2)) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    done(&gateway, &["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    // The old version of the one is stopped, that of the other still runs.
    for service in ["stopped", "warm"] {
        let domain = format!("{service}.test");
        let options = ["--domain", &domain, "--keep", service, "--bake", "0s"];
        for image in [&first, &second] {
            done(&gateway, &[&["switch", service, "--image", image][..], &options].concat()).await;
        }
    }
    let all = BTreeSet::from(["stopped_BLUE", "stopped_GREEN", "warm_BLUE", "warm_GREEN"].map(str::to_owned));
    assert!(gateway.containers().is_superset(&all), "{:?}", gateway.containers());
    assert!(running(&gateway).contains("warm_BLUE") && !running(&gateway).contains("stopped_BLUE"));

    let instances = gateway.engine.instances(None).await.unwrap();
    let warm = instances.iter().find(|instance| instance.name.ends_with("warm_BLUE")).unwrap();
    let began = Instant::now();
    let restarting = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &command]).status().unwrap());
    let (restarted, happening) = tokio::join!(restarting, gateway.engine.watch(warm));
    assert!(restarted.unwrap().success());
    assert!(matches!(happening, Ok(Happening::Exited(Exit { .. }))), "the watch outlives the daemon: {happening:?}");

    let answering = Instant::now();
    let holder_was_late = holder_was_late(&gateway);
    if holder_was_late {
        // Engines with that fault start both at once, and never try again a start that failed.
        skipped(
            TEST,
            "the engine started the proxy before its holder (moby#50326): nothing came back before `bgctl up`",
        );
        assert_eq!(done(&gateway, &["up"]).await["changed"], true);
    }
    for service in ["stopped", "warm"] {
        serves(&gateway, service, 2, answering + BACK).await;
    }
    let (after, gap) = (answering.elapsed(), began.elapsed());
    let alone = if holder_was_late { "after `bgctl up`" } else { "unaided" };
    measured(
        TEST,
        &format!("both sites served {alone}, {after:?} after the daemon answered, {gap:?} after its restart began"),
    );
    let expected = ["reverse-proxy", "reverse-proxy-ports", "stopped_GREEN", "warm_GREEN"];
    assert_eq!(running(&gateway), expected.map(str::to_owned).into(), "exactly the live slots came back");
    let pid = |name: &str| gateway.inspect(name)["State"]["Pid"].to_string();
    let namespace = |name: &str| std::fs::read_link(format!("/proc/{}/ns/net", pid(name))).unwrap();
    assert_eq!(namespace("reverse-proxy"), namespace("reverse-proxy-ports"), "the proxy is behind the published port");
    let up = done(&gateway, &["up"]).await;
    assert_eq!(up["changed"], false, "nothing was left to mend: {up}");

    // What could be gone back to before still can.
    for service in ["stopped", "warm"] {
        done(&gateway, &["rollback", service]).await;
        serves(&gateway, service, 1, Instant::now() + BACK).await;
    }
}

/// Runs a command that must succeed, and returns its document or report.
async fn done(gateway: &TestGateway, arguments: &[&str]) -> serde_json::Value {
    let ran = gateway.bgctl(arguments).await;
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    ran.events.last().cloned().unwrap()
}

/// Tells whether the engine gave the proxy up because its holder did not run yet.
fn holder_was_late(gateway: &TestGateway) -> bool {
    let state = gateway.inspect("reverse-proxy")["State"].clone();
    state["Running"] == false && state["Error"].as_str().unwrap().contains("non running container")
}

/// Waits until a service's version answers at the proxy's published port.
async fn serves(gateway: &TestGateway, service: &str, version: u32, deadline: Instant) {
    let host = format!("{service}.test");
    let ask = async || client(gateway.address()).await?.get(&host, "/").await;
    let expected = format!("Uptimer v{version}.0 is running");
    loop {
        let answer = ask().await;
        let text = answer.as_ref().ok().and_then(Option::as_ref).map(tests::Response::text);
        if text.is_some_and(|text| text.starts_with(&expected)) {
            return;
        }
        assert!(Instant::now() < deadline, "{service} does not serve v{version}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the containers of the gateway that run, without its prefix.
fn running(gateway: &TestGateway) -> BTreeSet<String> {
    let prefix = format!("{}-", gateway.name);
    let names = docker(&["ps", "--format", "{{.Names}}"]).unwrap();
    names.lines().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect()
}
