//! Who may change a service: leases are given, kept and taken back here.

use std::time::Instant;

use config::admin::response::{LeaseHolder, Origin};
use config::admin::{AdminError, request, response};
use config::defaults;
use config::name::ServiceName;

use super::service::Service;
use super::{Control, now_text};

impl Control {
    /// Gives, keeps or takes back a service's lease; a service that is yet to be made can be leased too.
    ///
    /// # Errors
    /// `locked` with who holds it; `superseded` where what is to be renewed has ended.
    pub fn lease(&mut self, name: &ServiceName, lease: request::Lease) -> Result<response::Lease, AdminError> {
        let now = Instant::now();
        let holder = &mut self.entry(name, Origin::Admin).lease;
        let before = holder.saved();
        let id = match lease {
            request::Lease::Acquire { who, what } => holder.acquire(LeaseHolder { who, what, since: now_text() }, now),
            request::Lease::Renew { lease } => holder.renew(&lease, now).map(|()| lease),
            request::Lease::Release { lease } => {
                holder.release(&lease);
                Ok(String::new())
            }
        };
        let saved = holder.saved();
        if saved != before
            && let Err(error) = self.store.write_lease(name, saved.as_ref())
        {
            // It is in force all the same, until a restart of ours.
            tracing::warn!(%error, service = %name, "the lease could not be kept");
        }
        self.forget_unmade(name);
        Ok(response::Lease { lease: id?, expires_in: defaults::LEASE })
    }

    /// A service that was leased and never made leaves nothing behind.
    pub(super) fn forget_unmade(&mut self, name: &ServiceName) {
        let unmade = |service: &Service| service.generation == 0 && service.lease.current(Instant::now()).is_none();
        if self.services.get(name).is_some_and(unmade) {
            self.services.remove(name);
            // One that stays behind is removed at the next start.
            _ = self.store.write_lease(name, None);
            self.recompile();
        }
    }
}
