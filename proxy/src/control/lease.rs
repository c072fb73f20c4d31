//! The lease of a service: who may change it. It ends when its holder is silent.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use config::admin::response::LeaseHolder;
use config::admin::{AdminError, ErrorCode};
use config::defaults;

use super::saved::SavedLease;

/// A lease that was given.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) holder: LeaseHolder,
    heard: Instant,
}

/// Where a service's lease is kept.
#[derive(Debug, Default)]
pub(crate) struct Holder(Option<Lease>);

impl Holder {
    /// Returns the lease that a process before us gave, as fresh as if it was given now.
    pub(crate) fn restored(saved: SavedLease, now: Instant) -> Self {
        Self(Some(Lease { id: saved.id, holder: saved.holder, heard: now }))
    }

    /// Returns what is saved of the lease in force.
    pub(crate) fn saved(&self) -> Option<SavedLease> {
        self.0.as_ref().map(|lease| SavedLease { id: lease.id.clone(), holder: lease.holder.clone() })
    }

    /// Returns the lease that is in force.
    pub(crate) fn current(&self, now: Instant) -> Option<&Lease> {
        self.0.as_ref().filter(|lease| now.duration_since(lease.heard) < defaults::LEASE)
    }

    /// Gives the lease where it is free.
    pub(crate) fn acquire(&mut self, holder: LeaseHolder, now: Instant) -> Result<String, AdminError> {
        self.check(None, now)?;
        let id = format!("{:016x}", RandomState::new().hash_one(&holder.since));
        self.0 = Some(Lease { id: id.clone(), holder, heard: now });
        Ok(id)
    }

    /// Keeps the lease in force, by its holder.
    pub(crate) fn renew(&mut self, id: &str, now: Instant) -> Result<(), AdminError> {
        self.check(Some(id), now)?;
        match &self.0 {
            Some(lease) if lease.id == id => Ok(()),
            _ => Err(AdminError::new(ErrorCode::Superseded, "that lease has ended").hint("acquire another one")),
        }
    }

    /// Refuses whoever doesn't hold the lease that is in force; the holder is heard.
    pub(crate) fn check(&mut self, id: Option<&str>, now: Instant) -> Result<(), AdminError> {
        match &mut self.0 {
            Some(lease) if id == Some(lease.id.as_str()) => lease.heard = now,
            Some(lease) if now.duration_since(lease.heard) < defaults::LEASE => {
                let LeaseHolder { who, what, since } = &lease.holder;
                let what = if what.is_empty() { String::new() } else { format!(" ({what})") };
                return Err(AdminError::new(ErrorCode::Locked, format!("{who} holds the lock since {since}{what}"))
                    .hint("wait for it with --lock-wait; it frees itself 15 s after its holder went silent"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes the lease back.
    pub(crate) fn release(&mut self, id: &str) {
        if self.0.as_ref().is_some_and(|lease| lease.id == id) {
            self.0 = None;
        }
    }

    /// Makes it as if its holder was silent for so long.
    #[cfg(test)]
    pub(crate) fn age(&mut self, silent: std::time::Duration) {
        self.0.iter_mut().for_each(|lease| lease.heard -= silent);
    }
}
