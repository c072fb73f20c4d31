//! How many requests of one client are taken: in a time, and at once.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use config::edge::{LimitBy, RateLimit};
use config::name::PathPrefix;
use http::header::HeaderName;

use super::seen::Seen;
use crate::clock;
use crate::error::Error;
use crate::routing::rate::{Pace, Rates, network};

/// Clients share a place where their hashes meet, as in a table of rates.
const PLACES: usize = 64 * 1024;

/// A limit, and what was counted for it.
pub(super) struct Limit {
    /// What it was compiled from.
    config: RateLimit,
    path: PathPrefix,
    /// What clients are told apart by; `None`: their addresses.
    field: Option<HeaderName>,
    pace: Option<Pace>,
    rates: Arc<Rates>,
    crowd: Arc<Crowd>,
}

impl Limit {
    /// Compiles a limit; what one of those before counted goes on, where it is the same.
    pub(super) fn compile(config: &RateLimit, before: &[Self]) -> Self {
        let before = before.iter().find(|before| before.config == *config);
        let field = match &config.by {
            LimitBy::Address => None,
            LimitBy::Header(name) => HeaderName::from_bytes(name.as_str().as_bytes()).ok(),
        };
        let pace = config.step().zip(config.burst.or(config.requests)).map(|(step, burst)| Pace { step, burst });
        Self {
            config: config.clone(),
            path: config.path.clone().unwrap_or_else(PathPrefix::root),
            field,
            pace,
            rates: before.map(|before| Arc::clone(&before.rates)).unwrap_or_default(),
            crowd: before.map(|before| Arc::clone(&before.crowd)).unwrap_or_default(),
        }
    }

    /// Counts a request; returns its place among those at once, where they are limited.
    pub(super) fn admit(&self, seen: &Seen<'_>, forms: &[Cow<'_, str>]) -> Result<Option<Held>, Error> {
        if !forms.iter().any(|path| self.path.takes(path)) {
            return Ok(None);
        }
        let own = self.field.as_ref().and_then(|name| seen.request.headers.get(name));
        match own {
            Some(value) => self.count((true, value.as_bytes())),
            None => self.count((false, network(seen.address))),
        }
    }

    fn count(&self, who: impl Hash) -> Result<Option<Held>, Error> {
        let held = match self.config.connections {
            // Those under way end when they end: soon is as good as anything.
            Some(most) => {
                Some(self.crowd.enter(&who, most.get()).ok_or(Error::TooManyRequests { wait: Duration::ZERO })?)
            }
            None => None,
        };
        if let Some(pace) = self.pace {
            self.rates.take(&who, pace, clock::now()).map_err(|wait| Error::TooManyRequests { wait })?;
        }
        Ok(held)
    }
}

/// How many requests of each client are under way.
#[derive(Default)]
struct Crowd(OnceLock<Places>);

struct Places {
    counts: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Crowd {
    fn places(&self) -> &Places {
        self.0.get_or_init(|| Places {
            counts: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        })
    }

    fn enter(self: &Arc<Self>, who: impl Hash, most: u32) -> Option<Held> {
        let Places { counts, hasher } = self.places();
        let place = usize::try_from(hasher.hash_one(who) % PLACES as u64).unwrap_or(0);
        let more = |count: u32| (count < most).then_some(count + 1);
        counts[place].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Held { crowd: Arc::clone(self), place })
    }
}

/// A place among the requests of one client that are under way.
pub(super) struct Held {
    crowd: Arc<Crowd>,
    place: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.crowd.places().counts[self.place].fetch_sub(1, Ordering::Relaxed);
    }
}
