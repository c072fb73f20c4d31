//! Chaos by a seeded schedule: two services under load while versions are switched and gone back to, and applications, `bgctl`
//! and the proxy are killed. Every request is noted by its visitor, and by each application that it reaches.
//!
//! A request may fail where no process could have answered it: while there is no proxy, while the only instance of a service
//! is dead, and one that may not be repeated where the instance that had it was killed.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::{Chance, Client, Ended, Site, Started, client, eventually, is_soak, measured};
use tokio::task::JoinSet;

use crate::programs::PROGRAMS;

pub(crate) const SERVICES: [&str; 2] = ["shop", "calm"];
/// What the bodies of POSTs have, so that they don't fit into one write.
const BODY_BYTES: usize = 100_000;
const BAKE: &str = "1s";

/// What a visitor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visitor {
    KeepAlive,
    Fresh,
    Slow,
    Post,
}

/// A request, and what became of it.
#[derive(Debug)]
pub(crate) struct Asked {
    id: String,
    service: &'static str,
    visitor: Visitor,
    began: Instant,
    ended: Instant,
    failed: Option<String>,
}

/// Why requests may fail for a while.
pub(crate) struct Window {
    /// None: every service.
    pub(crate) service: Option<&'static str>,
    /// Requests that may be repeated are answered all the same.
    pub(crate) posts_alone: bool,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) why: String,
}

impl Window {
    fn excuses(&self, asked: &Asked) -> bool {
        self.service.is_none_or(|service| service == asked.service)
            && (!self.posts_alone || asked.visitor == Visitor::Post)
            && asked.began <= self.to
            && asked.ended >= self.from
    }
}

impl Window {
    fn told(&self, began: Instant) -> String {
        let whose = if self.posts_alone { "POSTs of " } else { "" };
        format!("{}: {whose}{}: {}", span(began, self.from, self.to), self.service.unwrap_or("all"), self.why)
    }
}

/// Says from when to when something was.
fn span(began: Instant, from: Instant, to: Instant) -> String {
    let at = |time: Instant| time.saturating_duration_since(began).as_secs_f64();
    format!("{:.3} to {:.3}", at(from), at(to))
}

/// What visitors share.
#[derive(Default)]
pub(crate) struct Crowd {
    stop: AtomicBool,
    next: AtomicU64,
    asked: Mutex<Vec<Asked>>,
}

impl Crowd {
    /// Sends visitors of each kind to both services.
    pub(crate) fn come(address: SocketAddr) -> (Arc<Self>, JoinSet<()>) {
        let crowd = Arc::new(Self::default());
        let mut visitors = JoinSet::new();
        for service in SERVICES {
            for visitor in [Visitor::KeepAlive, Visitor::KeepAlive, Visitor::Fresh, Visitor::Slow, Visitor::Post] {
                visitors.spawn(visit(Arc::clone(&crowd), address, service, visitor));
            }
        }
        (crowd, visitors)
    }

