//! What is there after a start: saved services and leases, taken up again.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use config::name::Slot;

use super::Control;
use super::lease::Holder;
use super::saved::Saved;
use super::service::Service;
use super::slot::SlotRun;
use super::store::{Restored, Store};
use crate::routing::live::Live;
use crate::routing::table::Table;
use crate::upstream::run::Run;

impl Control {
    /// Restores what was saved and returns the table that serves it.
    pub fn open(store: Store, restored: Restored, workers: usize) -> (Self, Live) {
        let live = Live::new(Table::empty(!restored.lost.is_empty()));
        let mut control = Self {
            services: BTreeMap::new(),
            index: Arc::default(),
            live: live.clone(),
            store,
            workers,
            shared: None,
            state_lost: restored.lost,
            restored_warnings: restored.warnings,
            config_problems: Vec::new(),
            proxy: restored.proxy,
            overruled: Vec::new(),
            journals: BTreeMap::new(),
            news: Vec::new(),
            secured: Arc::default(),
            guarded: RefCell::default(),
            watching: HashSet::new(),
        };
        for saved in restored.services {
            control.restore(saved);
        }
        control.restore_leases();
        match control.store.journals() {
            Ok((journals, warnings)) => {
                control.journals = journals;
                control.restored_warnings.extend(warnings);
            }
            Err(error) => control.restored_warnings.push(format!("the journals could not be read: {error}")),
        }
        for warning in &control.restored_warnings {
            tracing::warn!("{warning}");
        }
        (control, live)
    }

    fn restore(&mut self, saved: Saved) {
        let Saved { name, generation, origin, settings, routed, live, blue, green, maintenance, kept_headers } = saved;
        let mut service = Service::new(name.clone(), origin, self.workers);
        let now = Instant::now();
        service.generation = generation;
        service.settings = settings;
        service.maintenance = maintenance;
        service.kept_headers = kept_headers;
        service.routed = routed;
        for (slot, saved) in [(Slot::Blue, blue), (Slot::Green, green)] {
            let run = |saved| {
                let run = Run::of_service(slot, self.workers, Arc::clone(&service.counters));
                SlotRun::restored(run, saved, live == Some(slot), now)
            };
            *service.slot_mut(slot) = saved.map(run);
            if let Some(run) = service.slot(slot).filter(|_| live != Some(slot)) {
                run.run.drain();
            }
        }
        service.live = live.filter(|live| service.slot(*live).is_some());
        service.has_signed = self.store.has_key(&name);
        self.restore_shown(&mut service);
        service.compile();
        let index = match routed {
            true => self.compile_index(&name, Some(&service.settings)),
            false => Ok(Arc::clone(&self.index)),
        };
        match index {
            Ok(index) => {
                self.services.insert(name, service);
                self.index = index;
                self.publish();
            }
            Err(error) => {
                // One service's fault must not take the others' routes away.
                self.restored_warnings.push(format!("saved state of {name}: {error}"));
                self.state_lost.push(name.to_string());
            }
        }
    }

    /// Takes up the leases that were given before; one of a service that is not there any more is of no use.
    fn restore_leases(&mut self) {
        let kept = self.store.leases().and_then(|leases| {
            for (name, saved) in leases {
                match self.services.get_mut(&name) {
                    Some(service) => service.lease = Holder::restored(saved, Instant::now()),
                    None => self.store.write_lease(&name, None)?,
                }
            }
            Ok(())
        });
        if let Err(error) = kept {
            self.restored_warnings.push(format!("the leases could not be read: {error}"));
        }
    }
}
