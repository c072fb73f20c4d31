//! Random sequences of admin calls against a real proxy that is killed at random instants: what it acknowledged holds, what was
//! under way happened whole or not at all, and visitors get what the status says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Behaviour, Chance, Proxy, Upstream, client, eventually, is_soak, measured, proxy_program, upstream};

use crate::programs::PROGRAMS;

const SHOP: &str = "/v1/services/shop";
const SLOTS: [&str; 2] = ["blue", "green"];

/// A call, with all that chance decided of it.
#[derive(Debug, Clone)]
enum Call {
    Put,
    Stage { slot: &'static str, endpoints: Vec<SocketAddr> },
    Clear(&'static str),
    Flip { to: &'static str, bake: bool },
    Endpoints(Vec<SocketAddr>),
    Canary(u64),
    Pause,
    Resume,
    Maintenance(bool),
    Acquire,
    Release,
    Begin(String),
    Step(String),
    End(String),
    Delete,
}

/// What is in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    endpoints: Vec<SocketAddr>,
    was_live: bool,
}

/// What is known of the service, from what the proxy acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    is_made: bool,
    /// The slots on the disk, where it is there: of them only those that were live, as they were at the last change.
    saved: Option<BTreeMap<&'static str, Version>>,
    live: Option<&'static str>,
    slots: BTreeMap<&'static str, Version>,
    /// The idle slot that a share of the visitors sees, as it was when they were let in: of all that is only staged it alone is on
    /// the disk.
    canary: Option<(&'static str, Version)>,
    maintenance: bool,
    is_leased: bool,
    /// The ids of the journal, the latest first, and whether each is open.
    journal: Vec<(String, bool)>,
}

impl Known {
    /// What is so once a call was done.
    fn after(&self, call: &Call) -> Self {
        let mut next = self.clone();
        if let Call::Stage { .. } | Call::Clear(_) | Call::Flip { .. } = call {
            next.canary = None;
        }
        match call {
            Call::Put => next.is_made = true,
            Call::Stage { slot, endpoints } => {
                next.is_made = true;
                next.slots.insert(slot, Version { endpoints: endpoints.clone(), was_live: false });
            }
            Call::Clear(slot) => {
                next.slots.remove(slot);
            }
            Call::Flip { to, .. } => {
                next.live = Some(to);
                next.slots.entry(to).and_modify(|version| version.was_live = true);
            }
            Call::Endpoints(endpoints) => {
                if let Some(version) = self.live.and_then(|live| next.slots.get_mut(live)) {
                    version.endpoints.clone_from(endpoints);
                }
            }
            Call::Maintenance(on) => next.maintenance = *on,
            Call::Acquire => next.is_leased = true,
            Call::Release => next.is_leased = false,
            Call::Begin(id) => {
                next.journal.iter_mut().for_each(|(_, is_open)| *is_open = false);
                next.journal.insert(0, (id.clone(), true));
            }
            Call::End(_) => next.journal.iter_mut().take(1).for_each(|(_, is_open)| *is_open = false),
            Call::Canary(percent) => {
                let idle = SLOTS.into_iter().find(|slot| self.live != Some(slot)).filter(|_| *percent > 0);
                next.canary = idle.and_then(|idle| Some((idle, self.slots.get(idle)?.clone())));
            }
            Call::Step(_) | Call::Pause | Call::Resume => {}
            Call::Delete => return Self::default(),
        }
        if let Call::Put | Call::Clear(_) | Call::Flip { .. } | Call::Endpoints(_) | Call::Maintenance(_) = call {
            let mut saved = next.slots.clone();
            saved.retain(|_, version| version.was_live);
            next.saved = Some(saved);
        }
        next
    }

    /// What is left of it by a restart: a slot that was only staged is not, unless visitors see it.
    fn restarted(mut self) -> Self {
        self.is_made = self.saved.is_some();
        self.slots = self.saved.clone().unwrap_or_default();
        self.slots.extend(self.canary.clone());
        self.is_leased &= self.is_made;
        self
    }
}

/// A proxy, what it is asked to serve, and what is known of it.
struct Shop {
    proxy: Proxy,
    good: [Upstream; 3],
    sick: Upstream,
    calm: Upstream,
    chance: Chance,
    known: Known,
    lease: Option<String>,
    is_paused: bool,
    generation: u64,
    kills: u64,
    told: String,
}

impl Shop {
    async fn new(seed: u64) -> Self {
        let good = [upstream("one").await, upstream("two").await, upstream("three").await];
        let (sick, calm) = (upstream("sick").await, upstream("calm").await);
        sick.behave(Behaviour::Status(503));
        let mut proxy = proxy_program(PROGRAMS.bgproxy);
        proxy.start().await;
        proxy.serve("calm", calm.address()).await;
        let (chance, told) = (Chance::new(seed), format!("BG_SEED={seed}"));
        let (known, lease) = (Known::default(), None);
        Self { proxy, good, sick, calm, chance, known, lease, is_paused: false, generation: 0, kills: 0, told }
    }

    fn call(&mut self) -> Call {
        let chance = &mut self.chance;
        let slot = *chance.of(&SLOTS);
        let open = self.known.journal.first().map(|(id, _)| id.clone()).unwrap_or_default();
        let id = format!("{:x}", chance.below(u64::MAX));
        match chance.below(32) {
            0 => Call::Put,
            1..=8 => {
                // Most often the idle one, as the live one is refused.
                let idle = if self.known.live == Some("blue") { "green" } else { "blue" };
                let slot = if chance.one_in(6) { slot } else { idle };
                let app = if chance.one_in(5) { &self.sick } else { chance.of(&self.good) };
                Call::Stage { slot, endpoints: vec![app.address()] }
            }
            9 => Call::Clear(slot),
            10..=17 => Call::Flip { to: slot, bake: chance.one_in(2) },
            18 | 19 => {
                let version = self.known.live.and_then(|live| self.known.slots.get(live));
                let mut endpoints = version.map(|version| version.endpoints.clone()).unwrap_or_default();
                endpoints.truncate(1);
                let more = chance.of(&self.good).address();
                if !endpoints.contains(&more) && !chance.one_in(3) {
                    endpoints.push(more);
                }
                Call::Endpoints(endpoints)
            }
            20 => Call::Canary(10 * chance.below(2)),
            21 => Call::Pause,
            22 | 23 => Call::Resume,
            24 | 25 => Call::Maintenance(chance.one_in(3)),
            26 => Call::Acquire,
            27 => Call::Release,
            28 => Call::Begin(id),
            29 => Call::Step(open),
            30 => Call::End(open),
            _ if chance.one_in(4) => Call::Delete,
            _ => Call::Put,
        }
    }

    fn request(&self, call: &Call) -> (&'static str, &'static str, Value) {
        let settings = json!({ "domains": ["shop.test"] });
        let (path, body) = match call {
            Call::Put => return ("PUT", "", settings),
            Call::Stage { slot, endpoints } => {
                let is_sick = endpoints.contains(&self.sick.address());
                let deadline = if is_sick { "60ms" } else { "5s" };
                let health = json!({ "interval": "10ms" });
                let body = json!({ "slot": slot, "endpoints": endpoints, "settings": settings,
                    "deadline": deadline, "health": health });
                ("/stage", body)
            }
            Call::Clear(slot) => ("/stage", json!({ "slot": slot })),
            Call::Flip { to, bake } => {
                ("/flip", json!({ "to": to, "drain": "1s", "bake": if *bake { "5s" } else { "0s" } }))
            }
            Call::Endpoints(endpoints) => {
                ("/endpoints", json!({ "endpoints": endpoints, "deadline": "5s", "drain": "0s" }))
            }
            Call::Canary(percent) => ("/canary", json!({ "percent": percent })),
            Call::Pause => ("/pause", json!({ "drain": "0s" })),
            Call::Resume => ("/resume", json!({})),
            Call::Maintenance(on) => ("/maintenance", json!({ "on": on })),
            Call::Acquire => ("/lease", json!({ "action": "acquire", "who": "alice@laptop", "what": "switch" })),
            Call::Release => {
                ("/lease", json!({ "action": "release", "lease": self.lease.as_deref().unwrap_or("none") }))
            }
            Call::Begin(id) => {
                let work =
                    json!({ "id": id, "deployment": id, "what": "switch", "who": "alice@laptop", "slot": "blue" });
                ("/journal", json!({ "action": "begin", "work": work }))
            }
            Call::Step(id) => ("/journal", json!({ "action": "step", "id": id, "step": "create", "state": "begun" })),
            Call::End(id) => ("/journal", json!({ "action": "end", "id": id, "outcome": "done", "report": {} })),
            Call::Delete => return ("DELETE", "", json!({ "drain": "0s" })),
        };
        ("POST", path, body)
    }

    /// Makes a call, and perhaps kills the proxy in the middle of it or behind it.
    async fn step(&mut self) {
        let call = self.call();
        let is_killed = self.chance.one_in(4);
        let after = is_killed.then(|| self.chance.within(Duration::from_millis(25)));
        self.told = format!("{}\n{call:?}, killed after {after:?}", self.told);
        let (method, path, body) = self.request(&call);
        let path = format!("{SHOP}{path}");
        let calling = self.proxy.try_call(method, &path, body, self.lease.as_deref());
        let killing = async {
            if let Some(after) = after {
                tokio::time::sleep(after).await;
                self.proxy.signal(Signal::KILL);
            }
        };
        let (answer, ()) = tokio::join!(calling, killing);
        let told = format!("{}: {answer:?}", self.told);
        // What may be so now: once it was acknowledged or refused that alone.
        let is_done = answer.as_ref().map(|answer| matches!(answer.status, 200 | 204)).ok();
        let done = self.known.after(&call);
        if let (Call::Flip { to, .. }, Some(true)) = (&call, is_done) {
            let version = &self.known.slots[to];
            assert!(!version.endpoints.contains(&self.sick.address()), "a flip to what is not healthy: {told}");
            assert_ne!(self.known.live, Some(*to), "{told}");
        }
        if let (Call::Acquire, Some(true)) = (&call, is_done) {
            assert!(!self.known.is_leased, "two hold the lease: {told}");
            self.lease = answer.unwrap().lines[0]["lease"].as_str().map(str::to_owned);
        }
        if is_done == Some(true) {
            // What no restart leaves.
            match &call {
                Call::Pause => self.is_paused = true,
                Call::Resume | Call::Delete => self.is_paused = false,
                _ => {}
            }
        }
        let may_be = match is_done {
            Some(true) => vec![done],
            Some(false) => vec![self.known.clone()],
            None => vec![self.known.clone(), done],
        };
        if is_killed {
            self.proxy.ended().await;
            self.proxy.start().await;
            self.kills += 1;
            self.is_paused = false;
            let may_be: Vec<Known> = may_be.into_iter().map(Known::restarted).collect();
            self.settle(&may_be, &told).await;
        } else {
            assert!(is_done.is_some(), "no answer: {told}");
            self.settle(&may_be, &told).await;
        }
        if matches!(call, Call::Delete) || !self.known.is_made {
            self.generation = 0;
        }
        self.visit(&told).await;
    }

    /// Finds which of the states it is that may be; it must be one of them.
    async fn settle(&mut self, may_be: &[Known], told: &str) {
        let status = self.proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
        assert_eq!(status["state_lost"], json!([]), "{told}");
        assert_eq!(status["warnings"], json!([]), "{told}");
        let services = status["services"].as_array().unwrap();
        let shop = services.iter().find(|service| service["name"] == "shop" && service["generation"] != 0);
        let history = self.proxy.call("GET", &format!("{SHOP}/history"), json!({})).await;
        let seen = seen(shop, &history.lines[0]);
        let is_it = |known: &&Known| **known == fill(&seen, known);
        let Some(found) = may_be.iter().find(is_it) else {
            panic!("it is {seen:#?}\nand not one of {may_be:#?}\n{told}");
        };
        self.known = found.clone();
        if !self.known.is_leased {
            self.lease = None;
        }
        if let Some(shop) = shop {
            let generation = shop["generation"].as_u64().unwrap();
            assert!(generation >= self.generation, "generation {generation} after {}: {told}", self.generation);
            self.generation = generation;
            let is_live = |slot: &&&str| shop["slots"][**slot]["state"] == "live";
            let live: Vec<&str> = SLOTS.iter().filter(is_live).copied().collect();
            assert_eq!(live, shop["live"].as_str().into_iter().collect::<Vec<_>>(), "{told}: {shop}");
        }
    }

    /// Asks as a visitor: what is live answers, and the other service as ever.
    async fn visit(&self, told: &str) {
        let mut visitor = client(self.proxy.address()).await.unwrap();
        let answer = visitor.get("calm.test", "/").await.unwrap().unwrap();
        assert_eq!(answer.field("x-version"), Some("calm"), "{told}");
        let Some(live) = self.known.live.filter(|_| !self.is_paused && self.known.canary.is_none()) else { return };
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        if self.known.maintenance {
            assert_eq!(answer.status, 503, "{told}");
            return;
        }
        let endpoints = &self.known.slots[live].endpoints;
        let names = ["one", "two", "three"];
        let serves = self.good.iter().zip(names).filter(|(app, _)| endpoints.contains(&app.address()));
        let serves: Vec<&str> = serves.map(|(_, name)| name).collect();
        let version = answer.field("x-version").unwrap_or("none");
        assert!(serves.contains(&version), "{} by {version} instead of {serves:?}: {told}", answer.status);
    }
}

/// What the proxy says of the service; whether it is saved it does not say.
fn seen(shop: Option<&Value>, history: &Value) -> Known {
    let entries = history["entries"].as_array().cloned().unwrap_or_default();
    let entry = |entry: &Value| (entry["id"].as_str().unwrap().to_owned(), entry["ended"].is_null());
    let journal = entries.iter().map(entry).collect();
    let Some(shop) = shop else { return Known { journal, ..Known::default() } };
    let slots = SLOTS.into_iter().filter_map(|slot| {
        let endpoints = shop["slots"][slot]["endpoints"].as_array().unwrap();
        let endpoints: Vec<SocketAddr> =
            endpoints.iter().map(|endpoint| endpoint["address"].as_str().unwrap().parse().unwrap()).collect();
        (!endpoints.is_empty()).then_some((slot, Version { endpoints, was_live: false }))
    });
    Known {
        is_made: true,
        saved: None,
        live: SLOTS.into_iter().find(|slot| shop["live"] == *slot),
        canary: shop["canary"]["slot"].as_str().map(|slot| {
            let slot = SLOTS.into_iter().find(|known| *known == slot).unwrap();
            (slot, Version { endpoints: Vec::new(), was_live: false })
        }),
        slots: slots.collect(),
        maintenance: !shop["maintenance"].is_null(),
        is_leased: !shop["lease"].is_null(),
        journal,
    }
}

/// Takes from what is known what the proxy does not say.
fn fill(seen: &Known, known: &Known) -> Known {
    let mut filled = Known { saved: known.saved.clone(), ..seen.clone() };
    if let (Some((slot, version)), Some((known_slot, known))) = (&mut filled.canary, &known.canary)
        && slot == known_slot
    {
        version.clone_from(known);
    }
    for (slot, version) in &mut filled.slots {
        version.was_live = known.slots.get(slot).is_some_and(|known| known.was_live);
    }
    // The lease of a service that is not made is not shown.
    filled.is_leased |= !seen.is_made && known.is_leased;
    filled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_acknowledged_holds_however_often_it_is_killed() {
    let sequences = if is_soak() { 200 } else { 20 };
    let seed = Chance::seed();
    let (mut calls, mut kills) = (0, 0);
    for sequence in 0..sequences {
        let mut shop = Shop::new(seed + sequence).await;
        for _ in 0..15 {
            shop.step().await;
            calls += 1;
            if shop.known.is_leased && shop.lease.is_none() {
                // Nobody was told the id of the lease that a kill cut off: for 15 s nothing could be changed.
                break;
            }
        }
        kills += shop.kills;
        eventually("nothing is in flight", async || (shop.calm.unanswered() == 0).then_some(())).await;
    }
    measured("kills", &format!("BG_SEED={seed}: {sequences} sequences, {calls} calls, {kills} kills: all held"));
}
