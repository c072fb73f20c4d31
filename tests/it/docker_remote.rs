//! From a laptop to a server: a real engine on another host, reached by a real ssh.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tests::{Load, eventually, is_soak, load, measured};

use crate::docker_host::{TestGateway, Uptimer, docker, gateway};
use crate::docker_switch::judge;
use crate::remote_host::remote_host;

/// What `up` publishes there.
const PORT: u16 = 8080;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_to_another_host_without_the_layers_that_it_has_and_serves_there_under_load() {
    const TEST: &str = "to_another_host";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let mut images = Vec::new();
    for version in [1, 2] {
        let Some(image) = gateway.build(TEST, &Uptimer { version, loading: 0, fail: "" }) else { return };
        images.push(image);
    }
    // Another version differs in its settings alone; this one in its code too.
    images[1] = with_code(&gateway, &images[1]);
    let on = |words: &[&str]| {
        let words = [&["--gateway", &gateway.name, "--host", "production-server"], words].concat();
        words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let bgctl = async |words: &[&str]| {
        let words = on(words);
        host.bgctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let publish = format!("{PORT}:80");
    let up = bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    assert_eq!(up.events[0]["addresses"], json!([format!("http://production-server:{PORT}")]), "{}", up.talk);

    // All of it, the first time; beside what the recipe does.
    let recipe = Instant::now();
    let recipe_bytes = piped(&images[0]);
    let recipe = recipe.elapsed();
    let began = Instant::now();
    let pushed = host.bgctl(&["push", "production-server", &images[0]]).await;
    let took = began.elapsed();
    assert_eq!(pushed.code, Some(0), "{}", pushed.talk);
    let report = pushed.report();
    assert_eq!((&report["way"], &report["layers_present"]), (&json!("whole"), &json!(0)), "{report}");
    let bytes = report["bytes"].as_u64().unwrap();
    measured(
        TEST,
        &format!("first push {bytes} bytes in {took:?}; saved and gzipped alone {recipe_bytes} in {recipe:?}"),
    );
    assert!(bytes < recipe_bytes, "{bytes} bytes, and gzip needs {recipe_bytes}");
    let first = host.bgctl(&deploy(&gateway, &images[0], &["--domain", "uptimer.test"])).await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    assert!(first.talk.contains("is on docker on production-server already"), "{}", first.talk);

    let (domain, pause) = ("uptimer.test".to_owned(), Duration::from_millis(10));
    let load = load(host.at(PORT), Load { host: domain, slow: 0, pause, judge, ..Load::default() });
    let second = host.bgctl(&deploy(&gateway, &images[1], &[])).await;
    assert_eq!(second.code, Some(0), "{}", second.talk);
    let pushed = second.events.iter().find(|event| event["event"] == "pushed").unwrap();
    assert_eq!((&pushed["way"], &pushed["layers_sent"]), (&json!("layers"), &json!(1)), "{pushed}");
    let size: u64 = docker(&["inspect", "--format", "{{.Size}}", &images[1]]).unwrap().trim().parse().unwrap();
    let bytes = pushed["bytes"].as_u64().unwrap();
    measured(TEST, &format!("changed code of an image of {size} bytes: {bytes} in {} s", pushed["seconds"]));
    assert!(bytes < size / 1000, "{bytes} of {size} bytes");
    assert_eq!(second.report()["new"], json!({ "slot": "green", "image": images[1] }));
    assert_eq!(
        host.docker(&["inspect", "--format", "{{.Id}}", &images[1]]),
        docker(&["inspect", "--format", "{{.Id}}", &images[1]])
    );

    // What is there under another name needs no sending.
    let alias = gateway.named("uptimer:alias");
    docker(&["tag", &images[1], &alias]).unwrap();
    let named = host.bgctl(&["push", "production-server", &alias]).await;
    assert_eq!((&named.report()["way"], &named.report()["bytes"]), (&json!("named"), &json!(0)), "{}", named.talk);
    assert_eq!(
        host.docker(&["inspect", "--format", "{{.Id}}", &alias]),
        docker(&["inspect", "--format", "{{.Id}}", &alias])
    );

    let back = bgctl(&["rollback", "uptimer"]).await;
    assert_eq!(back.code, Some(0), "{}", back.talk);
    let logs = bgctl(&["logs", "uptimer", "-n", "5"]).await;
    assert!(logs.code == Some(0) && !logs.events.is_empty(), "{logs:?}");
    let history = bgctl(&["history", "uptimer"]).await;
    assert_eq!(history.events[0]["entries"].as_array().unwrap().len(), 3, "{history:?}");
    let status = bgctl(&["status", "uptimer"]).await;
    assert_eq!(status.events[0]["services"][0]["live"], "blue", "{status:?}");
    let inside = bgctl(&["exec", "uptimer", "--", "python3", "-c", "print(6 * 7)"]).await;
    assert_eq!((inside.code, &inside.events), (Some(0), &vec![json!(42)]), "{}", inside.talk);
    let verdict = load.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0, "client connections were closed");
    measured(TEST, &format!("{} requests to the other host, {} failed", verdict.total, verdict.failed));
    // Nothing of it came to pass on this machine.
    assert!(gateway.containers().is_empty(), "{:?}", gateway.containers());
    // What is seen of this machine is not said of that one.
    let words = ["--gateway", &gateway.name, "--host", "production-server", "doctor"];
    let doctor = host.bgctl_plain(&words).await;
    assert!(doctor.contains("is on another host, and was not looked at") && !doctor.contains("MiB free"), "{doctor}");
    let down = bgctl(&["down", "--volumes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
    assert_eq!(host.docker(&["ps", "-aq"]).as_deref(), Ok(""));
}

/// F14: whenever the connection is cut, nothing there has the image's name and nothing that runs is touched; and the next push is
/// whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_cut_at_any_point_leaves_no_name_and_says_so() {
    const TEST: &str = "a_push_that_is_cut";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let image = gateway.named("big:1");
    import(&image, 24 << 20, "amd64");
    let push = ["push", "production-server", &image];
    let began = Instant::now();
    let whole = host.bgctl(&push).await;
    assert_eq!(whole.code, Some(0), "{}", whole.talk);
    let took = began.elapsed();
    host.docker(&["rmi", &image]).unwrap();
    let before = (host.docker(&["images", "-aq"]), host.docker(&["ps", "-aq"]));
    let cuts: u32 = if is_soak() { 50 } else { 8 };
    let mut cut = 0;
    for number in 0..cuts {
        let mut push = host.start(&push);
        // Spread over the whole of it, the connecting included.
        let at = took * (number + 1) / (cuts + 1);
        let is_over = push.ends_within(at).await;
        if host.cut_connections() > 0 && !is_over {
            let ended = push.end().await;
            if ended.code == Some(8) {
                cut += 1;
                assert!(ended.talk.contains("error: ") && ended.talk.contains("production-server"), "{}", ended.talk);
                let now = (host.docker(&["images", "-aq"]), host.docker(&["ps", "-aq"]));
                assert_eq!(now, before, "cut after {at:?}");
                continue;
            }
            assert_eq!(ended.code, Some(0), "{}", ended.talk);
        }
        // It was over before the cut.
        let _gone = host.docker(&["rmi", &image]);
    }
    measured(TEST, &format!("{cut} of {cuts} pushes of 24 MiB were cut within {took:?}"));
    assert!(cut >= cuts / 2, "only {cut} of {cuts} were cut");
    let again = host.bgctl(&push).await;
    assert_eq!(again.code, Some(0), "{}", again.talk);
}

/// F14: what arrived whole of a big image need not travel again, and in the end nothing but the image has a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layers_of_a_big_image_that_arrived_before_a_cut_are_not_sent_again() {
    const TEST: &str = "the_layers_of_a_big_image";
    const LAYER: u64 = 40 << 20;
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let image = gateway.named("big:3");
    import(&gateway.named("big:0"), LAYER, "amd64");
    for number in 1..=3 {
        let below = gateway.named(&format!("big:{}", number - 1));
        with_noise(&below, &gateway.named(&format!("big:{number}")), LAYER);
    }
    let push = ["push", "production-server", &image];
    let images = || host.docker(&["images", "-aq"]).unwrap();
    let partials = || host.docker(&["images", "-q", "bluegreen-partial"]).unwrap();

    let whole = host.bgctl(&push).await;
    assert_eq!(whole.code, Some(0), "{}", whole.talk);
    let report = whole.report();
    let total = report["bytes"].as_u64().unwrap();
    assert_eq!((&report["way"], &report["layers_sent"]), (&"whole".into(), &4.into()), "{report}");
    let id = docker(&["inspect", "--format", "{{.Id}}", &image]).unwrap();
    assert_eq!(host.docker(&["inspect", "--format", "{{.Id}}", &image]).unwrap(), id);
    assert_eq!(images().lines().count(), 1, "{}", images());
    host.docker(&["rmi", &image]).unwrap();

    let mut cut = host.start(&push);
    eventually("a part is there", async || (!partials().is_empty()).then_some(())).await;
    // Anywhere in what follows: the clock is random enough.
    let more = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros() % 300);
    assert!(!cut.ends_within(Duration::from_millis(more)).await, "it was over before the cut");
    host.cut_connections();
    let ended = cut.end().await;
    assert_eq!(ended.code, Some(8), "{}", ended.talk);
    assert!(ended.talk.contains("hint: the layers that arrived stay there"), "{}", ended.talk);
    assert!(host.docker(&["inspect", &image]).is_err(), "nothing has its name");
    assert!(!partials().is_empty());

    let rest = host.bgctl(&push).await;
    assert_eq!(rest.code, Some(0), "{}", rest.talk);
    let report = rest.report();
    let bytes = report["bytes"].as_u64().unwrap();
    assert_eq!((&report["way"], report["layers_present"].as_u64() >= Some(1)), (&"layers".into(), true), "{report}");
    assert!(bytes <= total - LAYER, "{bytes} of {total}");
    measured(TEST, &format!("cut {more} ms after the first part; the second push sent {bytes} of {total} bytes"));
    assert_eq!(host.docker(&["inspect", "--format", "{{.Id}}", &image]).unwrap(), id);
    assert_eq!(images().lines().count(), 1, "{}", images());

    // One that nobody sent again goes with `prune`.
    gateway.engine.up(&gateway.spec()).await.unwrap();
    docker(&["tag", &gateway.named("big:0"), "bluegreen-partial:forgotten"]).unwrap();
    let pruned = gateway.bgctl(&["prune"]).await;
    assert_eq!(pruned.code, Some(0), "{}", pruned.talk);
    assert!(pruned.talk.contains("removed bluegreen-partial:forgotten"), "{}", pruned.talk);
    assert!(docker(&["inspect", "bluegreen-partial:forgotten"]).is_err());
}

