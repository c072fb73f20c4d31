//! Podman in Docker's place, reached by the API that it shares with it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::{Ended, Started, client, eventually, measured};

use crate::docker_host::{TestGateway, Uptimer, gateway};
use crate::programs::PROGRAMS;

/// Podman with a store of its own; dropping it removes everything.
struct Podman {
    folder: TempDir,
    service: Child,
}

/// Returns a Podman that answers; `None`, with a word on why, where there is none or it can't run a container here.
async fn podman(test: &str) -> Option<Podman> {
    if Command::new("podman").arg("--version").output().is_err() {
        return missing(test, "there is no podman");
    }
    if !rustix::process::getuid().is_root() {
        return missing(test, "without root, its containers have no network that the proxy could reach them by");
    }
    let folder = tempfile::tempdir().unwrap();
    // What it gives a container by default may be more than this machine lets anybody have.
    let limits = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n";
    fs::write(folder.path().join("containers.conf"), limits).unwrap();
    let mut command = command(folder.path());
    command.args(["system", "service", "--time=0"]).arg(format!("unix://{}", socket(folder.path())));
    let service = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let podman = Podman { folder, service };
    let path = socket(podman.folder.path());
    eventually("podman answers", async || std::os::unix::net::UnixStream::connect(&path).ok().map(drop)).await;
    Some(podman)
}

/// Says that a test is skipped, also where CI wants no test of Docker skipped: Podman is an engine beside it.
fn missing<T>(test: &str, why: &str) -> Option<T> {
    tests::skipped(test, why);
    None
}

fn socket(folder: &Path) -> String {
    folder.join("podman.sock").display().to_string()
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", folder.join("containers.conf"));
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command.args(["--cgroup-manager", "cgroupfs"]);
    command
}

impl Podman {
    async fn bgctl(&self, gateway: &TestGateway, words: &[&str]) -> Ended {
        let host = format!("unix://{}", socket(self.folder.path()));
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.args(["--host", &host, "--gateway", &gateway.name, "--json", "--yes"]).args(words);
        Started::spawn(command).end().await
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for words in [&["rm", "--all", "--force", "--time", "0"][..], &["network", "prune", "--force"]] {
            let _ = command(self.folder.path()).args(words).output();
        }
        let _ = self.service.kill();
        let _ = self.service.wait();
        // A store that was mounted is no folder to remove.
        let _ = Command::new("umount").arg("-R").arg(self.folder.path().join("root/overlay")).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_on_podman_and_what_it_can_not_do_is_said() {
    const TEST: &str = "everything_works_on_podman";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(podman) = podman(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 0, fail: "" }) else { return };
    let Some(bad) = gateway.build(TEST, &Uptimer { version: 3, loading: 0, fail: "exit" }) else { return };
    let began = Instant::now();
    let run = async |words: &[&str]| {
        let ended = podman.bgctl(&gateway, words).await;
        assert_eq!(ended.code, Some(0), "{words:?}: {}", ended.talk);
        ended
    };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up = ["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()];
    let first = podman.bgctl(&gateway, &up).await;
    if first.talk.contains("OCI") || first.talk.contains("cgroup") {
        missing::<()>(TEST, &format!("podman runs no container here: {}", first.talk));
        return;
    }
    assert_eq!(first.code, Some(0), "{}", first.talk);
    for image in [&v1, &v2, &bad] {
        let pushed = run(&["push", image]).await;
        assert_eq!(pushed.report()["way"], "whole", "{}", pushed.talk);
    }
    let answer = async || {
        let mut visitor = client(gateway.address()).await.unwrap();
        visitor.get("uptimer.test", "/").await.unwrap().unwrap().status
    };

    let switched = run(&["switch", "uptimer", "--image", &v1, "--bake", "200ms", "--env", "COLOUR=red"]).await;
    let is_policy_set = !switched.talk.contains("warning");
    assert!(is_policy_set || switched.talk.contains("this Podman can't change one"), "{}", switched.talk);
    assert_eq!(answer().await, 200);
    run(&["switch", "uptimer", "--image", &v2, "--bake", "200ms"]).await;
    let told = Instant::now();
    let failed = podman.bgctl(&gateway, &["switch", "uptimer", "--image", &bad]).await;
    assert_eq!(failed.code, Some(5), "{}", failed.talk);
    assert!(failed.talk.contains("exited with code") && told.elapsed() < Duration::from_secs(15), "{}", failed.talk);
    let back = run(&["rollback", "uptimer"]).await;
    assert_eq!(back.report()["new"]["image"], *v1, "{}", back.talk);
    let status = run(&["status"]).await;
    assert_eq!(status.events[0]["services"][0]["live"], "blue", "{}", status.events[0]);
    run(&["exec", "uptimer", "--", "sh", "-c", "test \"$COLOUR\" = red"]).await;
    run(&["logs", "uptimer", "-n", "3"]).await;
    run(&["scale", "uptimer", "2"]).await;
    assert_eq!(answer().await, 200);
    let doctor = run(&["doctor"]).await;
    assert!(doctor.events[0].to_string().contains("Podman has no daemon"), "{}", doctor.events[0]);
    run(&["rm", "uptimer"]).await;
    run(&["down", "--volumes"]).await;
    let left = command(podman.folder.path()).args(["ps", "--all", "--quiet"]).output().unwrap();
    assert!(left.status.success() && left.stdout.is_empty(), "{left:?}");
    measured(TEST, &format!("all of it took {:?}", began.elapsed()));
}
