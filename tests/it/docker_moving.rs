//! Moving over in place: the bash recipe's nginx and its containers, taken over under load.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Ended, Load, Running, client, eventually, load, measured};

use crate::docker_host::{TestGateway, Uptimer, debian_image, docker, gateway, inspect};
use crate::docker_switch::judge;
use crate::programs::PROGRAMS;

/// From the end of nginx to the first answer of ours; two containers are started meanwhile.
const GAP: Duration = Duration::from_secs(5);

/// nginx, as the recipe runs it.
const NGINX: &str = "bluegreen-test/nginx-base:bookworm";

/// Makes nginx's image; `false`, with a word on why, where that can't be done here.
pub(crate) fn nginx_image(test: &str) -> bool {
    debian_image(test, NGINX, "nginx-light", "[\"nginx\", \"-g\", \"daemon off;\"]")
}

/// Returns the recipe's script, on the names of a gateway.
pub(crate) fn recipe_command(gateway: &TestGateway) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recipe/recipe.sh"));
    command.env("PREFIX", gateway.named("")).env("NGINX", NGINX);
    command
}

/// Who has the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// nginx's own container.
    Nginx,
    /// One beside it, in whose network nginx is.
    Apart,
}

/// Sets the recipe up, with a version of the uptimer that answers; `false` where that can't be done here.
fn recipe(test: &str, gateway: &TestGateway, image: &str, holder: Holder) -> bool {
    if !nginx_image(test) {
        return false;
    }
    for words in [["up", &format!("127.0.0.1:{}", gateway.port), ""], ["deploy", "uptimer", image]] {
        let words = words.iter().filter(|word| !word.is_empty());
        let holder = if holder == Holder::Apart { "1" } else { "" };
        let ran = recipe_command(gateway).args(words).env("HOLDER", holder).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    true
}

/// Sets the recipe up with its ports in a container beside nginx.
pub(crate) fn recipe_beside(test: &str, gateway: &TestGateway, image: &str) -> bool {
    recipe(test, gateway, image, Holder::Apart)
}

/// Somebody who asks over a new connection again and again, and notes when there was no answer.
struct Knocks {
    stop: Arc<AtomicBool>,
    unanswered: tokio::task::JoinHandle<Vec<Instant>>,
}

impl Knocks {
    fn begin(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let unanswered = tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = async { client(address).await.ok()?.get("uptimer.test", "/").await.ok()? };
                if answer.await.is_none_or(|answer| answer.status != 200) {
                    unanswered.push(asked);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            unanswered
        });
        Self { stop, unanswered }
    }

    /// Returns the time from the first question without an answer to the last.
    async fn gap(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let unanswered = self.unanswered.await.unwrap();
        let ends = unanswered.first().zip(unanswered.last());
        ends.map_or(Duration::ZERO, |(first, last)| *last - *first)
    }
}

fn visitors(gateway: &TestGateway) -> Running {
    let (host, pause) = ("uptimer.test".to_owned(), Duration::from_millis(10));
    load(gateway.address(), Load { host, keep_alive: 6, fresh: 4, posts: 2, slow: 0, pause, judge, ..Load::default() })
}