/// Flipped when all are healthy; one that can't be prepared keeps the others as they are; one that goes back takes the others along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_hosts_flip_together_or_not_at_all() {
    const TEST: &str = "several_hosts";
    const HERE: &str = "unix:///var/run/docker.sock";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let binary = gateway.proxy_binary.to_str().unwrap();
    let here = format!("127.0.0.1:{}:80", gateway.port);
    let there = format!("{PORT}:80");
    for (place, publish) in [(HERE, &here), ("production-server", &there)] {
        let words = ["--gateway", &gateway.name, "-H", place, "up", "--publish", publish, "--proxy-binary", binary];
        let up = host.bgctl(&words).await;
        assert_eq!(up.code, Some(0), "{}", up.talk);
    }
    let both = format!("{HERE},production-server");
    let deploy = async |more: &[&str]| {
        let words = ["--gateway", &gateway.name, "deploy", &both, &image, "--service", "uptimer"];
        host.bgctl(&[&words[..], &["--bake", "300ms", "--domain", "uptimer.test"], more].concat()).await
    };
    let live = async || {
        let mut slots = Vec::new();
        for place in [HERE, "production-server"] {
            let status = host.bgctl(&["--gateway", &gateway.name, "-H", place, "status", "uptimer"]).await;
            slots.push(status.events[0]["services"][0]["live"].clone());
        }
        slots
    };
    let first = deploy(&[]).await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    let report = first.report();
    assert_eq!((&report["hosts"][0]["host"], &report["hosts"][1]["host"]), (&json!(HERE), &json!("production-server")));
    assert!(first.talk.contains("production-server: LIVE: uptimer"), "{}", first.talk);
    assert_eq!(live().await, ["blue", "blue"]);

    // There the name of the new container is taken by a stranger's.
    let name = gateway.named("uptimer_GREEN");
    host.docker(&["create", "--name", &name, &image]).unwrap();
    let refused = deploy(&[]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.talk);
    assert!(
        refused.talk.contains("production-server is not ready, so unix:///var/run/docker.sock does not flip"),
        "{}",
        refused.talk
    );
    assert!(refused.talk.contains("no host has the new version"), "{}", refused.talk);
    assert_eq!(live().await, ["blue", "blue"]);
    assert!(!gateway.containers().contains("uptimer_GREEN"), "what was staged here is gone");
    host.docker(&["rm", &name]).unwrap();

    // A version that dies there in its bake: it goes back here too.
    let mut dying = host.start(
        &[
            &["--gateway", &gateway.name, "deploy", &both, &image, "--service", "uptimer"][..],
            &["--bake", "20s", "--keep", "warm"],
        ]
        .concat(),
    );
    let flipped = [dying.until("flipped").await, dying.until("flipped").await];
    assert!(flipped.iter().any(|event| event["host"] == "production-server"), "{flipped:?}");
    host.docker(&["kill", "-s", "KILL", &name]).unwrap();
    let ended = dying.end().await;
    assert_eq!(ended.code, Some(4), "{}", ended.talk);
    assert!(ended.talk.contains("another host failed, so this one goes back"), "{}", ended.talk);
    assert_eq!(live().await, ["blue", "blue"]);
}