    /// Lets them go home, and returns what became of each request.
    pub(crate) async fn leave(&self, mut visitors: JoinSet<()>) -> Vec<Asked> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = visitors.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn visit(crowd: Arc<Crowd>, address: SocketAddr, service: &'static str, visitor: Visitor) {
    let mut connection = None;
    while !crowd.stop.load(Ordering::Relaxed) {
        let id = crowd.next.fetch_add(1, Ordering::Relaxed).to_string();
        let began = Instant::now();
        let answer = ask(address, service, visitor, &id, &mut connection).await;
        if answer.is_err() || visitor == Visitor::Fresh {
            connection = None;
        }
        let asked = Asked { id, service, visitor, began, ended: Instant::now(), failed: answer.err() };
        crowd.asked.lock().unwrap().push(asked);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

async fn ask(
    address: SocketAddr,
    service: &str,
    visitor: Visitor,
    id: &str,
    connection: &mut Option<Client>,
) -> Result<(), String> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(client(address).await.map_err(|error| format!("connect: {error}"))?),
    };
    let fields = format!("Host: {service}.test\r\nX-Load-Id: {id}\r\n");
    let request = match visitor {
        Visitor::KeepAlive => format!("GET / HTTP/1.1\r\n{fields}\r\n"),
        Visitor::Fresh => format!("GET / HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"),
        Visitor::Slow => format!("GET /slow/200 HTTP/1.1\r\n{fields}\r\n"),
        Visitor::Post => {
            format!("POST / HTTP/1.1\r\n{fields}Content-Length: {BODY_BYTES}\r\n\r\n{}", "x".repeat(BODY_BYTES))
        }
    };
    open.send(request).await.map_err(|error| format!("send: {error}"))?;
    let answer = open.answer().await.map_err(|error| format!("read: {error}"))?;
    let answer = answer.ok_or("the connection was closed without an answer")?;
    if answer.closes() {
        *connection = None;
    }
    let version = answer.field("x-version").unwrap_or("none");
    match answer.status {
        200 if answer.field("x-load-id") != Some(id) => Err("the answer to another request".to_owned()),
        200 if !version.starts_with(service) => Err(format!("answered by {version}")),
        200 => Ok(()),
        status => Err(format!("{status} by {version}: {}", answer.text().chars().take(120).collect::<String>())),
    }
}

/// A site with two services, and what is done to it.
struct Chaos {
    site: Site,
    chance: Chance,
    ledger: PathBuf,
    versions: u32,
    windows: Vec<Window>,
    /// What was done, in words.
    told: Vec<String>,
    began: Instant,
}

impl Chaos {
    async fn new(seed: u64, ledger: &Path) -> Self {
        let site = Site::new(PROGRAMS);
        site.up().await;
        let (chance, ledger, began) = (Chance::new(seed), ledger.to_owned(), Instant::now());
        let mut chaos = Self {
            site,
            chance,
            ledger,
            versions: 0,
            windows: Vec::new(),
            told: vec![format!("BG_SEED={seed}")],
            began,
        };
        for service in SERVICES {
            chaos.switch(service).await;
        }
        chaos
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(format!("{:7.3} {}", self.began.elapsed().as_secs_f64(), what.into()));
    }

    /// A new version's name and its image.
    fn version(&mut self, service: &str) -> (String, String) {
        self.versions += 1;
        let name = format!("{service}-v{}", self.versions);
        let image = self.site.version_with_ledger(&name, Duration::from_millis(50), &self.ledger);
        (name, image)
    }

    /// Starts a switch that watches the new version for so long.
    fn start(&self, service: &str, image: &str, bake: &str) -> Started {
        let (domain, port) = (format!("{service}.test"), self.site.port().to_string());
        // The one has a second instance that covers for the first.
        let replicas = if service == "calm" { "2" } else { "1" };
        let words = ["switch", service, "--image", image, "--domain", &domain, "--port", &port, "--replicas", replicas];
        self.site.start(&[&words[..], &["--bake", bake, "--drain", "5s", "--lock-wait", "40s"]].concat())
    }

    /// Switches to a new version, which must go well.
    async fn switch(&mut self, service: &str) {
        let (name, image) = self.version(service);
        self.tell(format!("switch to {name}"));
        let ended = self.start(service, &image, BAKE).end().await;
        self.ended_well(&ended, &[0]);
    }

    fn ended_well(&mut self, ended: &Ended, codes: &[i32]) {
        self.tell(format!("  exit {:?}", ended.code));
        let is_well = ended.code.is_some_and(|code| codes.contains(&code));
        assert!(is_well, "exit {:?}: {}\n{}", ended.code, ended.talk, self.told.join("\n"));
    }

    /// Brings a service to rest after a run that was cut off.
    async fn recover(&mut self, service: &str) {
        self.tell(format!("recover {service}"));
        let ended = self.site.bgctl(&["recover", service, "--lock-wait", "40s"]).await;
        self.ended_well(&ended, &[0]);
    }

