//! The chaos of `chaos` with containers: the engine starts again what dies, and the daemon itself is restarted where
//! `BG_DOCKER_RESTART` names the command that does it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::{Chance, Ended, Started, client, eventually, is_soak, measured};

use crate::chaos::{Crowd, SERVICES, Window, judge};
use crate::docker_host::{TestGateway, gateway, python_base};
use crate::programs::PROGRAMS;

const TEST: &str = "chaos_with_containers";

/// A gateway with two services, and what is done to it.
struct Chaos {
    gateway: TestGateway,
    chance: Chance,
    folder: tempfile::TempDir,
    restart: Option<String>,
    versions: u32,
    windows: Vec<Window>,
    told: Vec<String>,
    began: Instant,
}

impl Chaos {
    async fn new(seed: u64) -> Option<Self> {
        let gateway = gateway(TEST).await?;
        let base = python_base(TEST)?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(PROGRAMS.app, folder.path().join("app")).unwrap();
        let file = format!(
            "FROM {base}\nCOPY app /app\nENV BIND=0.0.0.0\nEXPOSE 8080\nARG VERSION\nENV VERSION=$VERSION\n\
             CMD exec /app $VERSION 50 /ledger/ledger\n"
        );
        std::fs::write(folder.path().join("Dockerfile"), file).unwrap();
        std::fs::create_dir(folder.path().join("ledger")).unwrap();
        let restart = std::env::var("BG_DOCKER_RESTART").ok().filter(|command| !command.is_empty());
        let (chance, began, told) = (Chance::new(seed), Instant::now(), vec![format!("BG_SEED={seed}")]);
        let mut chaos = Self { gateway, chance, folder, restart, versions: 0, windows: Vec::new(), told, began };
        let publish = format!("127.0.0.1:{}:80", chaos.gateway.port);
        let binary = chaos.gateway.proxy_binary.to_str().unwrap();
        let up = chaos.gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", binary]).await;
        chaos.ended_well(&up, &[0]);
        for service in SERVICES {
            chaos.switch(service).await;
        }
        Some(chaos)
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.folder.path().join("ledger/ledger")
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(format!("{:7.3} {}", self.began.elapsed().as_secs_f64(), what.into()));
    }

    fn ended_well(&mut self, ended: &Ended, codes: &[i32]) {
        self.tell(format!("  exit {:?}", ended.code));
        let is_well = ended.code.is_some_and(|code| codes.contains(&code));
        assert!(is_well, "exit {:?}: {}\n{}", ended.code, ended.talk, self.told.join("\n"));
    }

    /// Builds a new version, and starts a switch to it that watches it for so long.
    fn start(&mut self, service: &str, bake: &str) -> Started {
        self.versions += 1;
        let version = format!("{service}-v{}", self.versions);
        let image = self.gateway.named(&format!("chaos:{version}"));
        build(self.folder.path(), &image, &version);
        self.tell(format!("switch to {version}"));
        let (domain, volume) = (format!("{service}.test"), format!("{}/ledger:/ledger", self.folder.path().display()));
        let words = ["switch", service, "--image", &image, "--domain", &domain, "--volume", &volume, "--bake", bake];
        self.gateway.start(&[&words[..], &["--drain", "5s", "--lock-wait", "40s"]].concat())
    }

    async fn switch(&mut self, service: &str) {
        let ended = self.start(service, "1s").end().await;
        self.ended_well(&ended, &[0]);
    }

    /// The slot that is live, and its version.
    async fn live(&self, service: &str) -> (String, String) {
        let status = self.gateway.bgctl(&["status", service]).await;
        let shop = &status.events[0]["services"][0];
        let live = shop["live"].as_str().unwrap_or_else(|| panic!("nothing is live: {status:?}"));
        let image = shop["slots"][live]["image"].as_str().unwrap();
        (live.to_uppercase(), image.rsplit(':').next().unwrap().to_owned())
    }

    /// Kills the process of a container: the engine notices that it died.
    fn kill(&mut self, name: &str) -> Instant {
        self.tell(format!("kill {name}"));
        let from = Instant::now();
        let pid = self.gateway.inspect(name)["State"]["Pid"].as_i64().unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        from
    }