/// Each with its own words and a hint, and exit code 8: nobody there, a key that is not known, a key that is not taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_from_a_host_is_told_in_sshs_words_with_what_helps() {
    const TEST: &str = "what_keeps_from_a_host";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let fails = async |words: &[&str], code, said: &[&str]| {
        let ended = host.bgctl(words).await;
        assert_eq!(ended.code, Some(code), "{}", ended.talk);
        for word in said {
            assert!(ended.talk.contains(word), "`{word}` is not said in: {}", ended.talk);
        }
    };
    let foreign = gateway.named("foreign:1");
    import(&foreign, 1000, "arm64");
    let hint = format!("docker build --platform linux/amd64 -t {foreign}");
    fails(&["push", "production-server", &foreign], 3, &["is for arm64", "is amd64", &hint]).await;
    fails(&["push", "production-server", "nowhere:1"], 3, &["there is no image nowhere:1"]).await;
    fails(&["-H", "nobody-there", "status"], 8, &["Could not resolve hostname", "hint: is the name spelt"]).await;
    fails(&["-H", "ssh://127.0.0.1:1", "status"], 8, &["Connection refused", "hint: does `ssh 127.0.0.1:1"]).await;
    fails(&["-H", "tcp://127.0.0.1:1", "status"], 8, &["tcp://127.0.0.1:1"]).await;
    fails(&["-H", "ftp://production-server", "status"], 1, &["ssh://, unix:// or tcp://"]).await;
    // A folder of this machine is none of that one.
    let project = tempfile::tempdir().unwrap();
    let file = project.path().join("bluegreen.toml");
    fs::write(&file, "host = \"production-server\"\n[services.shop]\nvolumes = [\"./data:/data\"]\n").unwrap();
    let words = ["--file", file.to_str().unwrap(), "switch", "shop", "--image", &foreign];
    fails(&words, 1, &["was written as a relative path", "hint: name a volume"]).await;
    // A connection that is open already would be used.
    host.cut_connections();
    let other = tempfile::tempdir().unwrap();
    let empty = other.path().join("known_hosts");
    fs::write(&empty, "").unwrap();
    host.configure_ssh(&format!("UserKnownHostsFile {}", empty.display()));
    fails(&["-H", "production-server", "status"], 8, &["Host key verification failed", "known_hosts"]).await;
    host.configure_ssh("StrictHostKeyChecking no");
    let key = other.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    host.configure_ssh(&format!("IdentityFile {}\nIdentityAgent none", key.display()));
    fs::remove_file(host.user_key()).unwrap();
    fails(&["-H", "production-server", "status"], 8, &["Permission denied", "ssh-copy-id"]).await;
}