    /// The instances of a version that run.
    fn instances(&self, version: &str) -> Vec<Pid> {
        let words = format!(" {version} ");
        self.site.processes().into_iter().filter(|(_, line)| line.contains(&words)).map(|(id, _)| id).collect()
    }

    /// The version that is live.
    async fn live(&self, service: &str) -> String {
        let status = self.site.status(service).await;
        let live = status["live"].as_str().unwrap_or_else(|| panic!("nothing is live: {}", self.told.join("\n")));
        let image = status["slots"][live]["image"].as_str().unwrap();
        image.rsplit('/').next().unwrap().to_owned()
    }

    /// Kills an instance, and waits until it is gone. Returns from when to when requests on it were lost.
    async fn kill(&mut self, version: &str, victim: Pid) -> (Instant, Instant) {
        self.tell(format!("kill {version}, {victim:?}"));
        let from = Instant::now();
        kill_process(victim, Signal::KILL).unwrap();
        eventually("it is gone", async || (!self.instances(version).contains(&victim)).then_some(())).await;
        (from, Instant::now())
    }

    fn excuse(&mut self, service: Option<&'static str>, posts_alone: bool, (from, to): (Instant, Instant), why: &str) {
        self.windows.push(Window { service, posts_alone, from, to, why: why.to_owned() });
    }

    /// The proxy dies and is started again.
    async fn kill_proxy(&mut self) {
        self.tell("kill the proxy");
        let from = Instant::now();
        self.site.kill("bgproxy");
        self.site.up().await;
        self.excuse(None, false, (from, Instant::now()), "no proxy");
    }

    /// The next thing that happens to a service.
    async fn step(&mut self) {
        let service = *self.chance.of(&SERVICES);
        match self.chance.below(9) {
            0 | 1 => self.switch(service).await,
            2 => {
                self.tell(format!("roll back {service}"));
                let ended = self.site.bgctl(&["rollback", service, "--lock-wait", "40s"]).await;
                self.ended_well(&ended, &[0, 4]);
            }
            3 => self.kill_proxy().await,
            4 => self.kill_in_bake(service).await,
            5 => self.kill_bgctl(service).await,
            6 => self.kill_proxy_in_switch(service).await,
            7 => self.kill_live(service).await,
            _ => {
                let ended = self.site.bgctl(&["pause", service, "--drain", "1s"]).await;
                self.tell(format!("pause {service}"));
                self.ended_well(&ended, &[0]);
                let ended = self.site.bgctl(&["resume", service]).await;
                self.tell("  resume");
                self.ended_well(&ended, &[0]);
            }
        }
        for service in SERVICES {
            self.check(service).await;
        }
    }

    /// A new version dies in its bake: the one before is live again.
    async fn kill_in_bake(&mut self, service: &'static str) {
        let before = self.live(service).await;
        let (name, image) = self.version(service);
        self.tell(format!("switch to {name}, which will die"));
        let mut switch = self.start(service, &image, "20s");
        switch.until("flipped").await;
        tokio::time::sleep(self.chance.within(Duration::from_millis(500))).await;
        for victim in self.instances(&name) {
            let lost = self.kill(&name, victim).await;
            self.excuse(Some(service), true, lost, &name);
        }
        let ended = switch.end().await;
        self.ended_well(&ended, &[4]);
        assert_eq!(self.live(service).await, before, "{}", self.told.join("\n"));
    }

    async fn kill_bgctl(&mut self, service: &'static str) {
        let (name, image) = self.version(service);
        let switch = self.start(service, &image, BAKE);
        let after = self.chance.within(Duration::from_millis(2500));
        tokio::time::sleep(after).await;
        self.tell(format!("kill bgctl {after:?} into a switch to {name}"));
        switch.signal(Signal::KILL);
        drop(switch.end().await);
        self.recover(service).await;
    }

