//! Control against a model of it, over random sequences of every call, of probes, deaths, kills and damaged files. Nothing in it
//! waits: the time of a bake's end and what probes find are the test's own.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use config::admin::event::Verdict;
use config::admin::request::{Drain, Flip, Maintenance, Pause, ServiceSettings, Stage};
use config::health::HealthCheck;
use proptest::prelude::*;

use super::flip_back::Look;
use super::store::SavedMaintenance;
use super::*;
use crate::health::Outcome;

/// The port of a second endpoint.
const SECOND: u16 = 2;
const ANY: Change = Change { if_match: IfMatch::Any, lease: None };

/// What is done, or happens.
#[derive(Debug, Clone, Copy)]
enum Call {
    Put,
    Stage {
        slot: Slot,
        probed: bool,
    },
    Clear(Slot),
    Probe {
        slot: Slot,
        outcome: Found,
    },
    Flip {
        to: Slot,
        force: bool,
        bake: bool,
    },
    /// The live slot has a second endpoint from now on, or none any more.
    Endpoints {
        second: bool,
    },
    FlipBack,
    EndBake,
    Pause,
    Resume,
    Maintenance(bool),
    Delete,
    /// The process is killed, and starts again.
    Kill,
    /// The same, and the file in force is damaged.
    Tear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Good,
    Bad,
    Nothing,
}

fn call() -> impl Strategy<Value = Call> {
    let slot = || prop_oneof![Just(Slot::Blue), Just(Slot::Green)];
    let found = prop_oneof![4 => Just(Found::Good), 1 => Just(Found::Bad), 1 => Just(Found::Nothing)];
    prop_oneof![
        1 => Just(Call::Put),
        4 => (slot(), any::<bool>()).prop_map(|(slot, probed)| Call::Stage { slot, probed }),
        1 => slot().prop_map(Call::Clear),
        5 => (slot(), found).prop_map(|(slot, outcome)| Call::Probe { slot, outcome }),
        6 => (slot(), any::<bool>(), any::<bool>()).prop_map(|(to, force, bake)| Call::Flip { to, force, bake }),
        2 => any::<bool>().prop_map(|second| Call::Endpoints { second }),
        3 => Just(Call::FlipBack),
        2 => Just(Call::EndBake),
        1 => Just(Call::Pause),
        1 => Just(Call::Resume),
        1 => any::<bool>().prop_map(Call::Maintenance),
        1 => Just(Call::Delete),
        3 => Just(Call::Kill),
        1 => Just(Call::Tear),
    ]
}

/// A slot, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    /// Tells it apart from those before it.
    port: u16,
    probed: bool,
    was_live: bool,
    healthy: bool,
    passes: u32,
    failures: u32,
    /// Whether the second endpoint is healthy, where there is one; nobody probes it.
    second: Option<bool>,
}

impl Version {
    fn is_healthy(&self) -> bool {
        self.healthy && self.second != Some(false)
    }
}

/// What should be on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Disk {
    live: Option<Slot>,
    slots: HashMap<Slot, Version>,
    maintenance: bool,
}

/// The service, as it should be.
#[derive(Debug, Clone, Default)]
struct Model {
    exists: bool,
    routed: bool,
    now: Disk,
    paused: bool,
    /// The slot that is gone back to while the bake goes on.
    bake: Option<Slot>,
    json: Option<Disk>,
    previous: Option<Disk>,
    next_port: u16,
}

impl Model {
    /// What is saved: a slot that was only staged is not.
    fn to_save(&self) -> Disk {
        let mut disk = self.now.clone();
        disk.slots.retain(|_, version| version.was_live);
        disk
    }

    fn prepare(&mut self) {
        if self.json.is_some() {
            self.previous.clone_from(&self.json);
        }
    }

    fn save(&mut self) {
        self.prepare();
        self.json = Some(self.to_save());
    }

    /// What a start finds.
    fn restart(&mut self, found: Option<Disk>) {
        (self.paused, self.bake) = (false, None);
        (self.exists, self.routed) = (found.is_some(), found.is_some());
        self.json.clone_from(&found);
        self.now = found.unwrap_or_default();
        for (slot, version) in &mut self.now.slots {
            // What was live is believed to be still.
            version.healthy = self.now.live == Some(*slot) || !version.probed;
            version.second = version.second.map(|_| version.healthy);
            (version.passes, version.failures) = (0, 0);
        }
    }

