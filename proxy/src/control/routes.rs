//! From services to the routing table that workers read: compiled here, published whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::admin::request::ServiceSettings;
use config::admin::{AdminError, ErrorCode};
use config::name::ServiceName;

use super::Control;
use crate::routing::table::{Index, Routes, Table};

impl Control {
    /// Compiles the routes as they would be with one service's settings changed, or with that service gone.
    pub(super) fn compile_index(
        &self,
        name: &ServiceName,
        settings: Option<&ServiceSettings>,
    ) -> Result<Arc<Index>, AdminError> {
        let mut routes: BTreeMap<&ServiceName, &ServiceSettings> =
            self.services.iter().map(|(name, service)| (name, &service.settings)).collect();
        match settings {
            Some(settings) => routes.insert(name, settings),
            None => routes.remove(name),
        };
        let routes: Vec<Routes<'_>> = routes
            .into_iter()
            .map(|(known, settings)| Routes {
                name: known,
                settings: (known == name || self.services.get(known).is_some_and(|service| service.routed))
                    .then_some(settings)
                    .filter(|settings| settings.is_routed()),
            })
            .collect();
        Index::compile(&routes).map(Arc::new).map_err(|taken| {
            let (host, path, holder) = (&taken.host, &taken.path, taken.holder(name));
            AdminError::new(ErrorCode::RouteTaken, format!("{host}{path} belongs to service {holder}"))
                .hint("give the service another --domain or --path")
        })
    }

    /// Compiles the routes after services came or went; they agreed before and agree now.
    pub(super) fn recompile(&mut self) {
        let routes: Vec<Routes<'_>> = self
            .services
            .values()
            .map(|service| Routes {
                name: &service.name,
                settings: service.routed.then_some(&service.settings).filter(|settings| settings.is_routed()),
            })
            .collect();
        if let Ok(index) = Index::compile(&routes) {
            self.index = Arc::new(index);
            self.publish();
        }
    }

    /// Returns the table that says what is known now.
    pub(super) fn table(&self) -> Table {
        let services = self.services.values().map(|service| Arc::clone(&service.compiled)).collect();
        let runs = self.services.values().flat_map(|s| [&s.blue, &s.green]).flatten().map(|run| run.run.id()).collect();
        Table::new(Arc::clone(&self.index), services, runs, !self.state_lost.is_empty())
    }

    pub(super) fn publish(&self) {
        self.live.publish(self.table());
        self.guard();
    }
}
