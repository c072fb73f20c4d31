//! What the proxy comes back with: after a kill (F6), from damaged state (F7), and with a full disk (F8).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Load, Proxy, client, eventually, load, measured, proxy_program, skipped, upstream};

use crate::programs::PROGRAMS;

/// Who answers a visitor, or with which status not.
async fn answered(proxy: &Proxy, host: &str) -> String {
    let mut visitor = client(proxy.address()).await.unwrap();
    let answer = visitor.get(host, "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

async fn status(proxy: &Proxy) -> Value {
    proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0)
}

/// F6: a kill loses neither routes nor slots, and the new process serves within 100 ms of its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxy_comes_back_with_the_same_routes_and_slots() {
    let (blue, green, other) = (upstream("blue").await, upstream("green").await, upstream("other").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    proxy.serve("other", other.address()).await;
    proxy.serve("shop", green.address()).await;
    proxy.drain("shop").await;
    // Staged and never flipped to: it is not in force after the restart either.
    proxy.stage("other", blue.address()).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        proxy.kill();
        took.push(proxy.start().await);
        assert_eq!(
            (answered(&proxy, "shop.test").await, answered(&proxy, "other.test").await),
            ("green".into(), "other".into())
        );
        let shop = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
        assert_eq!(shop["live"], "green", "{shop}");
        let address = &shop["slots"]["green"]["endpoints"][0]["address"];
        assert_eq!(address.as_str().unwrap(), green.address().to_string());
        assert_eq!(status(&proxy).await["state_lost"], json!([]));
    }
    took.sort();
    // The median: a machine that does something else in that moment is not what is asked about.
    assert!(took[2] < Duration::from_millis(100), "from the start to the first answer: {took:?}");
    measured("a_killed_proxy_comes_back", &format!("from the start to the first answer {took:?}"));
    // What was live before is still there to go back to, as soon as its probes passed.
    eventually("BLUE is healthy", async || (proxy.flip("shop").await.status == 200).then_some(())).await;
    assert_eq!(answered(&proxy, "shop.test").await, "blue");
}

/// F6 under load: a kill at any moment of flips in a row leaves one slot live, and the one that was said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_right_after_a_flip_keeps_the_flip_and_one_right_after_a_stage_keeps_the_old_slot() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    for round in 0..6 {
        let (old, new) =
            if round % 2 == 0 { (("blue", &blue), ("green", &green)) } else { (("green", &green), ("blue", &blue)) };
        proxy.stage("shop", new.1.address()).await;
        proxy.kill();
        proxy.start().await;
        assert_eq!(answered(&proxy, "shop.test").await, old.0, "round {round}: a stage is no flip");
        proxy.serve("shop", new.1.address()).await;
        proxy.kill();
        proxy.start().await;
        assert_eq!(answered(&proxy, "shop.test").await, new.0, "round {round}: what was answered holds");
    }
}

/// F7: damaged state of one service gives way to its older generation, and without one to 503, never to 404; another
/// service does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_state_gives_way_to_the_generation_before_and_without_one_to_503() {
    let (blue, green, other) = (upstream("blue").await, upstream("green").await, upstream("other").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    proxy.serve("other", other.address()).await;
    proxy.serve("shop", green.address()).await;
    proxy.kill();
    let file = |kind: &str| proxy_file(&proxy.state(), kind);
    let (current, previous) = (file("json"), file("prev"));
    let text = fs::read_to_string(&current).unwrap();
    for damaged in [&text[..text.len() / 2], &text.replacen("green", "groen", 1), &text.replacen(" 1 ", " 9 ", 1), ""] {
        fs::write(&current, damaged).unwrap();
        proxy.start().await;
        assert_eq!(answered(&proxy, "shop.test").await, "blue", "the generation before is in force");
        let status = status(&proxy).await;
        assert_eq!(status["state_lost"], json!([]));
        let warnings = status["warnings"].to_string();
        assert!(warnings.contains("shop") && warnings.contains("generation before"), "{warnings}");
        proxy.kill();
    }
    fs::write(&current, "garbled").unwrap();
    fs::write(&previous, "garbled").unwrap();
    proxy.start().await;
    assert_eq!(answered(&proxy, "shop.test").await, "503", "what is lost is not unknown");
    assert_eq!(answered(&proxy, "other.test").await, "other");
    assert_eq!(status(&proxy).await["state_lost"], json!(["shop"]));
    // The way out: the service is made anew.
    proxy.serve("shop", green.address()).await;
    assert_eq!(
        (answered(&proxy, "shop.test").await, answered(&proxy, "nobody.test").await),
        ("green".into(), "404".into())
    );
    assert_eq!(status(&proxy).await["state_lost"], json!([]));
}

fn proxy_file(state: &Path, kind: &str) -> std::path::PathBuf {
    state.join(format!("services/shop.{kind}"))
}

/// F8: a full disk is met at `stage`, in words; nothing has changed, and traffic goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_refused_at_stage_and_nothing_changes() {
    let Some(disk) = SmallDisk::mount("a_full_disk_is_refused_at_stage") else { return };
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_state(disk.folder.path().join("state"));
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    let before = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    let running = load(proxy.address(), Load { slow: 0, ..Load::default() });
    disk.fill();
    let body = json!({ "endpoints": [green.address()], "deadline": "5s" });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    let refusal = &staged.lines[0];
    assert_eq!((staged.status, &refusal["code"]), (507, &json!("not_saved")), "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains("No space left"), "{refusal}");
    assert_eq!(proxy.flip("shop").await.lines[0]["code"], "empty_slot");
    let after = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    assert_eq!(
        (&after["generation"], &after["live"], &after["slots"]["green"]),
        (&before["generation"], &json!("blue"), &before["slots"]["green"])
    );
    let seen = blue.seen_count();
    eventually("traffic goes on", async || (blue.seen_count() > seen + 100).then_some(())).await;
    // Staged while there was room: the flip is a rename, and needs none.
    disk.free();
    let staged = proxy.stage("shop", green.address()).await;
    assert_eq!(staged["event"], "healthy", "{staged}");
    disk.fill();
    let flipped = proxy.flip("shop").await;
    assert_eq!(flipped.status, 200, "{flipped:?}");
    assert_eq!(proxy.drain("shop").await["event"], "drained");
    running.stop().await.assert_none_failed();
    proxy.kill();
    proxy.start().await;
    assert_eq!(answered(&proxy, "shop.test").await, "green", "the flip is on the disk");
}

/// A file system of its own, small enough to be filled.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=700", "bluegreen-test"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                skipped(test, &format!("no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                skipped(test, &format!("no mount: {error}"));
                None
            }
        }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.path().join("filler")
    }

    fn fill(&self) {
        let full = fs::write(self.filler(), vec![0; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a proxy that a failed test leaves may still hold it.
        drop(Command::new("umount").arg("-l").arg(self.folder.path()).status());
    }
}