/// A disk that is full there is exit 8, and leaves no name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_the_other_host_is_said_and_leaves_nothing_behind() {
    const TEST: &str = "a_full_disk_on_the_other_host";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, Some(40)).await else { return };
    let image = gateway.named("big:1");
    import(&image, 48 << 20, "amd64");
    let ended = host.bgctl(&["push", "production-server", &image]).await;
    assert_eq!(ended.code, Some(8), "{}", ended.talk);
    assert!(ended.talk.contains("disk") && ended.talk.contains("full"), "{}", ended.talk);
    assert_eq!(host.docker(&["images", "-aq"]).as_deref(), Ok(""));
}

/// Both ends are known to each other, or nothing is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_wants_certificates_is_spoken_to_with_the_right_ones_alone() {
    const TEST: &str = "a_port_that_wants_certificates";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let url = host.tls_url();
    let on = async |folder: &Path, words: &[&str]| {
        let variables = [("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", folder.to_str().unwrap())];
        host.bgctl_with(&variables, &[&["--gateway", &gateway.name, "-H", &url], words].concat()).await
    };
    let good = host.own_certificates();
    let publish = format!("{PORT}:80");
    let up = on(&good, &["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let words = ["deploy", &image, "--service", "uptimer", "--bake", "0s", "--domain", "uptimer.test"];
    let deployed = on(&good, &words).await;
    assert_eq!((deployed.code, deployed.talk.contains(&url)), (Some(0), true), "{}", deployed.talk);
    let inside = on(&good, &["exec", "uptimer", "--", "python3", "-c", "print(7)"]).await;
    assert_eq!((inside.code, &inside.events), (Some(0), &vec![json!(7)]), "{}", inside.talk);

    // A docker context has its own.
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("docker");
    let path = |name: &str| good.join(name).display().to_string();
    let endpoint = format!("host={url},ca={},cert={},key={}", path("ca.pem"), path("cert.pem"), path("key.pem"));
    shell(&format!("docker --config '{}' context create prod --docker '{endpoint}'", config.display()));
    let context = [("DOCKER_CONFIG", config.to_str().unwrap()), ("DOCKER_CONTEXT", "prod")];
    let status = host.bgctl_with(&context, &["--gateway", &gateway.name, "status"]).await;
    assert_eq!(
        (status.code, &status.events[0]["services"][0]["name"]),
        (Some(0), &json!("uptimer")),
        "{}",
        status.talk
    );

    let other = host.certificates("other");
    let mixed = folder.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    for (from, name) in [(&good, "ca.pem"), (&other, "cert.pem"), (&other, "key.pem")] {
        fs::copy(from.join(name), mixed.join(name)).unwrap();
    }
    let wrong = [(&other, 8, "is not signed by"), (&mixed, 8, "the engine does not take"), (&config, 1, "ca.pem: ")];
    for (folder, code, said) in wrong {
        let refused = on(folder, &["status"]).await;
        assert_eq!((refused.code, refused.talk.contains(said)), (Some(code), true), "{}", refused.talk);
    }
    let clear = host.bgctl_with(&[], &["-H", &url, "status"]).await;
    assert_eq!((clear.code, clear.talk.contains("it wants certificates")), (Some(8), true), "{}", clear.talk);
}

fn deploy<'a>(gateway: &'a TestGateway, image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["--gateway", &gateway.name, "deploy", "production-server", image, "--service", "uptimer"];
    [&words[..], &["--bake", "500ms", "--drain", "5s"], more].concat()
}

