//! The main job on a real engine, under load: the recipe's uptimer comes, fails in two ways, and goes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Asked, Ended, Load, Response, client, eventually, load, measured};

use crate::bake::left_at_once;
use crate::docker_host::{TestGateway, Uptimer, docker, gateway, inspect};

const TEST: &str = "the_uptimer_comes_fails_and_goes_back";
/// From the application's first good answer to the flip; the recipe takes 2 to 3 s.
const PROMPT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uptimer_comes_fails_and_goes_back_under_load_without_a_failed_request() {
    let Some(gateway) = gateway(TEST).await else { return };
    let mut images = Vec::new();
    for (version, fail) in [(1, ""), (2, ""), (3, "exit"), (4, "never")] {
        let Some(image) = gateway.build(TEST, &Uptimer { version, loading: 1, fail }) else { return };
        images.push(image);
    }
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let binary = gateway.proxy_binary.to_str().unwrap();
    let up = gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", binary]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    assert_eq!(up.talk.contains("live-restore is off"), !is_live_restore_on(), "{}", up.talk);
    let first = gateway.bgctl(&["switch", "uptimer", "--image", &images[0], "--domain", "uptimer.test"]).await;
    said(&first, 0, &["LIVE: uptimer v1 on BLUE"]);
    assert_slot(&gateway, "uptimer_BLUE", &images[0], true);

    let address = SocketAddr::from(([127, 0, 0, 1], gateway.port));
    let host = "uptimer.test".to_owned();
    let pause = Duration::from_millis(20);
    let load =
        load(address, Load { host, keep_alive: 8, fresh: 4, posts: 4, slow: 0, pause, judge, ..Load::default() });

    second_version(&gateway, &images[1]).await;
    exits_at_start(&gateway, &images[2]).await;
    never_ready(&gateway, &images[3]).await;

    let back = gateway.bgctl(&["rollback", "uptimer"]).await;
    said(&back, 0, &["LIVE: uptimer v1 on BLUE"]);
    assert_slot(&gateway, "uptimer_BLUE", &images[0], true);
    assert_slot(&gateway, "uptimer_GREEN", &images[1], false);
    eventually("v1 answers", async || (answered(address).await.as_deref() == Ok("v1")).then_some(())).await;

    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");
    assert_eq!(verdict.versions.keys().collect::<Vec<_>>(), ["v1", "v2"], "no version that failed was ever asked");
    measured(TEST, &format!("{} requests, {} failed", verdict.total, verdict.failed));

    let down = gateway.bgctl(&["down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
    let left: Vec<_> = gateway.leftovers().into_iter().filter(|name| !images.contains(name)).collect();
    assert_eq!(left, Vec::<String>::new());
}

/// Two passes are wanted, 200 ms apart: how long they take depends on when between two probes it becomes ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flip_is_prompt_whenever_between_two_probes_the_application_becomes_ready() {
    const TEST: &str = "the_flip_is_prompt";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 1, fail: "" }) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let first = ["switch", "uptimer", "--image", &image, "--domain", "uptimer.test", "--bake", "0s", "--keep", "none"];
    said(&gateway.bgctl(&first).await, 0, &["LIVE: "]);
    let mut flips = Vec::new();
    for (loading, container) in
        [("1.00", "uptimer_GREEN"), ("1.05", "uptimer_BLUE"), ("1.10", "uptimer_GREEN"), ("1.15", "uptimer_BLUE")]
    {
        let loading = format!("LOADING={loading}");
        let (ended, took) =
            timed(&gateway, &["switch", "uptimer", "--image", &image, "--env", &loading], container).await;
        said(&ended, 0, &["LIVE: "]);
        flips.push(took);
    }
    measured(TEST, &format!("from the application's first good answer to the flip: {flips:?}"));
    assert!(flips.iter().all(|flip| *flip < PROMPT), "{flips:?}");
}