    /// Waits until a visitor has an answer of a service.
    async fn answers(&self, service: &str) {
        let host = format!("{service}.test");
        eventually(&format!("{service} answers"), async || {
            let answer = client(self.gateway.address()).await.ok()?.get(&host, "/").await.ok()??;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    async fn excuse(&mut self, service: Option<&'static str>, from: Instant, why: &str) {
        for name in SERVICES.into_iter().filter(|name| service.is_none_or(|service| service == *name)) {
            self.answers(name).await;
        }
        self.windows.push(Window { service, posts_alone: false, from, to: Instant::now(), why: why.to_owned() });
    }

    async fn recover(&mut self, service: &str) {
        let ended = self.gateway.bgctl(&["recover", service, "--lock-wait", "40s"]).await;
        self.tell(format!("recover {service}"));
        self.ended_well(&ended, &[0]);
    }

    async fn step(&mut self) {
        let service = *self.chance.of(&SERVICES);
        match self.chance.below(if self.restart.is_some() { 7 } else { 6 }) {
            0 => self.switch(service).await,
            1 => {
                let ended = self.gateway.bgctl(&["rollback", service, "--lock-wait", "40s"]).await;
                self.tell(format!("roll back {service}"));
                self.ended_well(&ended, &[0, 4]);
            }
            2 => {
                let (slot, version) = self.live(service).await;
                let from = self.kill(&format!("{service}_{slot}"));
                self.excuse(Some(service), from, &version).await;
            }
            3 => {
                let from = self.kill("reverse-proxy");
                self.excuse(None, from, "no proxy").await;
            }
            4 => {
                let switch = self.start(service, "1s");
                tokio::time::sleep(self.chance.within(Duration::from_millis(3000))).await;
                self.tell("kill bgctl");
                switch.signal(Signal::KILL);
                drop(switch.end().await);
                self.recover(service).await;
            }
            5 => {
                let mut switch = self.start(service, "5s");
                switch.until("flipped").await;
                let (slot, version) = self.live(service).await;
                let from = self.kill(&format!("{service}_{slot}"));
                let ended = switch.end().await;
                // Where the engine was quick, it answers again before it was found dead.
                self.ended_well(&ended, &[0, 4]);
                let to = Instant::now();
                self.windows.push(Window { service: Some(service), posts_alone: true, from, to, why: version });
            }
            _ => {
                let command = self.restart.clone().unwrap();
                self.tell("restart the daemon");
                let from = Instant::now();
                let restarted = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &command]).status());
                assert!(restarted.await.unwrap().unwrap().success());
                // Engines may start the proxy before its holder, and then nothing comes back by itself (moby#50326).
                let up = self.gateway.bgctl(&["up"]).await;
                self.ended_well(&up, &[0]);
                self.excuse(None, from, "no daemon").await;
            }
        }
        for service in SERVICES {
            let (_, version) = self.live(service).await;
            let mut visitor = client(self.gateway.address()).await.unwrap();
            let answer = visitor.get(&format!("{service}.test"), "/").await.unwrap().unwrap();
            assert_eq!(answer.field("x-version"), Some(version.as_str()), "{}", self.told.join("\n"));
        }
    }
}

fn build(folder: &Path, image: &str, version: &str) {
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "-q", "-t", image, "--build-arg", &format!("VERSION={version}"), "--file"])
        .arg(folder.join("Dockerfile"))
        .arg(folder)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_chaos_with_containers_no_request_fails_that_one_could_have_answered_and_none_is_sent_twice() {
    let lasts = Duration::from_secs(if is_soak() { 240 } else { 40 });
    let seed = Chance::seed();
    let Some(mut chaos) = Chaos::new(seed).await else { return };
    let (crowd, visitors) = Crowd::come(chaos.gateway.address());
    let (began, mut steps) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        chaos.step().await;
        steps += 1;
    }
    let asked = crowd.leave(visitors).await;
    let sums = judge(&asked, &chaos.windows, &chaos.ledger(), (chaos.began, &chaos.told));
    measured(TEST, &format!("BG_SEED={seed}: {steps} events, {sums}"));
}