/// Returns how long an image is when it is saved and compressed as the recipe does it.
fn piped(image: &str) -> u64 {
    let line = format!("docker save {image} | gzip | wc -c");
    let output = Command::new("sh").args(["-c", &line]).stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Makes an image of one file that can't be compressed.
pub(crate) fn import(image: &str, bytes: u64, architecture: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("noise");
    let mut noise = fs::File::open("/dev/urandom").map(|noise| std::io::Read::take(noise, bytes)).unwrap();
    std::io::copy(&mut noise, &mut fs::File::create(file).unwrap()).unwrap();
    let line = format!("tar -C '{}' -c . | docker import - {image}", folder.path().display());
    shell(&line);
    if architecture != "amd64" {
        // Both words are of one length, and an archive has no digest of its configuration's bytes in it.
        let words = format!("s/\"architecture\":\"amd64\"/\"architecture\":\"{architecture}\"/");
        shell(&format!("docker save {image} | LC_ALL=C sed '{words}' | docker load"));
    }
}

/// Adds a layer of some code to an image.
fn with_code(gateway: &TestGateway, image: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("code.py"), "answer = 42\n").unwrap();
    fs::write(folder.path().join("Dockerfile"), format!("FROM {image}\nCOPY code.py /code.py\n")).unwrap();
    let changed = gateway.named("uptimer:changed");
    shell(&format!("DOCKER_BUILDKIT=0 docker build -q -t {changed} '{}'", folder.path().display()));
    changed
}

/// Adds a layer that can't be compressed to an image.
pub(crate) fn with_noise(image: &str, changed: &str, bytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let noise = fs::File::open("/dev/urandom").map(|noise| std::io::Read::take(noise, bytes)).unwrap();
    let name = format!("noise-{}", changed.rsplit(':').next().unwrap());
    std::io::copy(&mut { noise }, &mut fs::File::create(folder.path().join(&name)).unwrap()).unwrap();
    fs::write(folder.path().join("Dockerfile"), format!("FROM {image}\nCOPY {name} /{name}\n")).unwrap();
    shell(&format!("DOCKER_BUILDKIT=0 docker build -q -t {changed} '{}'", folder.path().display()));
}

pub(crate) fn shell(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