    async fn kill_proxy_in_switch(&mut self, service: &'static str) {
        let (name, image) = self.version(service);
        self.tell(format!("switch to {name}"));
        let switch = self.start(service, &image, BAKE);
        tokio::time::sleep(self.chance.within(Duration::from_millis(2000))).await;
        self.kill_proxy().await;
        let ended = switch.end().await;
        self.ended_well(&ended, &[0, 2]);
        self.recover(service).await;
    }

    /// One instance of the live version dies; a new version comes in its place.
    async fn kill_live(&mut self, service: &'static str) {
        let live = self.live(service).await;
        let instances = self.instances(&live);
        let victim = *self.chance.of(&instances);
        let lost = self.kill(&live, victim).await;
        self.excuse(Some(service), true, lost, &live);
        self.switch(service).await;
        if instances.len() == 1 {
            self.excuse(Some(service), false, (lost.0, Instant::now()), "its only instance is dead");
        }
    }

    /// What must be so between two things that happen.
    async fn check(&self, service: &str) {
        let told = || self.told.join("\n");
        let live = self.live(service).await;
        let mut visitor = client(self.site.address()).await.unwrap();
        let answer = visitor.get(&format!("{service}.test"), "/").await.unwrap().unwrap();
        assert_eq!(answer.field("x-version"), Some(live.as_str()), "{}", told());
        let status = self.site.status(service).await;
        assert!(status["lease"].is_null() && status["paused"].is_null(), "{status}: {}", told());
    }
}

/// How often each request that may not be repeated reached an application.
fn posts(ledger: &Path) -> BTreeMap<String, usize> {
    let mut posts = BTreeMap::new();
    for line in fs::read_to_string(ledger).unwrap().lines() {
        if let Some((id, "POST")) = line.split_once(' ') {
            *posts.entry(id.to_owned()).or_default() += 1;
        }
    }
    posts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_chaos_no_request_fails_that_a_process_could_have_answered_and_none_is_sent_twice() {
    let lasts = Duration::from_secs(if is_soak() { 240 } else { 40 });
    let seed = Chance::seed();
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let mut chaos = Chaos::new(seed, &ledger).await;
    let (crowd, visitors) = Crowd::come(chaos.site.address());
    let (began, mut steps) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        chaos.step().await;
        steps += 1;
    }
    let asked = crowd.leave(visitors).await;
    let sums = judge(&asked, &chaos.windows, &ledger, (chaos.began, &chaos.told));
    measured("chaos", &format!("BG_SEED={seed}: {steps} events, {sums}"));
}

/// Ends the test unless every request that a process could have answered was, and none that may not be repeated arrived twice.
/// Returns what was counted, in words.
pub(crate) fn judge(asked: &[Asked], windows: &[Window], ledger: &Path, told: (Instant, &[String])) -> String {
    let (began, told) = (told.0, told.1.join("\n"));
    let failed: Vec<&Asked> = asked.iter().filter(|asked| asked.failed.is_some()).collect();
    let unexcused: Vec<String> = failed
        .iter()
        .filter(|asked| !windows.iter().any(|window| window.excuses(asked)))
        .map(|asked| format!("{}: {asked:?}", span(began, asked.began, asked.ended)))
        .collect();
    let windows: Vec<String> = windows.iter().map(|window| window.told(began)).collect();
    assert!(unexcused.is_empty(), "{unexcused:#?}\n{told}\n{windows:#?}");
    let posts = posts(ledger);
    let twice: Vec<_> = posts.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}\n{told}");
    let answered = asked.iter().filter(|asked| asked.failed.is_none() && asked.visitor == Visitor::Post);
    let unknown: Vec<&str> = answered.map(|asked| asked.id.as_str()).filter(|id| !posts.contains_key(*id)).collect();
    assert!(unknown.is_empty(), "answered by nobody: {unknown:?}");
    format!(
        "{} requests, {} of them lost where no process could have answered, {} POSTs, none twice",
        asked.len(),
        failed.len(),
        posts.len()
    )
}
