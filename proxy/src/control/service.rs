//! One service as control knows it: two slots, which is live, and what was measured since the last staging.

use std::sync::Arc;
use std::time::Instant;

use config::admin::Event;
use config::admin::request::ServiceSettings;
use config::admin::response::{Counts, MaintenanceStatus, Origin, ServiceStatus, SlotState, SlotStatus, Slots};
use config::name::{ServiceName, Slot};

use super::bake::Bake;
use super::canary::Canary;
use super::closing::Pause;
use super::kept_headers::KeptHeaders;
use super::lease::Holder;
use super::preview::Preview;
use super::saved::{Saved, SavedMaintenance};
use super::secured::Secured;
use super::slot::SlotRun;
use crate::routing::table::Service as Compiled;
use crate::telemetry::counters::ServiceCounters;

/// A service.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) generation: u64,
    pub(crate) origin: Origin,
    pub(crate) settings: ServiceSettings,
    /// Its routes are in force: since it was put, or since its first flip.
    pub(crate) routed: bool,
    /// Take effect with the next flip to the staged slot.
    pub(crate) next_settings: Option<ServiceSettings>,
    pub(crate) live: Option<Slot>,
    pub(crate) blue: Option<SlotRun>,
    pub(crate) green: Option<SlotRun>,
    pub(crate) lease: Holder,
    /// What the flip to the staged slot will put in force, already on disk.
    pub(crate) prepared: Option<Saved>,
    /// The new slot is watched.
    pub(crate) bake: Option<Bake>,
    /// A share of its visitors is on the idle slot.
    pub(crate) canary: Option<Canary>,
    /// The idle slot is shown to whoever has a link.
    pub(crate) preview: Option<Preview>,
    /// It has a key: what that signed may come back at any time.
    pub(crate) has_signed: bool,
    /// Its requests are held.
    pub(crate) pause: Option<Pause>,
    /// Its visitors are shown a page.
    pub(crate) maintenance: Option<SavedMaintenance>,
    /// Header fields of the probes of its deployments.
    pub(crate) kept_headers: KeptHeaders,
    /// How its last bake ended, where the proxy flipped back and nothing was staged since.
    pub(crate) flipped_back: Option<Event>,
    /// What is known of certificates that come by themselves.
    pub(crate) secured: Arc<Secured>,
    /// As requests see it.
    pub(crate) compiled: Arc<Compiled>,
    /// Flips since the start.
    pub(crate) flips: u64,
    /// Drains that ended since the start.
    pub(crate) drains: u64,
    /// What was counted of its requests since the start.
    pub(crate) counters: Arc<ServiceCounters>,
}

impl Service {
    pub(crate) fn new(name: ServiceName, origin: Origin, workers: usize) -> Self {
        Self {
            secured: Arc::default(),
            flips: 0,
            drains: 0,
            counters: Arc::new(ServiceCounters::new(workers)),
            compiled: Arc::new(Compiled::new(name.clone())),
            name,
            generation: 0,
            origin,
            settings: ServiceSettings::default(),
            routed: false,
            next_settings: None,
            live: None,
            blue: None,
            green: None,
            lease: Holder::default(),
            prepared: None,
            bake: None,
            canary: None,
            preview: None,
            has_signed: false,
            pause: None,
            maintenance: None,
            kept_headers: KeptHeaders::default(),
            flipped_back: None,
        }
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&SlotRun> {
        match slot {
            Slot::Blue => self.blue.as_ref(),
            Slot::Green => self.green.as_ref(),
        }
    }

    pub(crate) fn slot_mut(&mut self, slot: Slot) -> &mut Option<SlotRun> {
        match slot {
            Slot::Blue => &mut self.blue,
            Slot::Green => &mut self.green,
        }
    }

    /// Returns the slot that a new version goes into.
    pub(crate) fn idle(&self) -> Slot {
        self.live.map_or(Slot::Blue, Slot::other)
    }

    /// Ends a bake before its time, since something takes its place; to be compiled and published.
    pub(crate) fn end_bake(&mut self) {
        if let Some(back) = self.bake.take().and_then(|bake| self.slot(bake.back)) {
            back.run.end_replays();
        }
    }

    /// Returns what is to be saved.
    pub(crate) fn saved(&self) -> Saved {
        // A slot that was only staged is not saved: after a crash nobody waits for it.
        let keep =
            |slot: Slot| self.slot(slot).filter(|run| run.was_live || self.live == Some(slot)).map(SlotRun::saved);
        Saved {
            name: self.name.clone(),
            generation: self.generation,
            origin: self.origin,
            settings: self.settings.clone(),
            routed: self.routed,
            live: self.live,
            blue: keep(Slot::Blue),
            green: keep(Slot::Green),
            maintenance: self.maintenance.clone(),
            kept_headers: self.kept_headers.clone(),
        }
    }

    /// Returns what will be saved once a slot is live.
    pub(crate) fn saved_after_flip(&self, to: Slot) -> Saved {
        let mut saved = self.saved();
        saved.generation += 1;
        saved.live = Some(to);
        saved.routed = true;
        if let Some(settings) = self.next_settings.as_ref().filter(|_| !self.was_live(to)) {
            saved.settings = settings.clone().or(&saved.settings);
        }
        let slot = self.slot(to).map(SlotRun::saved);
        match to {
            Slot::Blue => saved.blue = slot,
            Slot::Green => saved.green = slot,
        }
        saved
    }

    pub(crate) fn was_live(&self, slot: Slot) -> bool {
        self.slot(slot).is_some_and(|run| run.was_live)
    }

    /// Returns what became of requests on both slots since the switch began.
    pub(crate) fn counts(&self, old: Slot) -> Counts {
        let since = |slot| self.slot(slot).map(|run| run.run.counts().since(run.base)).unwrap_or_default();
        let (old, new) = (since(old), since(old.other()));
        Counts {
            old: old.answered,
            new: new.answered,
            held: old.held + new.held,
            retried: old.retried + new.retried,
            closed: old.closed + new.closed,
            cut: old.cut + new.cut,
            failed: old.failed + new.failed,
            old_assets: old.assets + new.assets,
        }
    }

    pub(crate) fn status(&self, now: Instant) -> ServiceStatus {
        let slot = |slot: Slot| match self.slot(slot) {
            Some(run) => run.status(self.live == Some(slot)),
            None => SlotStatus {
                state: SlotState::Empty,
                endpoints: Vec::new(),
                in_flight: 0,
                long_lived: None,
                image: None,
                deployment: None,
                since: None,
            },
        };
        ServiceStatus {
            name: self.name.clone(),
            generation: self.generation,
            origin: self.origin,
            live: self.live,
            slots: Slots { blue: slot(Slot::Blue), green: slot(Slot::Green) },
            settings: self.settings.clone(),
            lease: self.lease.current(now).map(|lease| lease.holder.clone()),
            paused: self.pause.as_ref().map(|pause| pause.status(now)),
            maintenance: self
                .maintenance
                .as_ref()
                .map(|saved| MaintenanceStatus { since: saved.since.clone(), message: saved.message.clone() }),
            canary: self.canary.as_ref().map(Canary::status),
            preview: self.preview.as_ref().map(|preview| preview.status(now)),
            tls: self.secured.status(self.routed, &self.settings),
            bake: self.bake.as_ref().map(|bake| bake.status(now)),
        }
    }
}
