//! The Docker engine by itself, on a real one: gateway, slots, exits, logs.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use config::name::Slot;
use ctl::engine::docker::{Finding, Verdict};
use ctl::engine::{
    Engine, EngineError, Exit, GatewaySpec, Happening, Image, InstanceSpec, LogRange, Pull, Restart, RunSettings,
};
use serde_json::json;
use tests::{Started, client, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::docker_host::{TestGateway, docker, gateway, inspect};
use crate::programs::PROGRAMS;

/// A slot that runs the proxy's own image, the one image that is always there, with another command.
pub(crate) async fn slot_spec(gateway: &TestGateway, command: &[&str]) -> InstanceSpec {
    let reference = inspect(&gateway.named("reverse-proxy"))["Config"]["Image"].as_str().unwrap().to_owned();
    let image: Image = gateway.engine.image(&reference, Pull::Never).await.unwrap();
    InstanceSpec {
        service: "shop".parse().unwrap(),
        slot: Slot::Blue,
        replica: 1,
        deployment: "1".to_owned(),
        image,
        port: 9000,
        run: RunSettings {
            env: vec!["COLOUR=red".to_owned()].into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..RunSettings::default()
        },
        who: "alice@laptop".to_owned(),
        notes: vec![("note".to_owned(), "first".to_owned())],
    }
}

#[tokio::test]
async fn up_makes_a_hardened_gateway_finds_it_again_and_down_leaves_nothing() {
    let Some(gateway) = gateway("up_makes_a_hardened_gateway").await else { return };
    let made = gateway.engine.up(&gateway.spec()).await.unwrap();
    assert!(made.changed && made.addresses == [format!("http://127.0.0.1:{}", gateway.port)], "{made:?}");

    let holder = gateway.inspect("reverse-proxy-ports");
    let network = gateway.named("web-gateway");
    assert_eq!(holder["HostConfig"]["Sysctls"]["net.ipv4.ip_unprivileged_port_start"], "0");
    let aliases = &holder["NetworkSettings"]["Networks"][&network]["Aliases"];
    assert!(aliases.as_array().unwrap().iter().any(|alias| alias == "reverse-proxy"), "{aliases}");
    let proxy = gateway.inspect("reverse-proxy");
    assert_eq!(proxy["HostConfig"]["NetworkMode"], format!("container:{}", holder["Id"].as_str().unwrap()));
    for container in [&holder, &proxy] {
        assert_eq!(container["HostConfig"]["CapDrop"][0], "ALL");
        assert_eq!(container["HostConfig"]["ReadonlyRootfs"], true);
        assert_eq!(container["HostConfig"]["SecurityOpt"][0], "no-new-privileges:true");
        assert_eq!(container["HostConfig"]["RestartPolicy"]["Name"], "always");
        assert_eq!(container["Config"]["User"], "65532:65532");
        assert_eq!(container["Config"]["Labels"]["bluegreen.gateway"], network.as_str());
        let driver = container["HostConfig"]["LogConfig"]["Type"].as_str().unwrap();
        assert!(["journald", "local"].contains(&driver), "{driver}");
    }
    let mount = &proxy["Mounts"][0];
    assert_eq!((mount["Type"].as_str(), mount["Destination"].as_str()), (Some("volume"), Some("/var/lib/bluegreen")));
    assert_eq!(mount["Name"], gateway.named("bluegreen-state").as_str());

    let again = gateway.engine.up(&gateway.spec()).await.unwrap();
    assert!(!again.changed && again.done.is_empty() && again.warnings.is_empty(), "{again:?}");
    assert_eq!(gateway.inspect("reverse-proxy")["Id"], proxy["Id"]);

    let said = gateway.engine.down(true).await.unwrap();
    assert_eq!(gateway.leftovers(), Vec::<String>::new(), "{said:?}");
}

#[tokio::test]
async fn labels_name_the_environment_and_its_values_come_from_the_container_itself() {
    let Some(gateway) = gateway("labels_name_the_environment").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let mut spec = slot_spec(&gateway, &["hold"]).await;
    spec.run.env = ["TOKEN=hunter2=x", "EMPTY="].map(str::to_owned).to_vec().into();
    let made = gateway.engine.create(&spec).await.unwrap();
    assert_eq!(made.run, spec.run);
    assert_eq!(gateway.engine.instances(None).await.unwrap()[0].run, spec.run);
    let kept = gateway.engine.set_kept(&made, true).await.unwrap();
    assert_eq!(kept.run, spec.run);
    let config = gateway.inspect("shop_BLUE_kept")["Config"].clone();
    let labels = config["Labels"].to_string();
    assert!(labels.contains("TOKEN") && !labels.contains("hunter2"), "{labels}");
    assert!(config["Env"].to_string().contains("TOKEN=hunter2=x"));

    // One that an older bgctl made has the values in its label too.
    let label = |value: &str| format!("bluegreen.run={{\"env\":[\"{value}\"]}}");
    let mut words: Vec<String> = ["create", "--name"].map(str::to_owned).to_vec();
    words.push(gateway.named("shop_GREEN"));
    for (name, value) in config["Labels"].as_object().unwrap() {
        let value = if name == "bluegreen.slot" { "green" } else { value.as_str().unwrap() };
        words.extend(["--label".to_owned(), format!("{name}={value}")]);
    }
    words.extend(["--label".to_owned(), label("TOKEN=old"), spec.image.reference.clone()]);
    docker(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let instances = gateway.engine.instances(None).await.unwrap();
    let green = instances.iter().find(|instance| instance.slot == Slot::Green).unwrap();
    assert_eq!(*green.run.env, ["TOKEN=old"]);
}

#[tokio::test]
async fn the_admin_socket_is_reached_through_the_relay() {
    let Some(gateway) = gateway("the_admin_socket_is_reached").await else { return };
    assert!(gateway.engine.admin().await.unwrap().is_none(), "nothing runs yet");
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let mut stream = gateway.engine.admin().await.unwrap().unwrap();
    stream.write_all(b"GET /v1/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"bgproxy\""), "{answer}");
}

#[tokio::test]
async fn a_half_made_gateway_is_completed() {
    let Some(gateway) = gateway("a_half_made_gateway").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    docker(&["rm", "-f", &gateway.named("reverse-proxy")]).unwrap();
    assert!(gateway.engine.up(&gateway.spec()).await.unwrap().changed);
    docker(&["stop", "-t", "1", &gateway.named("reverse-proxy-ports")]).unwrap();
    gateway.engine.up(&gateway.spec()).await.unwrap();
    docker(&["rm", "-f", &gateway.named("reverse-proxy-ports")]).unwrap();
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let (holder, proxy) = (gateway.inspect("reverse-proxy-ports"), gateway.inspect("reverse-proxy"));
    assert_eq!(proxy["HostConfig"]["NetworkMode"], format!("container:{}", holder["Id"].as_str().unwrap()));
    assert_eq!((&holder["State"]["Running"], &proxy["State"]["Running"]), (&true.into(), &true.into()));
}

#[tokio::test]
async fn a_stopped_gateway_is_started_without_a_binary() {
    let Some(gateway) = gateway("a_stopped_gateway").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let (proxy, holder) = (gateway.named("reverse-proxy"), gateway.named("reverse-proxy-ports"));
    let id = gateway.inspect("reverse-proxy")["Id"].clone();
    // As `switch` does it by itself.
    let bare = GatewaySpec::default();
    for stopped in [&[&proxy][..], &[&proxy, &holder]] {
        for name in stopped {
            docker(&["stop", "-t", "1", name]).unwrap();
        }
        let up = gateway.engine.up(&bare).await.unwrap();
        assert!(up.done.iter().any(|done| done.contains("started")), "{up:?}");
        assert_eq!((&inspect(&proxy)["State"]["Running"], &inspect(&proxy)["Id"]), (&true.into(), &id));
    }
}

#[tokio::test]
async fn a_proxy_whose_holder_was_restarted_is_restarted_into_the_living_namespace() {
    let Some(gateway) = gateway("a_proxy_whose_holder_was_restarted").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let before = gateway.inspect("reverse-proxy")["State"]["StartedAt"].clone();
    docker(&["restart", "-t", "1", &gateway.named("reverse-proxy-ports")]).unwrap();
    let up = gateway.engine.up(&gateway.spec()).await.unwrap();
    assert!(up.done.iter().any(|done| done.contains("restarted")), "{up:?}");
    assert_ne!(gateway.inspect("reverse-proxy")["State"]["StartedAt"], before);
}

#[tokio::test]
async fn someone_elses_reverse_proxy_is_explained_and_not_touched() {
    let Some(gateway) = gateway("someone_elses_reverse_proxy").await else { return };
    // Any image will do for a container that never starts.
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let image = gateway.inspect("reverse-proxy")["Config"]["Image"].as_str().unwrap().to_owned();
    let name = gateway.named("reverse-proxy");
    docker(&["rm", "-f", &name]).unwrap();
    docker(&["create", "--name", &name, &image]).unwrap();
    let foreign = gateway.inspect("reverse-proxy")["Id"].clone();
    let Err(EngineError::NoProxy(words)) = gateway.engine.up(&gateway.spec()).await else { panic!() };
    assert!(words.contains(&image) && words.contains(&format!("docker rm -f {name}")), "{words}");
    assert!(gateway.engine.admin().await.unwrap().is_none(), "it is no proxy of ours");
    gateway.engine.down(true).await.unwrap();
    assert_eq!(gateway.inspect("reverse-proxy")["Id"], foreign);
}

#[tokio::test]
async fn a_taken_port_is_explained_and_nothing_stays_behind() {
    let Some(gateway) = gateway("a_taken_port").await else { return };
    let _taken = TcpListener::bind(("127.0.0.1", gateway.port)).unwrap();
    let Err(EngineError::NoProxy(words)) = gateway.engine.up(&gateway.spec()).await else { panic!() };
    assert!(words.contains(&format!("port {}", gateway.port)) && words.contains("--publish"), "{words}");
    let left: BTreeSet<String> =
        gateway.leftovers().into_iter().filter(|name| !name.contains("bluegreen-proxy")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_dynamic_binary_is_refused_with_the_command_that_makes_a_static_one() {
    let Some(gateway) = gateway("a_dynamic_binary").await else { return };
    let mut spec = gateway.spec();
    spec.proxy_binary = Some(std::env::current_exe().unwrap());
    let Err(EngineError::NoProxy(words)) = gateway.engine.up(&spec).await else { panic!() };
    assert!(words.contains("make static"), "{words}");
    assert_eq!(gateway.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_slot_lives_from_create_to_remove() {
    let Some(gateway) = gateway("a_slot_lives").await else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let spec = slot_spec(&gateway, &["hold"]).await;
    let created = engine.create(&spec).await.unwrap();
    assert_eq!(created.name, gateway.named("shop_BLUE"));
    assert_eq!(created.endpoint.to_string(), format!("{}:9000", created.name));
    assert!(!created.running && !created.kept && created.run == spec.run && created.notes == spec.notes);
    let told = inspect(&created.name);
    assert_eq!(told["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert!(told["Config"]["Env"].as_array().unwrap().iter().any(|variable| variable == "PORT=9000"), "{told}");
    assert!(told["NetworkSettings"]["Networks"].as_object().unwrap().contains_key(&gateway.named("web-gateway")));
    for (label, value) in
        [("service", "shop"), ("slot", "blue"), ("deployment", "1"), ("who", "alice@laptop"), ("image", &spec.image.id)]
    {
        assert_eq!(told["Config"]["Labels"][format!("bluegreen.{label}")], value);
    }
    let Err(EngineError::Refused(words)) = engine.create(&spec).await else { panic!("the name is taken") };
    assert!(words.contains(&created.name), "{words}");

    engine.start(&created).await.unwrap();
    engine.start(&created).await.unwrap();
    let listed = engine.instances(Some(&spec.service)).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].running && listed[0].created == created.created, "{listed:?}");
    assert!(engine.instances(Some(&"other".parse().unwrap())).await.unwrap().is_empty());

    engine.set_restart(&created, Restart::Always).await.unwrap();
    assert_eq!(inspect(&created.name)["HostConfig"]["RestartPolicy"]["Name"], "always");
    engine.set_restart(&created, Restart::No).await.unwrap();
    let stopping = Instant::now();
    engine.stop(&created, Duration::from_secs(10)).await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(5), "it ends by its stop signal");

    let kept = engine.set_kept(&created, true).await.unwrap();
    assert_eq!((kept.name.as_str(), kept.kept), (gateway.named("shop_BLUE_kept").as_str(), true));
    let back = engine.set_kept(&kept, false).await.unwrap();
    assert_eq!((back.name, back.kept), (created.name.clone(), false));
    engine.remove(&created).await.unwrap();
    engine.remove(&created).await.unwrap();
    assert!(engine.instances(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_exit_is_told_within_milliseconds_and_again_when_asked_again() {
    let Some(gateway) = gateway("an_exit_is_told").await else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let spec = slot_spec(&gateway, &["hold"]).await;
    let instance = engine.create(&spec).await.unwrap();
    engine.start(&instance).await.unwrap();
    let killed = async {
        tokio::task::yield_now().await;
        let name = instance.name.clone();
        tokio::task::spawn_blocking(move || docker(&["kill", &name]).unwrap()).await.unwrap();
        Instant::now()
    };
    let told = async { (engine.watch(&instance).await.unwrap(), Instant::now()) };
    let (killed, (happening, told)) = tokio::join!(killed, told);
    assert_eq!(happening, Happening::Exited(Exit { code: 137, oom: false }));
    assert!(told.saturating_duration_since(killed) < Duration::from_millis(500));
    assert_eq!(engine.watch(&instance).await.unwrap(), happening);
    engine.remove(&instance).await.unwrap();

    // One that ends as soon as it starts is told too, with its log.
    let ends = slot_spec(&gateway, &["--no-such-flag"]).await;
    let instance = engine.create(&ends).await.unwrap();
    engine.start(&instance).await.unwrap();
    let Happening::Exited(exit) = engine.watch(&instance).await.unwrap() else { panic!() };
    assert_ne!(exit.code, 0);
    let mut lines = Vec::new();
    let range = LogRange { tail: None, follow: false };
    engine.logs(&instance, range, &mut |line| lines.push(line.to_owned())).await.unwrap();
    assert!(!lines.is_empty(), "what it said before it ended can be read");
}

#[tokio::test]
async fn a_missing_image_and_a_failed_health_command_are_told_in_words() {
    let Some(gateway) = gateway("a_missing_image").await else { return };
    let engine = &gateway.engine;
    let Err(EngineError::Refused(words)) = engine.image("bluegreen-test/none:1", Pull::Never).await else { panic!() };
    assert!(words.contains("bluegreen-test/none:1"), "{words}");
    engine.up(&gateway.spec()).await.unwrap();
    let instance = engine.create(&slot_spec(&gateway, &["hold"]).await).await.unwrap();
    engine.start(&instance).await.unwrap();
    let failed = engine.run_health_command(&instance, &["/nowhere".to_owned()]).await.unwrap().unwrap_err();
    assert!(!failed.is_empty());
}

#[tokio::test]
async fn the_survey_tells_a_living_proxy_from_a_missing_one() {
    let Some(gateway) = gateway("the_survey").await else { return };
    let Engine::Docker(docker) = &gateway.engine else { panic!() };
    let verdict = |findings: &[Finding], what: &str| findings.iter().find(|found| found.what == what).unwrap().verdict;
    let before = docker.survey().await;
    assert_eq!(verdict(&before, "engine"), Verdict::Ok);
    assert_eq!(verdict(&before, "proxy"), Verdict::Warn);
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let after = docker.survey().await;
    for what in ["proxy", "state", "port"] {
        assert_eq!(verdict(&after, what), Verdict::Ok, "{after:?}");
    }
    let port = after.iter().find(|found| found.what == "port").unwrap();
    assert!(port.words.starts_with(&gateway.port.to_string()), "{port:?}");
}

#[tokio::test]
async fn another_build_is_left_alone_until_it_is_asked_for() {
    let Some(gateway) = gateway("another_build").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let first = gateway.inspect("reverse-proxy")["Id"].clone();
    // A byte behind the program changes the build and nothing that runs.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("bgproxy");
    let mut program = std::fs::read(&gateway.proxy_binary).unwrap();
    program.push(0);
    std::fs::write(&other, &program).unwrap();
    let mut spec = GatewaySpec { proxy_binary: Some(other.clone()), ..gateway.spec() };
    let up = gateway.engine.up(&spec).await.unwrap();
    assert!(!up.changed && up.warnings[0].contains("--upgrade"), "{up:?}");
    assert_eq!(gateway.inspect("reverse-proxy")["Id"], first);

    spec.upgrade = true;
    let up = gateway.engine.up(&spec).await.unwrap();
    assert!(up.done.iter().any(|done| done.contains("handed over")), "{up:?}");
    let second = gateway.inspect("reverse-proxy")["Id"].clone();
    assert_ne!(second, first);
    assert!(gateway.inspect("reverse-proxy_replaced").is_null());

    // One that ends at its first instruction: the old one is put back.
    let entry = usize::try_from(u64::from_le_bytes(program[24..32].try_into().unwrap())).unwrap();
    program[24..32].copy_from_slice(&(entry as u64 + (1 << 40)).to_le_bytes());
    std::fs::write(&other, &program).unwrap();
    let Err(EngineError::NoProxy(words)) = gateway.engine.up(&spec).await else { panic!("it can't run") };
    assert!(words.contains("The old proxy serves on"), "{words}");
    assert_eq!(gateway.inspect("reverse-proxy")["Id"], second);
    assert_eq!(gateway.inspect("reverse-proxy")["State"]["Running"], true);
}

/// A folder of the host is served from the proxy's container, which reads it and keeps it over an upgrade.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_the_host_is_seen_by_the_proxy_and_kept_by_an_upgrade() {
    let Some(gateway) = gateway("a_folder_of_the_host").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("app.css"), "body {}").unwrap();
    // One that is not mounted is told of with the line that mounts it.
    let files = json!([{ "path": "/static", "folder": "/srv/files" }]);
    let body = json!({ "domains": ["shop.test"], "options": { "static": files } }).to_string();
    let mut stream = gateway.engine.admin().await.unwrap().unwrap();
    let head = "PUT /v1/services/shop HTTP/1.1\r\nhost: x\r\nif-match: *\r\nconnection: close";
    let put = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(put.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let status = gateway.bgctl(&["status"]).await;
    let told = status.events[0]["warnings"].to_string();
    assert!(told.contains("/srv/files") && told.contains("--volume"), "{told}");

    let volume = format!("{}:/srv/files", folder.path().display());
    let binary = gateway.proxy_binary.to_str().unwrap();
    let up = gateway.bgctl(&["up", "--volume", &volume, "--upgrade", "--proxy-binary", binary]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let mount = &gateway.inspect("reverse-proxy")["HostConfig"]["Binds"][0];
    assert_eq!(mount, &json!(format!("{volume}:ro")));
    let ask =
        async || client(gateway.address()).await.unwrap().get("shop.test", "/static/app.css").await.unwrap().unwrap();
    eventually("the file is served", async || (ask().await.text() == "body {}").then_some(())).await;
    let status = gateway.bgctl(&["status"]).await;
    assert!(!status.events[0]["warnings"].to_string().contains("/srv/files"), "{:?}", status.events);

    // Another build in its place sees the same.
    let other = folder.path().join("bgproxy");
    let mut program = fs::read(&gateway.proxy_binary).unwrap();
    program.push(0);
    fs::write(&other, &program).unwrap();
    let first = gateway.inspect("reverse-proxy")["Id"].clone();
    let spec = GatewaySpec { proxy_binary: Some(other), upgrade: true, ..gateway.spec() };
    gateway.engine.up(&spec).await.unwrap();
    assert_ne!(gateway.inspect("reverse-proxy")["Id"], first);
    eventually("it is served again", async || (ask().await.text() == "body {}").then_some(())).await;
}

/// What the proxy writes of requests is told from its own log by the engine, and gone on with where it was left off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_is_read_apart_from_the_proxys_own_and_followed() {
    let Some(gateway) = gateway("the_access_log_is_read_apart").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    fs::write(&file, "[proxy.log]\naccess = \"json\"\n").unwrap();
    let applied = gateway.bgctl(&["--file", file.to_str().unwrap(), "apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.talk);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], gateway.port));
    let ask = async |target: &str| client(address).await.unwrap().get("nobody.test", target).await.unwrap().unwrap();
    eventually("three lines are there", async || {
        ask("/knock").await;
        let lines = gateway.bgctl(&["logs", "--access"]).await.events;
        (lines.len() > 2 && lines.iter().all(|line| line.to_string().contains("/knock"))).then_some(())
    })
    .await;
    let mut following = gateway.start(&["logs", "--access", "-f", "-n", "2"]);
    following.until_line("/knock").await;
    for number in 0..5 {
        ask(&format!("/after/{number}")).await;
        following.until_line(&format!("/after/{number}")).await;
    }
    following.signal(rustix::process::Signal::INT);
    let lines = following.end().await.events;
    let of = |word: &str| lines.iter().filter(|line| line.to_string().contains(word)).count();
    assert_eq!((lines.len(), of("/knock"), of("/after/")), (7, 2, 5), "{lines:?}");
    let own = gateway.bgctl(&["logs", "--proxy"]).await.events;
    assert!(own.iter().any(|line| line.to_string().contains("serving")), "{own:?}");
}

#[tokio::test]
async fn down_takes_slots_and_leaves_strangers_and_their_network() {
    let Some(gateway) = gateway("down_takes_slots").await else { return };
    gateway.engine.up(&gateway.spec()).await.unwrap();
    let slot = gateway.engine.create(&slot_spec(&gateway, &["hold"]).await).await.unwrap();
    gateway.engine.start(&slot).await.unwrap();
    let (stranger, network) = (gateway.named("stranger"), gateway.named("web-gateway"));
    let image = gateway.inspect("reverse-proxy")["Config"]["Image"].as_str().unwrap().to_owned();
    docker(&["run", "-d", "--name", &stranger, "--network", &network, &image, "hold"]).unwrap();
    let said = gateway.engine.down(false).await.unwrap();
    assert!(said.iter().any(|line| line.contains(&network) && line.contains(&stranger)), "{said:?}");
    assert!(said.iter().any(|line| line.contains("bluegreen-state") && line.contains("--volumes")), "{said:?}");
    let left = gateway.leftovers().into_iter().filter(|name| *name != image);
    let left: BTreeSet<String> = left.collect();
    assert_eq!(left, BTreeSet::from([stranger, network, gateway.named("bluegreen-state")]));
}

/// A private registry is told who we are, by what `docker login` left: an entry, or a helper.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_carries_the_credentials_that_docker_login_left() {
    let Some(gateway) = gateway("a_pull_carries_the_credentials").await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = listener.local_addr().unwrap().to_string();
    let told = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&told);
    // It lets nobody in, and notes who asked.
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let mut head = Vec::new();
                // Where an engine tries TLS first, it is to try the next thing soon.
                let is_http = |head: &[u8]| head.first().is_none_or(u8::is_ascii_uppercase);
                while is_http(&head)
                    && !head.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut head).await.is_ok_and(|count| count > 0)
                {}
                let head = String::from_utf8_lossy(&head).into_owned();
                all.lock().unwrap().extend(
                    head.lines().filter_map(|line| line.strip_prefix("Authorization: Basic ")).map(str::to_owned),
                );
                let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(refusal.as_bytes()).await
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-of-test");
    fs::write(&helper, "#!/bin/sh\nread registry\necho '{\"Username\":\"helped\",\"Secret\":\"s\"}'\n").unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let pull = async |config: serde_json::Value| {
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let image = format!("{registry}/shop:1");
        let words = ["--gateway", &gateway.name, "deploy", &image];
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.args(words).arg("--json").env("DOCKER_CONFIG", folder.path()).env("PATH", path);
        let ended = Started::spawn(command).end().await;
        assert_eq!(ended.code, Some(3), "{}", ended.talk);
        assert!(ended.talk.contains(&format!("`docker login {registry}`")), "{}", ended.talk);
        std::mem::take(&mut *told.lock().unwrap())
    };
    let up = gateway.engine.up(&gateway.spec()).await;
    assert!(up.is_ok(), "{up:?}");
    assert_eq!(pull(json!({})).await, Vec::<String>::new());
    let entry = pull(json!({ "auths": { &registry: { "auth": "bWU6c2VjcmV0" } } })).await;
    assert!(!entry.is_empty() && entry.iter().all(|who| who == "bWU6c2VjcmV0"), "{entry:?}");
    let helped = pull(json!({ "credsStore": "of-test" })).await;
    assert!(!helped.is_empty() && helped.iter().all(|who| who == "aGVscGVkOnM="), "{helped:?}");
    serving.abort();
}
