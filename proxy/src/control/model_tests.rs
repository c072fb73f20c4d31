//! Control against a model of it, over random sequences of every call, of probes, deaths, kills, full disks and damaged files.
//! Nothing in it waits: the time of a bake's end, the silence of a lease's holder and what probes find are the test's own.

mod model;
mod taking;

use std::path::{Path, PathBuf};

use config::admin::request::ServiceSettings;
use config::admin::response;
use config::name::Slot;
use proptest::prelude::*;

use super::saved::SavedMaintenance;
use super::*;
use crate::routing::closed::Gate;
use model::{Found, Model, Noted};

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
    /// The idle slot has a share of the visitors, or none any more.
    Canary(bool),
    /// The judge ends it.
    CanaryFails,
    Pause,
    Resume,
    /// The time of an earlier pause is over.
    PauseEnds,
    Maintenance(bool),
    Lease(Leasing),
    /// The holder of the lease is silent for too long.
    Silence,
    Journal(Noting),
    Delete,
    /// Nothing can be written from now on, or all can be again.
    Disk {
        full: bool,
    },
    /// The process is killed, perhaps in the middle of a write, and starts again.
    Kill {
        writing: bool,
    },
    /// The same, and the file in force is damaged.
    Tear,
    /// The same with the journal.
    TearJournal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leasing {
    Acquire,
    Renew,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noting {
    Begin,
    Step,
    End,
}

/// By whom a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// By the holder of the lease, if anybody holds one.
    Rightly,
    /// By the same, for a generation that is not there.
    Stale,
    /// By somebody else.
    Strange,
}

fn call() -> impl Strategy<Value = Call> {
    let slot = || prop_oneof![Just(Slot::Blue), Just(Slot::Green)];
    let found = prop_oneof![4 => Just(Found::Good), 1 => Just(Found::Bad), 1 => Just(Found::Nothing)];
    let leasing = prop_oneof![3 => Just(Leasing::Acquire), 1 => Just(Leasing::Renew), 1 => Just(Leasing::Release)];
    let noting = prop_oneof![Just(Noting::Begin), Just(Noting::Step), Just(Noting::End)];
    prop_oneof![
        2 => Just(Call::Put),
        8 => (slot(), any::<bool>()).prop_map(|(slot, probed)| Call::Stage { slot, probed }),
        2 => slot().prop_map(Call::Clear),
        10 => (slot(), found).prop_map(|(slot, outcome)| Call::Probe { slot, outcome }),
        12 => (slot(), any::<bool>(), any::<bool>()).prop_map(|(to, force, bake)| Call::Flip { to, force, bake }),
        4 => any::<bool>().prop_map(|second| Call::Endpoints { second }),
        6 => Just(Call::FlipBack),
        4 => Just(Call::EndBake),
        4 => prop::bool::weighted(0.8).prop_map(Call::Canary),
        1 => Just(Call::CanaryFails),
        2 => Just(Call::Pause),
        2 => Just(Call::Resume),
        1 => Just(Call::PauseEnds),
        2 => any::<bool>().prop_map(Call::Maintenance),
        4 => leasing.prop_map(Call::Lease),
        1 => Just(Call::Silence),
        5 => noting.prop_map(Call::Journal),
        2 => Just(Call::Delete),
        2 => prop::bool::weighted(0.3).prop_map(|full| Call::Disk { full }),
        6 => any::<bool>().prop_map(|writing| Call::Kill { writing }),
        2 => Just(Call::Tear),
        1 => Just(Call::TearJournal),
    ]
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![8 => Just(Manner::Rightly), 1 => Just(Manner::Stale), 1 => Just(Manner::Strange)]
}

/// Control, its folder and the model beside it.
struct Pair {
    folder: tempfile::TempDir,
    control: Control,
    shop: ServiceName,
    model: Model,
    /// Every gate that a pause made since the start, the latest last.
    gates: Vec<Arc<Gate>>,
    /// What requests of a service see that nobody touches.
    other: Arc<crate::routing::table::Service>,
}

impl Pair {
    fn new() -> Self {
        // Nothing of this need outlive the machine.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let (store, restored) = Store::open(folder.path()).unwrap();
        let mut control = Control::open(store, restored, 1).0;
        control.put(&other(), settings("other.test"), &ANY).unwrap();
        let (shop, model) = ("shop".parse().unwrap(), Model::default());
        let other = control.live.current().find("other.test", "/").unwrap().service.clone();
        Self { folder, control, shop, model, gates: Vec::new(), other }
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.path().join(format!("services/shop.{kind}"))
    }

    fn run_of(&self, slot: Slot) -> Option<Arc<Run>> {
        let state = self.control.services.get(&self.shop)?.slot(slot)?;
        Some(Arc::clone(&state.run))
    }

    /// The generation that a caller sees; none where there is no such service.
    fn generation(&self) -> u64 {
        self.control.services.get(&self.shop).map_or(0, |service| service.generation)
    }

    fn reopen(&mut self) {
        let (mut store, restored) = Store::open(self.folder.path()).unwrap();
        store.is_full = self.model.is_full;
        self.control = Control::open(store, restored, 1).0;
        self.gates.clear();
        self.other = self.control.live.current().find("other.test", "/").unwrap().service.clone();
    }