/// Migrations and other commands in real containers; and F2 on a real engine: the kill of the new container right after its flip.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_beside_and_inside_a_container_and_one_that_is_killed_in_its_bake_is_left() {
    const TEST: &str = "commands_run_beside_and_inside";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(v1) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let Some(v2) = gateway.build(TEST, &Uptimer { version: 2, loading: 0, fail: "" }) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let first = ["switch", "uptimer", "--image", &v1, "--domain", "uptimer.test", "--before", "python3 --version"];
    said(&gateway.bgctl(&first).await, 0, &["| Python 3.", "LIVE: "]);
    // A JSON document is what a test can read of its stdout.
    let ran = gateway.bgctl(&["run", "uptimer", "--", "python3", "-c", "import os; print(os.environ['PORT'])"]).await;
    assert_eq!((ran.code, &ran.events), (Some(0), &vec![json!(8080)]), "{}", ran.talk);
    let inside = gateway.bgctl(&["exec", "uptimer", "--", "python3", "-c", "import sys; print(1); sys.exit(7)"]).await;
    assert_eq!((inside.code, &inside.events), (Some(7), &vec![json!(1)]), "{}", inside.talk);
    let failed = gateway.bgctl(&["switch", "uptimer", "--image", &v2, "--before", "exit 4"]).await;
    said(&failed, 9, &["`exit 4` ended with code 4", "traffic still on BLUE"]);
    let only_blue = ["reverse-proxy", "reverse-proxy-ports", "uptimer_BLUE"].map(str::to_owned);
    assert!(gateway.containers().into_iter().eq(only_blue.clone()), "{:?}", gateway.containers());

    // A smoke test reaches the new version: from this machine by its address, in the network by its name.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    let ask = "import os,urllib.request as r; print(r.urlopen('http://'+os.environ['BG_ADDRESS']).read())";
    for (place, smoke) in
        [("here", "curl -fsS http://$BG_ADDRESS/; exit 5"), ("container", &format!("python3 -c \"{ask}\"; exit 5"))]
    {
        let hooks = format!("[services.uptimer.hooks]\nbefore_flip = '''{smoke}'''\nbefore_flip_in = \"{place}\"\n");
        std::fs::write(&file, hooks).unwrap();
        let words = ["--file", file.to_str().unwrap(), "switch", "uptimer", "--image", &v2, "--before", ""];
        said(&gateway.bgctl(&words).await, 9, &["Uptimer v2.0", "ended with code 5", "traffic still on BLUE"]);
        assert!(gateway.containers().into_iter().eq(only_blue.clone()), "{:?}", gateway.containers());
    }

    let (host, pause) = ("uptimer.test".to_owned(), Duration::from_millis(2));
    let load = load(gateway.address(), Load { host, posts: 0, slow: 0, pause, judge, ..Load::default() });
    let words = ["switch", "uptimer", "--image", &v2, "--before", "", "--bake", "30s"];
    let mut switch = gateway.start(&words);
    switch.until("flipped").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(load.so_far().versions.contains_key("v2"));
    docker(&["kill", "-s", "KILL", &gateway.named("uptimer_GREEN")]).unwrap();
    let killed = Instant::now();
    let back = switch.until("flipped_back").await;
    let (took, failing) = (killed.elapsed(), left_at_once(&back));
    let ended = switch.end().await;
    said(&ended, 4, &["uptimer on GREEN was flipped back: nothing answers there", "traffic still on BLUE"]);
    let verdict = load.stop().await;
    // Of an answer that had begun nobody can give the rest: the uptimer writes head and body apart.
    let had_begun = |(_, why): &(Duration, String)| why.contains("bytes of the body");
    assert!(verdict.failed <= 10 && verdict.failures.iter().all(had_begun), "{:#?}", verdict.failures);
    measured(
        TEST,
        &format!(
            "back {failing:?} after the first failure, told {took:?} after the kill; {} requests, slowest {:?}",
            verdict.total, verdict.slowest
        ),
    );
    assert_slot(&gateway, "uptimer_BLUE", &v1, true);
    assert!(gateway.containers().into_iter().eq(only_blue), "{:?}", gateway.containers());
    // A pure flip back: a reboot then revives the version that is live, and no other.
    let words = ["switch", "uptimer", "--image", &v2, "--before", "", "--bake", "0s", "--keep", "warm"];
    said(&gateway.bgctl(&words).await, 0, &["LIVE: uptimer v2 on GREEN"]);
    let back = gateway.bgctl(&["rollback", "uptimer"]).await;
    said(&back, 0, &["LIVE: uptimer v1 on BLUE"]);
    assert_eq!(back.report()["healthy_seconds"], Value::Null, "a pure flip");
    let policy = |name: &str| gateway.inspect(name)["HostConfig"]["RestartPolicy"]["Name"].clone();
    assert_eq!((policy("uptimer_BLUE"), policy("uptimer_GREEN")), (json!("always"), json!("no")));
    // What is beyond what is to be kept goes, and nothing else.
    let words =
        ["switch", "uptimer", "--image", &v2, "--before", "", "--bake", "0s", "--keep", "none", "--keep-images", "1"];
    said(&gateway.bgctl(&words).await, 0, &["LIVE: uptimer v2 on GREEN"]);
    let pruned = gateway.bgctl(&["prune"]).await;
    assert_eq!(pruned.code, Some(0), "{}", pruned.talk);
    assert_eq!(pruned.events[0]["removed"], json!([v1]), "{}", pruned.talk);
    assert_eq!((inspect(&v1), inspect(&v2).is_null()), (Value::Null, false));
    let gone = gateway.bgctl(&["rollback", "uptimer", "--to", &v1]).await;
    said(&gone, 3, &["is not there any more"]);
    let down = gateway.bgctl(&["down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
}

/// Runs a switch; returns how long it took from the application's own first good answer until the flip was said.
async fn timed(gateway: &TestGateway, words: &[&str], container: &str) -> (Ended, Duration) {
    let mut switch = gateway.start(words);
    let flipped = async {
        switch.until("flipped").await;
        Instant::now()
    };
    let (good, flipped) = tokio::join!(first_good_answer(gateway, container), flipped);
    (switch.end().await, flipped.saturating_duration_since(good))
}

fn is_live_restore_on() -> bool {
    docker(&["info", "--format", "{{.LiveRestoreEnabled}}"]).unwrap().trim() == "true"
}

/// The switch to v2: reported as the contract says, and soon after the application's first good answer.
async fn second_version(gateway: &TestGateway, image: &str) {
    let words = ["switch", "uptimer", "--image", image, "--bake", "1s"];
    let (ended, waited) = timed(gateway, &words, "uptimer_GREEN").await;
    measured(TEST, &format!("{waited:?} from the application's first good answer to the flip"));
    assert!(waited < PROMPT, "{waited:?}");
    said(&ended, 0, &["LIVE: uptimer v2 on GREEN", "old slot drains, watching 1 s"]);
    let report = ended.report();
    assert_eq!(report["old"], json!({ "slot": "blue", "image": gateway.named("uptimer:v1") }));
    assert_eq!(report["new"], json!({ "slot": "green", "image": image }));
    let requests = &report["requests"];
    assert!(requests["old"].as_u64().unwrap() > 0 && requests["new"].as_u64().unwrap() > 0, "{report}");
    assert_eq!((&requests["cut"], &requests["failed"], &report["kept"]), (&json!(0), &json!(0), &json!("stopped")));
    assert_slot(gateway, "uptimer_GREEN", image, true);
    assert_slot(gateway, "uptimer_BLUE", &gateway.named("uptimer:v1"), false);
}

/// F1: told at once, with the exit code and the last words; nothing of it is left, and v1 still waits to be gone back to.
async fn exits_at_start(gateway: &TestGateway, image: &str) {
    let began = Instant::now();
    let ended = gateway.bgctl(&["switch", "uptimer", "--image", image]).await;
    said(&ended, 5, &["exited with code 3", "cannot open the database", "traffic still on GREEN"]);
    assert!(began.elapsed() < Duration::from_secs(15), "not after the deadline: {:?}", began.elapsed());
    only_v1_and_v2(gateway);
}

/// F1: removed at the deadline; while it is tried the kept version waits under its kept name.
async fn never_ready(gateway: &TestGateway, image: &str) {
    let mut switch = gateway.start(&["switch", "uptimer", "--image", image, "--deadline", "3s"]);
    switch.until("probe").await;
    assert_eq!(gateway.inspect("uptimer_BLUE_kept")["Image"], inspect(&gateway.named("uptimer:v1"))["Id"]);
    assert_eq!(gateway.inspect("uptimer_BLUE")["HostConfig"]["RestartPolicy"]["Name"], "no");
    let ended = switch.end().await;
    said(&ended, 5, &["503", "uptimer v4.0 starts", "traffic still on GREEN"]);
    only_v1_and_v2(gateway);
}

fn only_v1_and_v2(gateway: &TestGateway) {
    assert_slot(gateway, "uptimer_GREEN", &gateway.named("uptimer:v2"), true);
    assert_slot(gateway, "uptimer_BLUE", &gateway.named("uptimer:v1"), false);
    let filter = format!("name=^/?{}-uptimer", gateway.name);
    let names = docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]).unwrap();
    assert_eq!(names.lines().count(), 2, "{names}");
}

