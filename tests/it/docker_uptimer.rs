//! The recipe's uptimer as a slot of the Docker engine: it loads, runs, ends at start, stops by its signal, runs out of memory.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use config::name::Slot;
use ctl::engine::{Exit, Happening, Instance, InstanceSpec, LogRange, Pull, RunSettings};

use crate::docker_host::{TestGateway, Uptimer, gateway, inspect};

async fn spec(gateway: &TestGateway, image: &str, slot: Slot) -> InstanceSpec {
    let image = gateway.engine.image(image, Pull::Missing).await.unwrap();
    InstanceSpec {
        service: "uptimer".parse().unwrap(),
        slot,
        replica: 1,
        deployment: "1".to_owned(),
        port: image.exposed_ports[0],
        image,
        run: RunSettings::default(),
        who: "alice@laptop".to_owned(),
        notes: Vec::new(),
    }
}

/// Asks the application itself, by its address on the bridge.
fn ask(gateway: &TestGateway, instance: &Instance) -> std::io::Result<String> {
    let networks = &inspect(&instance.name)["NetworkSettings"]["Networks"];
    let address = networks[gateway.named("web-gateway")]["IPAddress"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect((address, instance.endpoint.port()))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn the_uptimer_loads_runs_and_stops_by_its_signal() {
    const TEST: &str = "the_uptimer_loads";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 1, fail: "" }) else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let spec = spec(&gateway, &image, Slot::Blue).await;
    assert_eq!(spec.image.exposed_ports, [8080]);
    let instance = engine.create(&spec).await.unwrap();
    engine.start(&instance).await.unwrap();
    let (mut loading, started) = (false, Instant::now());
    let answer = loop {
        assert!(started.elapsed() < Duration::from_secs(15), "it never became ready");
        match ask(&gateway, &instance) {
            Ok(answer) if answer.starts_with("HTTP/1.0 200") => break answer,
            Ok(answer) => loading |= answer.starts_with("HTTP/1.0 503"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(loading, "it says 503 while it loads");
    assert!(answer.contains("Uptimer v1.0 is running for 0 seconds."), "{answer}");
    let stopping = Instant::now();
    engine.stop(&instance, Duration::from_secs(10)).await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(5));
    assert_eq!(engine.watch(&instance).await.unwrap(), Happening::Exited(Exit { code: 0, oom: false }));
}

#[tokio::test]
async fn a_version_that_exits_at_start_leaves_its_code_and_its_last_words() {
    const TEST: &str = "a_version_that_exits_at_start";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 3, loading: 1, fail: "exit" }) else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let instance = engine.create(&spec(&gateway, &image, Slot::Green).await).await.unwrap();
    engine.start(&instance).await.unwrap();
    assert_eq!(engine.watch(&instance).await.unwrap(), Happening::Exited(Exit { code: 3, oom: false }));
    let mut lines = Vec::new();
    let range = LogRange { tail: Some(10), follow: false };
    engine.logs(&instance, range, &mut |line| lines.push(line.to_owned())).await.unwrap();
    assert!(lines.iter().any(|line| line == "cannot open the database"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("uptimer v3.0 starts")), "{lines:?}");
}

#[tokio::test]
async fn a_version_that_runs_out_of_memory_says_so() {
    const TEST: &str = "a_version_that_runs_out_of_memory";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 5, loading: 1, fail: "" }) else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let mut spec = spec(&gateway, &image, Slot::Green).await;
    spec.run.memory = Some("32m".to_owned());
    spec.run.command = ["python3", "-c", "x = [bytearray(1 << 20) for _ in range(1000)]"].map(str::to_owned).to_vec();
    let instance = engine.create(&spec).await.unwrap();
    assert_eq!(inspect(&instance.name)["HostConfig"]["Memory"], 32 << 20);
    engine.start(&instance).await.unwrap();
    assert_eq!(engine.watch(&instance).await.unwrap(), Happening::Exited(Exit { code: 137, oom: true }));
}

#[tokio::test]
async fn a_health_command_of_the_image_passes_or_fails_in_its_own_words() {
    const TEST: &str = "a_health_command_of_the_image";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let engine = &gateway.engine;
    engine.up(&gateway.spec()).await.unwrap();
    let instance = engine.create(&spec(&gateway, &image, Slot::Blue).await).await.unwrap();
    engine.start(&instance).await.unwrap();
    let run = async |line: &str| {
        let command = ["/bin/sh", "-c", line].map(str::to_owned);
        engine.run_health_command(&instance, &command).await.unwrap()
    };
    assert_eq!(run("exit 0").await, Ok(()));
    // Whichever of the two streams the engine copies first, the complaint is told.
    for _ in 0..20 {
        let told = run("echo tried; echo first >&2; echo database is away >&2; exit 1").await;
        assert_eq!(told, Err("exit 1: database is away".to_owned()));
    }
    assert_eq!(run("echo not ready; exit 2").await, Err("exit 2: not ready".to_owned()));
    assert_eq!(run("exit 3").await, Err("exit 3".to_owned()));
}
