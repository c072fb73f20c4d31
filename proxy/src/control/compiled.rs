//! A service as requests see it, made of what control knows.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::edge::OldAssets;
use config::options::ServiceOptions;

use super::canary::Canary;
use super::preview::Preview;
use super::saved::SavedMaintenance;
use super::service::Service;
use super::slot::SlotRun;
use crate::edge::Edge;
use crate::routing;
use crate::routing::closed::{Closed, Maintenance};
use crate::routing::table::{Other, Service as Compiled};
use crate::upstream::run::RunId;

impl Service {
    /// Returns the slot that answers what the live one fails.
    fn back(&self) -> Option<&SlotRun> {
        let bake = self.bake.as_ref().filter(|bake| bake.is_under_way())?;
        self.slot(bake.back)
    }

    /// Returns what is asked for what the live version lacks: the slot that was live before it, where that is not long ago.
    fn other(&self, assets: &OldAssets, now: SystemTime) -> Option<Other> {
        let live = self.live?;
        let state = self.slot(live.other()).filter(|state| state.was_live)?;
        // It was left when the live one became so. By the clock of the wall, as that may be before a restart of ours; what was
        // saved with the flip is the time of the staging before it.
        let left = humantime::parse_rfc3339(&self.slot(live)?.since).ok()?;
        let ago = now.duration_since(left).unwrap_or_default();
        let remains = Duration::from_secs(u64::from(assets.minutes) * 60).checked_sub(ago)?;
        state.run.begin_assets();
        Some(Other { target: state.target(), until: Instant::now() + remains })
    }

    /// Tells whether a run is asked for old assets.
    pub(crate) fn is_other(&self, run: RunId) -> bool {
        self.compiled.other.as_ref().is_some_and(|other| other.target.run.id() == run)
    }

    /// Returns where a share of the visitors goes.
    fn compiled_canary(&self) -> Option<routing::canary::Canary> {
        let Canary { slot, percent, key, deployment, .. } = self.canary.as_ref().filter(|canary| !canary.is_waiting)?;
        let target = self.slot(*slot)?.target();
        let (key, deployment) = (key.clone(), Arc::clone(deployment));
        Some(routing::canary::Canary { target, percent: *percent, key, deployment })
    }

    /// Returns what whoever has a link is shown.
    fn compiled_preview(&self) -> Option<routing::preview::Preview> {
        let Preview { slot, key, deployment, .. } = self.preview.as_ref().filter(|preview| !preview.is_waiting)?;
        let target = self.slot(*slot)?.target();
        Some(routing::preview::Preview { target, key: key.clone(), deployment: Arc::clone(deployment) })
    }

    /// Returns why it is closed on purpose.
    fn closed(&self) -> Option<Closed> {
        if self.pause.is_none() && self.maintenance.is_none() {
            return None;
        }
        let health_path = self.live.and_then(|live| self.slot(live)).map(|live| live.health.path.clone());
        let maintenance = self.maintenance.as_ref().map(|saved| {
            let SavedMaintenance { message, allow, pass, .. } = saved.clone();
            Arc::new(Maintenance { message: message.into(), allow, pass })
        });
        Some(Closed {
            gate: self.pause.as_ref().map(|pause| Arc::clone(&pause.gate)),
            maintenance,
            // The page itself, where the application is probed at its front door.
            health_path: health_path.filter(|path| path != "/"),
        })
    }

    /// Returns what https is to it.
    fn secure(&self) -> Option<routing::secure::Secure> {
        let health_path = self.live.and_then(|live| self.slot(live)).map(|live| live.health.path.clone());
        self.secured.compile(&self.settings, self.compiled.secure.as_deref(), health_path)
    }

    /// Renews what requests see; to be published.
    pub(crate) fn compile(&mut self) {
        // Probes compile it again and again: what did not change is kept.
        let wanted = self.settings.options.as_ref();
        let is_same =
            wanted.map_or(*self.compiled.options == ServiceOptions::default(), |o| *o == *self.compiled.options);
        let (options, edge) = if is_same {
            (Arc::clone(&self.compiled.options), self.compiled.edge.clone())
        } else {
            let options = wanted.cloned().unwrap_or_default();
            let edge = Edge::compile(&options, self.compiled.edge.as_deref());
            (Arc::new(options), edge)
        };
        let other = options.old_assets.as_ref().and_then(|assets| self.other(assets, SystemTime::now())).map(Box::new);
        self.compiled = Arc::new(Compiled {
            name: self.name.clone(),
            live: self.live.and_then(|live| self.slot(live)).map(SlotRun::target),
            back: self.back().map(SlotRun::target),
            other,
            canary: self.compiled_canary().map(Box::new),
            preview: self.compiled_preview().map(Box::new),
            has_signed: self.has_signed,
            closed: self.closed().map(Box::new),
            secure: self.secure().map(Box::new),
            strip_path: self.settings.strip_path,
            options,
            edge,
            waiting: Arc::clone(&self.compiled.waiting),
            rates: Arc::clone(&self.compiled.rates),
            counters: Arc::clone(&self.counters),
        });
    }
}