    fn flip(&mut self, to: Slot, bake: bool) {
        let old = self.now.live.replace(to);
        self.routed = true;
        self.now.slots.get_mut(&to).unwrap().was_live = true;
        self.bake = old.filter(|_| bake);
    }

    fn probe(&mut self, slot: Slot, outcome: Found) {
        let Some(version) = self.now.slots.get_mut(&slot) else { return };
        if outcome == Found::Good {
            (version.passes, version.failures) = (version.passes + 1, 0);
        } else {
            (version.passes, version.failures) = (0, version.failures + 1);
        }
        version.healthy = if version.healthy { version.failures < 2 } else { version.passes >= 2 };
    }
}

/// Control, its folder and the model beside it.
struct Pair {
    folder: tempfile::TempDir,
    control: Control,
    shop: ServiceName,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        // Nothing of this need outlive the machine.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let (store, restored) = Store::open(folder.path()).unwrap();
        let control = Control::open(store, restored, 1).0;
        Self { folder, control, shop: "shop".parse().unwrap(), model: Model::default() }
    }

    fn file(&self, kind: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("services/shop.{kind}"))
    }

    fn run_of(&self, slot: Slot) -> Option<Arc<Run>> {
        let state = self.control.services.get(&self.shop)?.slot(slot)?;
        Some(Arc::clone(&state.run))
    }

    fn reopen(&mut self) {
        let (store, restored) = Store::open(self.folder.path()).unwrap();
        self.control = Control::open(store, restored, 1).0;
    }

    /// Does it to both, and compares what each says of it.
    fn take(&mut self, call: Call) -> Result<(), TestCaseError> {
        let Self { control, shop, model, .. } = self;
        match call {
            Call::Put => {
                control.put(shop, settings(), &ANY).unwrap();
                (model.exists, model.routed) = (true, true);
                model.save();
            }
            Call::Stage { slot, probed } => {
                model.next_port += 1;
                let port = 1000 + model.next_port;
                let stage = Stage {
                    slot: Some(slot),
                    endpoints: vec![format!("127.0.0.1:{port}").parse().unwrap()],
                    health: HealthCheck { enabled: probed, ..HealthCheck::default() },
                    settings: Some(settings()),
                    ..Stage::default()
                };
                let done = control.stage(shop, stage, &ANY).is_ok();
                prop_assert_eq!(done, model.now.live != Some(slot));
                if done {
                    (model.exists, model.bake) = (true, None);
                    let version = Version {
                        port,
                        probed,
                        was_live: false,
                        healthy: !probed,
                        passes: 0,
                        failures: 0,
                        second: None,
                    };
                    model.now.slots.insert(slot, version);
                    model.prepare();
                }
            }
            Call::Clear(slot) => {
                let stage = Stage { slot: Some(slot), ..Stage::default() };
                let done = control.stage(shop, stage, &ANY).is_ok();
                prop_assert_eq!(done, model.exists && model.now.live != Some(slot));
                if done {
                    model.bake = None;
                    if model.now.slots.remove(&slot).is_some_and(|version| version.was_live) {
                        model.save();
                    }
                }
            }
            Call::Probe { slot, outcome } => {
                let Some(run) = self.run_of(slot) else { return Ok(()) };
                let endpoint = format!("127.0.0.1:{}", self.model.now.slots[&slot].port).parse().unwrap();
                let words = "words".to_owned();
                let found = match outcome {
                    Found::Good => Outcome::Passed(words),
                    Found::Bad => Outcome::Failed(words),
                    Found::Nothing => Outcome::Dead(words),
                };
                let healthy = self.control.probed(Probed { run: run.id(), endpoint, addresses: None, outcome: found });
                self.model.probe(slot, outcome);
                prop_assert_eq!(healthy, Some(self.model.now.slots[&slot].healthy));
            }
            Call::Flip { to, force, bake } => {
                let duration = if bake { Duration::from_secs(10) } else { Duration::ZERO };
                let flip = Flip { to: Some(to), force, bake: duration, ..Flip::default() };
                let flipped = control.flip(shop, &flip, &ANY).ok();
                let version = model.now.slots.get(&to);
                let may = model.now.live != Some(to) && version.is_some_and(|version| version.is_healthy() || force);
                prop_assert_eq!(flipped.is_some(), may);
                if let Some((flipped, old)) = flipped {
                    prop_assert_eq!((flipped.old, old.map(|old| old.slot())), (model.now.live, model.now.live));
                    model.flip(to, bake);
                    model.prepare();
                    model.json = Some(model.to_save());
                }
            }
            Call::Endpoints { second } => {
                let version = model.now.live.and_then(|live| model.now.slots.get_mut(&live));
                let port = version.as_ref().map_or(1, |version| version.port);
                let ports = [port, SECOND];
                let wanted = &ports[..if second { 2 } else { 1 }];
                let wanted: Vec<EndpointAddr> =
                    wanted.iter().map(|port| format!("127.0.0.1:{port}").parse().unwrap()).collect();
                let done = control.set_endpoints(shop, &wanted, &ANY).is_ok();
                prop_assert_eq!(done, version.is_some());
                if let Some(version) = version {
                    version.second = second.then(|| version.second.unwrap_or(!version.probed));
                    model.save();
                }
            }
            Call::FlipBack => {
                let Some(run) = self.model.now.live.and_then(|live| self.run_of(live)) else { return Ok(()) };
                let (control, model) = (&mut self.control, &mut self.model);
                let done = control.flip_back(&self.shop, run.id(), Verdict::Dead, "died".to_owned()).is_some();
                let back = model.bake.filter(|back| model.now.slots[back].is_healthy());
                prop_assert_eq!(done, back.is_some());
                if let Some(back) = back {
                    model.flip(back, false);
                    model.save();
                    let drain = Drain { slot: Some(back), bake: true };
                    prop_assert!(control.flipped_back(&self.shop, &drain).is_some(), "whoever asks is told");
                }
            }
            Call::EndBake => {
                let Some(run) = self.model.now.live.and_then(|live| self.run_of(live)) else { return Ok(()) };
                let later = Instant::now() + Duration::from_secs(60);
                let look = self.control.look_at_bake(&self.shop, run.id(), later);
                prop_assert_eq!(matches!(look, Look::Over(..)), self.model.bake.is_some());
                self.control.end_bake(&self.shop, run.id());
                self.model.bake = None;
            }
            Call::Pause => {
                let done = control.pause(shop, &Pause::default(), &ANY).is_ok();
                prop_assert_eq!(done, model.exists);
                model.paused |= done;
            }
            Call::Resume => {
                control.open_gate(shop, None);
                model.paused = false;
            }
            Call::Maintenance(on) => {
                let done = control.maintenance(shop, Maintenance { on, ..Maintenance::default() }, &ANY).is_ok();
                prop_assert_eq!(done, model.exists);
                if done {
                    model.now.maintenance = on;
                    model.save();
                }
            }
            Call::Delete => {
                let known = model.exists || !control.state_lost().is_empty();
                prop_assert_eq!(control.delete(shop, &ANY).is_ok(), known);
                *model = Model { next_port: model.next_port, ..Model::default() };
            }
            Call::Kill => {
                self.reopen();
                let found = self.model.json.clone();
                self.model.restart(found);
            }
            Call::Tear => {
                if self.model.json.is_none() {
                    return Ok(());
                }
                // Another file in its place: what a disk does to one file it does not do to two.
                let text = std::fs::read(self.file("json")).unwrap();
                std::fs::write(self.file("torn"), &text[..text.len() / 2]).unwrap();
                std::fs::rename(self.file("torn"), self.file("json")).unwrap();
                self.reopen();
                let found = self.model.previous.clone();
                let lost = self.control.state_lost();
                prop_assert_eq!(lost.is_empty(), found.is_some(), "{:?}", lost);
                self.model.restart(found);
                if self.model.json.is_none() {
                    // Lost for good; the file that can't be read is in its place until the service is made anew.
                    std::fs::remove_file(self.file("json")).unwrap();
                }
            }
        }
        Ok(())
    }

    /// What must hold whatever was done.
    fn check(&self) -> Result<(), TestCaseError> {
        let (control, model) = (&self.control, &self.model);
        let status = control.service(&self.shop).ok().filter(|status| status.generation > 0);
        prop_assert_eq!(status.is_some(), model.exists);
        let table = control.live.current();
        let found = table.find("shop.test", "/");
        prop_assert_eq!(found.is_some(), model.routed);
        if let Some(status) = status {
            prop_assert_eq!(status.live, model.now.live);
            prop_assert_eq!(
                (status.paused.is_some(), status.maintenance.is_some()),
                (model.paused, model.now.maintenance)
            );
            prop_assert_eq!(status.bake.map(|bake| bake.back), model.bake);
            for slot in Slot::BOTH {
                let shown = status.slots.get(slot).endpoints.iter().map(|e| (e.address.port(), e.healthy));
                let shown: Vec<(u16, bool)> = shown.collect();
                let wanted = model.now.slots.get(&slot).map(|version| (version.port, version.healthy));
                let second = model.now.slots.get(&slot).and_then(|version| Some((SECOND, version.second?)));
                let wanted: Vec<(u16, bool)> = wanted.into_iter().chain(second).collect();
                prop_assert_eq!(shown, wanted, "{}", slot);
                let Some(run) = self.run_of(slot) else { continue };
                // New requests go to the live version alone, and replays to the one that a bake goes back to.
                if model.now.slots[&slot].was_live {
                    prop_assert_eq!(run.claim(0).is_some(), model.now.live == Some(slot), "{}", slot);
                }
                prop_assert_eq!(run.claim_replay(0).is_some(), model.bake == Some(slot), "{}", slot);
            }
        }
        if let Some(found) = found {
            let target = found.service.live.as_ref().map(|live| live.run.slot());
            prop_assert_eq!(target, model.now.live);
            prop_assert_eq!(found.service.back.as_ref().map(|back| back.run.slot()), model.bake);
            prop_assert_eq!(found.service.closed.is_some(), model.paused || model.now.maintenance);
        }
        self.check_disk()
    }

    /// A kill in this moment would find what was said.
    fn check_disk(&self) -> Result<(), TestCaseError> {
        let Ok(text) = std::fs::read_to_string(self.file("json")) else {
            prop_assert!(self.model.json.is_none());
            return Ok(());
        };
        let Some(wanted) = &self.model.json else { return Ok(()) };
        let saved: Saved = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
        prop_assert_eq!(saved.live, wanted.live);
        prop_assert_eq!(
            saved.maintenance.as_ref().map(|saved: &SavedMaintenance| saved.message.as_str()).is_some(),
            wanted.maintenance
        );
        for (slot, saved) in [(Slot::Blue, &saved.blue), (Slot::Green, &saved.green)] {
            let saved = saved.as_ref().map(|saved| (saved.endpoints[0].port(), saved.endpoints.len()));
            let wanted =
                wanted.slots.get(&slot).map(|version| (version.port, 1 + usize::from(version.second.is_some())));
            prop_assert_eq!(saved, wanted, "{} on disk", slot);
        }
        Ok(())
    }
}

fn settings() -> ServiceSettings {
    ServiceSettings { domains: vec!["shop.test".parse().unwrap()], ..ServiceSettings::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_and_whatever_happens_control_does_what_the_model_says(
        calls in proptest::collection::vec(call(), 1..40),
    ) {
        let mut pair = Pair::new();
        let mut was_live = false;
        for call in calls {
            pair.take(call)?;
            pair.check()?;
            // S7: once a slot was live, always one; only a removal, or the loss of all that was saved, ends that.
            was_live = match call {
                Call::Delete | Call::Tear => pair.model.now.live.is_some(),
                _ => was_live || pair.model.now.live.is_some(),
            };
            prop_assert_eq!(was_live, pair.model.now.live.is_some());
        }
    }
}

/// As many as take some twenty seconds; `PROPTEST_CASES` asks for another number.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}