/// Runs `up --replace`, in a folder of its own for nginx's configuration.
async fn replace(gateway: &TestGateway, folder: &tempfile::TempDir, more: &[&str]) -> Ended {
    let binary = gateway.proxy_binary.to_str().unwrap();
    let words = [&["up", "--replace", "--proxy-binary", binary], more].concat();
    gateway.start_in(folder.path(), &words).end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipe_is_taken_over_in_place_and_what_follows_loses_nothing() {
    const TEST: &str = "the_recipe_is_taken_over";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 1, fail: "" }) else { return };
    if !recipe(TEST, &gateway, &v1, Holder::Nginx) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let before = gateway.containers();

    let dry = replace(&gateway, &folder, &["--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{}", dry.talk);
    assert_eq!(
        (&dry.events[0]["services"][0]["service"], &dry.events[0]["services"][0]["live"]),
        (&Value::from("uptimer"), &Value::from("blue"))
    );
    assert_eq!((gateway.containers(), std::fs::read_dir(folder.path()).unwrap().count()), (before, 0));

    let load = visitors(&gateway);
    eventually("nginx answers", async || load.so_far().versions.contains_key("v1").then_some(())).await;
    let knocks = Knocks::begin(gateway.address());
    let replaced = replace(&gateway, &folder, &[]).await;
    assert_eq!(replaced.code, Some(0), "{}", replaced.talk);
    assert!(replaced.talk.contains("new connections were refused for at most"), "{}", replaced.talk);
    // Whoever comes now is answered.
    let now = load.so_far();
    eventually("ours answers", async || (load.so_far().total > now.total + 50).then_some(())).await;
    let verdict = load.stop().await;
    assert!(verdict.failed <= now.failed + 12, "more than what was under way failed after it said that it was done");
    // All that failed did so within one gap, and that is the one that was told of.
    let gap = knocks.gap().await;
    let told = replaced.talk.lines().find(|line| line.contains("refused for at most")).unwrap();
    let millis: u64 = told.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
    assert!(gap < GAP && gap.as_millis() < u128::from(millis) + 500, "{gap:?}: {told}");
    measured(
        TEST,
        &format!(
            "nobody listened for {gap:?}, and it said {millis} ms; {} of {} requests failed",
            verdict.failed, verdict.total
        ),
    );
    let kept = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read_to_string(kept).unwrap().contains("uptimer_BLUE:8080"));
    let old = gateway.inspect("reverse-proxy_before");
    assert_eq!((&old["State"]["Running"], &old["HostConfig"]["RestartPolicy"]["Name"]), (&false.into(), &"no".into()));

    // From here on it is a gateway like any other.
    let load = visitors(&gateway);
    let switched = gateway.bgctl(&["switch", "uptimer", "--image", &v2, "--bake", "1s"]).await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    assert_eq!(switched.report()["old"]["image"], *v1, "{}", switched.talk);
    let green = gateway.inspect("uptimer_GREEN");
    assert_eq!(green["Config"]["Labels"]["bluegreen.service"], "uptimer");
    // What the recipe started is stopped, and no reboot starts it again.
    let blue = gateway.inspect("uptimer_BLUE");
    assert_eq!(
        (&blue["State"]["Running"], &blue["HostConfig"]["RestartPolicy"]["Name"]),
        (&false.into(), &"no".into())
    );
    let back = gateway.bgctl(&["rollback", "uptimer"]).await;
    assert_eq!(back.code, Some(0), "{}", back.talk);
    assert_eq!(gateway.inspect("uptimer_BLUE")["HostConfig"]["RestartPolicy"]["Name"], "always");
    // Twice more: then nothing of the recipe's is left.
    for _ in 0..2 {
        let again = gateway.bgctl(&["switch", "uptimer", "--image", &v2, "--bake", "1s"]).await;
        assert_eq!(again.code, Some(0), "{}", again.talk);
    }
    load.stop().await.assert_none_failed();
    let strangers: Vec<String> = gateway
        .containers()
        .into_iter()
        .filter(|name| gateway.inspect(name)["Config"]["Labels"]["bluegreen.gateway"].is_null())
        .collect();
    assert_eq!(strangers, ["reverse-proxy_before"]);
    let history = gateway.bgctl(&["history", "uptimer"]).await;
    let first = history.events[0]["entries"].as_array().unwrap().last().unwrap().clone();
    assert!(first["what"].as_str().unwrap().starts_with("taken over from nginx"), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_over_is_known_again_after_down_and_up() {
    const TEST: &str = "what_was_taken_over_is_known_again";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 0, fail: "" }) else { return };
    if !recipe(TEST, &gateway, &v1, Holder::Nginx) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let replaced = replace(&gateway, &folder, &[]).await;
    assert_eq!(replaced.code, Some(0), "{}", replaced.talk);
    // Twice: the second finds nothing to keep, and keeps what there is.
    for _ in 0..2 {
        let down = gateway.bgctl(&["down"]).await;
        assert_eq!(down.code, Some(0), "{}", down.talk);
    }
    assert_eq!(gateway.inspect("uptimer_BLUE")["State"]["Running"], true);
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let load = visitors(&gateway);
    eventually("the old version answers", async || load.so_far().versions.contains_key("v1").then_some(())).await;
    let switched = gateway.bgctl(&["switch", "uptimer", "--image", &v2, "--bake", "1s"]).await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    assert_eq!(switched.report()["old"]["image"], *v1, "{}", switched.talk);
    let back = gateway.bgctl(&["rollback", "uptimer"]).await;
    assert_eq!(back.code, Some(0), "{}", back.talk);
    load.stop().await.assert_none_failed();
    assert_eq!(gateway.inspect("uptimer_BLUE")["State"]["Running"], true);

    let down = gateway.bgctl(&["down", "--volumes"]).await;
    assert!(down.code == Some(0) && down.events[0].to_string().contains("knows nothing"), "{}", down.talk);
    assert!(!gateway.leftovers().iter().any(|left| left.contains("bluegreen")), "{:?}", gateway.leftovers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_that_fails_leaves_nginx_serving() {
    const TEST: &str = "a_takeover_that_fails";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    if !recipe(TEST, &gateway, &v1, Holder::Apart) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let containers = gateway.containers();
    // Half way: nginx is stopped, and the port that ours is to have is taken by someone else.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("{}:80", taken.local_addr().unwrap());
    let failed = replace(&gateway, &folder, &["--publish", &elsewhere]).await;
    assert_eq!(failed.code, Some(2), "{}", failed.talk);
    assert!(failed.talk.contains("serves again, as before"), "{}", failed.talk);
    assert_eq!(gateway.containers(), containers);
    assert_eq!(gateway.inspect("reverse-proxy")["HostConfig"]["RestartPolicy"]["Name"], "always");
    let load = visitors(&gateway);
    eventually("nginx answers", async || load.so_far().versions.contains_key("v1").then_some(())).await;

    // A kill in the trial: the next run takes it back first.
    let mut killed =
        gateway.start_in(folder.path(), &["up", "--replace", "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]);
    eventually("the trial runs", async || {
        inspect(&gateway.named("reverse-proxy_moving"))["State"]["Running"].as_bool().filter(|running| *running)
    })
    .await;
    killed.signal(rustix::process::Signal::KILL);
    assert!(!killed.ends_within(Duration::from_secs(5)).await, "a signal is no exit code");
    load.stop().await.assert_none_failed();
    let began = Instant::now();
    let again = replace(&gateway, &folder, &[]).await;
    assert_eq!(again.code, Some(0), "{}", again.talk);
    measured(TEST, &format!("after a kill it took {:?}", began.elapsed()));
    assert!(!gateway.containers().iter().any(|name| name.ends_with("_moving")), "{:?}", gateway.containers());

    // A kill between the two names: visitors are on ours, and stay there.
    let rename = |from: &str, to: &str| {
        docker(&["rename", &gateway.named(from), &gateway.named(to)]).unwrap();
    };
    let load = visitors(&gateway);
    rename("reverse-proxy", "reverse-proxy_moving");
    rename("reverse-proxy_before", "reverse-proxy");
    let finished = replace(&gateway, &folder, &[]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.talk);
    assert!(finished.talk.contains("finished what an interrupted run had begun"), "{}", finished.talk);
    load.stop().await.assert_none_failed();
    let names = gateway.containers();
    assert!(names.contains("reverse-proxy") && names.contains("reverse-proxy_before"), "{names:?}");

    // A kill where nobody served: nginx does again, and what a reboot does of it is as it was.
    for part in ["reverse-proxy", "reverse-proxy-ports"] {
        docker(&["stop", "-t", "0", &gateway.named(part)]).unwrap();
        rename(part, &format!("{part}_moving"));
        rename(&format!("{part}_before"), part);
    }
    let failed = replace(&gateway, &folder, &["--publish", &elsewhere]).await;
    assert_eq!(failed.code, Some(2), "{}", failed.talk);
    assert!(failed.talk.contains("which an interrupted run had stopped"), "{}", failed.talk);
    for part in ["reverse-proxy", "reverse-proxy-ports"] {
        let found = gateway.inspect(part);
        let is_as_before = (&found["State"]["Running"], &found["HostConfig"]["RestartPolicy"]["Name"]);
        assert_eq!(is_as_before, (&true.into(), &"always".into()), "{part}: {}", failed.talk);
    }
    // Saved state that knows the service is no hindrance.
    let again = replace(&gateway, &folder, &[]).await;
    assert_eq!(again.code, Some(0), "{}", again.talk);

    // A second time there is nothing to replace.
    let nothing = replace(&gateway, &folder, &[]).await;
    assert_eq!(nothing.code, Some(0), "{}", nothing.talk);
    assert!(nothing.talk.contains("there is no nginx to replace"), "{}", nothing.talk);
    docker(&["rm", "-f", &gateway.named("uptimer_BLUE")]).unwrap();
}

/// Every block of the page, word for word but for the names that a test has to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_moving_over_is_followed_to_the_letter() {
    const TEST: &str = "the_page_on_moving_over";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 0, fail: "" }) else { return };
    if !recipe(TEST, &gateway, &v1, Holder::Nginx) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // `bgctl` and the proxy's binary are found as they are by whoever follows the page: beside each other. A link of the soft
    // kind would lead back to what was built for these tests.
    let bgctl = folder.path().join("bgctl");
    if std::fs::hard_link(PROGRAMS.bgctl, &bgctl).is_err() {
        std::fs::copy(PROGRAMS.bgctl, &bgctl).unwrap();
    }
    std::os::unix::fs::symlink(&gateway.proxy_binary, folder.path().join("bgproxy")).unwrap();
    let page = include_str!("../../docs/from-the-bash-script.md");
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4);
    let mut said = String::new();
    for block in blocks {
        let block =
            block.replace("uptimer:2", &v2).replace("reverse-proxy_before", &gateway.named("reverse-proxy_before"));
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let ran = tokio::process::Command::new("sh")
            .args(["-euc", &block])
            .current_dir(folder.path())
            .env("PATH", path)
            .env("BG_GATEWAY", &gateway.name)
            .output()
            .await
            .unwrap();
        said += &String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{block}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let line = format!("uptimer: {} is live, for every other host", gateway.named("uptimer_BLUE"));
    assert!(said.contains(&line), "{said}");
    let expected = ["reverse-proxy", "reverse-proxy-ports", "uptimer_BLUE", "uptimer_GREEN"].map(str::to_owned);
    assert!(gateway.containers().into_iter().eq(expected), "{:?}", gateway.containers());
}
