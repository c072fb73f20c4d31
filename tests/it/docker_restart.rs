//! A restart of the Docker daemon: exactly what was live comes back. Run alone, and only where `BG_DOCKER_RESTART` is set:
//! to the command that restarts the daemon, or to `1` for systemd's.

use std::process::Command;
use std::time::Duration;

use config::name::Slot;
use ctl::engine::{Engine, Exit, Happening, Restart};
use tests::skipped;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::docker_engine::slot_spec;
use crate::docker_host::{gateway, inspect};

#[tokio::test]
async fn a_daemon_restart_brings_back_exactly_the_live_slot() {
    const TEST: &str = "a_daemon_restart_brings_back_exactly_the_live_slot";
    let command = match std::env::var("BG_DOCKER_RESTART") {
        Ok(one) if one == "1" => "systemctl restart docker".to_owned(),
        Ok(command) if !command.is_empty() => command,
        _ => {
            // Not a part that BG_REQUIRE_DOCKER asks for: it would stop everybody's containers.
            return skipped(TEST, "BG_DOCKER_RESTART does not allow to restart the daemon");
        }
    };
    let Some(gateway) = gateway(TEST).await else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let mut spec = slot_spec(&gateway, &["hold"]).await;
    let old = engine.create(&spec).await.unwrap();
    engine.start(&old).await.unwrap();
    spec.slot = Slot::Green;
    let live = engine.create(&spec).await.unwrap();
    engine.start(&live).await.unwrap();
    engine.set_restart(&live, Restart::Always).await.unwrap();
    // As a switch leaves it: the old one may no longer come back by itself, and still runs.
    engine.set_restart(&old, Restart::Always).await.unwrap();
    engine.set_restart(&old, Restart::No).await.unwrap();

    let restarting = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &command]).status().unwrap());
    let (restarted, happening) = tokio::join!(restarting, engine.watch(&old));
    assert!(restarted.unwrap().success());
    assert!(matches!(happening, Ok(Happening::Exited(Exit { .. }))), "the watch outlives the daemon: {happening:?}");

    let back = async {
        while !matches!(answer(engine).await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), back).await.expect("the proxy serves again within 5 s unaided");
    let running = |name: &str| inspect(name)["State"]["Running"] == true;
    assert!(running(&live.name) && !running(&old.name));
    assert!(running(&gateway.named("reverse-proxy-ports")) && running(&gateway.named("reverse-proxy")));
    // Both are in one namespace that has a network, or the site would be dark behind a proxy that runs.
    let pid = |name: &str| inspect(&gateway.named(name))["State"]["Pid"].to_string();
    let namespace = |pid: String| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(namespace(pid("reverse-proxy")), namespace(pid("reverse-proxy-ports")));
    let up = engine.up(&gateway.spec()).await.unwrap();
    assert!(!up.changed, "nothing was left to mend: {up:?}");
}

/// Asks the proxy for its version through the relay, as every bgctl does first.
async fn answer(engine: &Engine) -> std::io::Result<bool> {
    let Ok(Some(mut stream)) = engine.admin().await else { return Ok(false) };
    stream.write_all(b"GET /v1/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
