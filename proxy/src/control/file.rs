//! The services of the configuration file, which are live at once with the endpoints that it names.

use std::sync::Arc;
use std::time::Instant;

use config::admin::response::Origin;
use config::admin::{AdminError, Event, request};
use config::model::FileService;
use config::name::{ServiceName, Slot};

use super::slot::SlotRun;
use super::{Change, Control, IfMatch, now_text};
use crate::upstream::run::Run;

impl Control {
    /// Applies the services of the file: each is live at once with the endpoints that it names. Returns the problems.
    pub fn apply_file(&mut self, services: &[FileService]) -> Vec<String> {
        let mut problems = Vec::new();
        let gone: Vec<ServiceName> = self
            .services
            .values()
            .filter(|known| known.origin == Origin::File && !services.iter().any(|service| service.name == known.name))
            .map(|known| known.name.clone())
            .collect();
        for name in gone {
            self.services.remove(&name);
            self.news.push(Event::Removed { service: name });
        }
        self.recompile();
        for wanted in services {
            if let Err(error) = self.apply_service(wanted) {
                problems.push(format!("service {}: {error}", wanted.name));
            }
        }
        self.publish();
        problems
    }

    fn apply_service(&mut self, wanted: &FileService) -> Result<(), AdminError> {
        let any = Change { if_match: IfMatch::Any, lease: None };
        self.admit(&wanted.name, &any, Origin::File)?;
        self.compile_index(&wanted.name, Some(&wanted.settings))?;
        let workers = self.workers;
        let service = self.entry(&wanted.name, Origin::File);
        let live = service.live.unwrap_or(Slot::Blue);
        let same = service.slot(live).is_some_and(|run| {
            run.health == wanted.health && run.endpoints.iter().map(|e| &e.endpoint.address).eq(&wanted.endpoints)
        });
        service.settings = wanted.settings.clone();
        service.routed = true;
        service.generation += 1;
        if !same {
            let stage = request::Stage {
                endpoints: wanted.endpoints.clone(),
                health: wanted.health.clone(),
                ..request::Stage::default()
            };
            let counted = Run::of_service(live, workers, Arc::clone(&service.counters));
            let mut run = SlotRun::staged(counted, stage, now_text(), Instant::now());
            run.was_live = true;
            for endpoint in &mut run.endpoints {
                endpoint.endpoint.healthy = true;
            }
            if let Some(old) = service.slot_mut(live).replace(run) {
                old.run.drain();
            }
            service.live = Some(live);
        }
        service.compile();
        self.recompile();
        Ok(())
    }
}