    /// What must hold whatever was done.
    fn check(&self) -> Result<(), TestCaseError> {
        let (control, model) = (&self.control, &self.model);
        let status = control.service(&self.shop).ok().filter(|status| status.generation > 0);
        prop_assert_eq!(status.is_some(), model.exists);
        let table = control.live.current();
        let found = table.find("shop.test", "/");
        prop_assert_eq!(found.is_some(), model.now.routed);
        if let Some(status) = status {
            prop_assert_eq!(status.live, model.now.live);
            prop_assert_eq!(
                (status.paused.is_some(), status.maintenance.is_some()),
                (model.paused, model.now.maintenance)
            );
            prop_assert_eq!(status.bake.map(|bake| bake.back), model.bake);
            prop_assert_eq!(status.canary.map(|canary| canary.slot), model.canary);
            prop_assert_eq!(status.lease.is_some(), model.is_held());
            for slot in Slot::BOTH {
                let shown = status.slots.get(slot).endpoints.iter().map(|e| (e.address.port(), e.healthy));
                let shown: Vec<(u16, bool)> = shown.collect();
                let wanted = model.now.slots.get(&slot).map(|version| (version.port, version.healthy));
                let second = model.now.slots.get(&slot).and_then(|version| Some((SECOND, version.second?)));
                let wanted: Vec<(u16, bool)> = wanted.into_iter().chain(second).collect();
                prop_assert_eq!(shown, wanted, "{}", slot);
                let Some(run) = self.run_of(slot) else { continue };
                // New requests go to the live version and to a canary alone, and replays to the one that a bake goes back to.
                if model.now.slots[&slot].was_live {
                    let has_visitors = model.now.live == Some(slot) || model.canary == Some(slot) && !model.is_waiting;
                    prop_assert_eq!(run.claim(0).is_some(), has_visitors, "{}", slot);
                }
                prop_assert_eq!(run.claim_replay(0).is_some(), model.bake == Some(slot), "{}", slot);
            }
        }
        if let Some(found) = found {
            let target = found.service.live.as_ref().map(|live| live.run.slot());
            prop_assert_eq!(target, model.now.live);
            prop_assert_eq!(found.service.back.as_ref().map(|back| back.run.slot()), model.bake);
            let canary = model.canary.filter(|_| !model.is_waiting);
            prop_assert_eq!(found.service.canary.as_ref().map(|share| share.target.run.slot()), canary);
            prop_assert_eq!(found.service.closed.is_some(), model.paused || model.now.maintenance);
        }
        // S9: what is done to one service is nothing to another.
        let other = table.find("other.test", "/").map(|found| Arc::ptr_eq(found.service, &self.other));
        prop_assert_eq!(other, Some(true));
        self.check_laws()?;
        self.check_journal()?;
        self.check_disk()
    }

    /// S7, and that nobody waits at a gate that is gone: said without the model.
    fn check_laws(&self) -> Result<(), TestCaseError> {
        let Some(service) = self.control.services.get(&self.shop) else { return Ok(()) };
        let status = service.status(Instant::now());
        let live: Vec<Slot> =
            Slot::BOTH.into_iter().filter(|slot| status.slots.get(*slot).state == response::SlotState::Live).collect();
        prop_assert_eq!(live, status.live.into_iter().collect::<Vec<_>>());
        for gate in &self.gates {
            let is_current = service.pause.as_ref().is_some_and(|pause| Arc::ptr_eq(&pause.gate, gate));
            prop_assert_eq!(gate.is_open(), !is_current, "whoever waits there waits for nothing");
        }
        Ok(())
    }

    /// What was acknowledged is there, and after a kill too.
    fn check_journal(&self) -> Result<(), TestCaseError> {
        let entries = self.control.history(&self.shop).map(|history| history.entries).unwrap_or_default();
        let noted = |entry: &Entry| Noted {
            id: entry.work.id.clone(),
            steps: entry.steps.len(),
            is_open: entry.ended.is_none(),
            flipped_back: entry.flipped_back.is_some(),
        };
        prop_assert_eq!(entries.iter().map(noted).collect::<Vec<_>>(), self.model.journal.clone());
        Ok(())
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

fn other() -> ServiceName {
    "other".parse().unwrap()
}

fn settings(domain: &str) -> ServiceSettings {
    ServiceSettings { domains: vec![domain.parse().unwrap()], ..ServiceSettings::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_and_whatever_happens_control_does_what_the_model_says(
        calls in proptest::collection::vec((call(), manner()), 1..40),
    ) {
        let mut pair = Pair::new();
        let mut was_live = false;
        for (call, manner) in calls {
            let (before, existed, was_ahead) = (pair.generation(), pair.model.exists, pair.model.is_ahead);
            pair.model.is_changed = false;
            pair.take(call, manner)?;
            pair.check()?;
            // S7: once a slot was live, always one; only a removal, or the loss of all that was saved, ends that.
            was_live = match call {
                Call::Delete | Call::Tear => pair.model.now.live.is_some(),
                _ => was_live || pair.model.now.live.is_some(),
            };
            prop_assert_eq!(was_live, pair.model.now.live.is_some());
            // A generation that was given out never comes to mean anything else.
            let now = pair.generation();
            match call {
                Call::Delete | Call::Tear => {}
                Call::Kill { .. } | Call::TearJournal if was_ahead || !pair.model.exists => {}
                Call::Kill { .. } | Call::TearJournal => prop_assert!(now >= before, "{} after {}", now, before),
                _ if pair.model.is_changed => prop_assert!(now > before, "{} after {}", now, before),
                _ => prop_assert_eq!((now, existed), (before, pair.model.exists)),
            }
        }
    }
}

/// As many as take some thirty seconds; `PROPTEST_CASES` asks for another number.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}