/// A slot's container as the contract says: labels, network, restart policy, log driver, `PORT`.
fn assert_slot(gateway: &TestGateway, name: &str, image: &str, is_live: bool) {
    let container = gateway.inspect(name);
    let network = gateway.named("web-gateway");
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let runs = &inspect(image)["Id"];
    assert_eq!((&container["Image"], &container["State"]["Running"]), (runs, &json!(is_live)), "{name}");
    assert_eq!(host["RestartPolicy"]["Name"], if is_live { "always" } else { "no" }, "{name}");
    let labels = &config["Labels"];
    assert_eq!((&labels["bluegreen.gateway"], &labels["bluegreen.service"]), (&json!(network), &json!("uptimer")));
    assert_eq!(labels["bluegreen.slot"], if name.ends_with("BLUE") { "blue" } else { "green" });
    assert_eq!(&labels["bluegreen.image"], runs);
    for label in ["bluegreen.deployment", "bluegreen.who"] {
        assert!(labels[label].as_str().is_some_and(|text| !text.is_empty()), "{label}: {labels}");
    }
    assert!(container["NetworkSettings"]["Networks"][&network].is_object(), "{name}");
    assert!(["journald", "local"].contains(&host["LogConfig"]["Type"].as_str().unwrap()), "{host}");
    assert!(config["Env"].as_array().unwrap().contains(&json!("PORT=8080")), "{config}");
}

fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.talk);
    for word in words {
        assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
    }
    assert_eq!(ended.report()["exit_code"], code, "{ended:?}");
}

/// Judges an answer of the uptimer.
pub(crate) fn judge(asked: &Asked<'_>, answer: &Response) -> Result<String, String> {
    let text = answer.text();
    let rest = text.strip_prefix("Uptimer v").and_then(|rest| rest.split_once(".0 "));
    let (version, rest) = rest.ok_or_else(|| format!("not the uptimer's answer: {text:?}"))?;
    let right = match asked.posted {
        Some(bytes) => rest == format!("got {bytes} bytes.\n"),
        None => rest.starts_with("is running for ") && rest.ends_with(" seconds.\n"),
    };
    if right { Ok(format!("v{version}")) } else { Err(format!("not the uptimer's answer: {text:?}")) }
}

async fn answered(address: SocketAddr) -> Result<String, String> {
    let mut visitor = client(address).await.map_err(|error| error.to_string())?;
    let answer = visitor.get("uptimer.test", "/").await.map_err(|error| error.to_string())?;
    judge(&Asked { id: "", posted: None, pieces: None }, &answer.ok_or("closed")?)
}

/// Asks a container itself, past the proxy, until it answers well; returns when that was.
async fn first_good_answer(gateway: &TestGateway, name: &str) -> Instant {
    let address = eventually("the container has an address", async || {
        let container = gateway.inspect(name);
        let networks: &Value = &container["NetworkSettings"]["Networks"];
        networks[gateway.named("web-gateway")]["IPAddress"].as_str()?.parse().ok()
    })
    .await;
    let address = SocketAddr::new(address, 8080);
    eventually("it answers", async || answered(address).await.is_ok().then(Instant::now)).await
}
