//! A share of a service's visitors on the idle slot: each stays where a cookie of ours put it.

use std::hash::{BuildHasher, RandomState};

use config::name::ServiceName;
use http::HeaderMap;
use http::HeaderValue;

use super::closed::cookie;
use super::target::Target;

/// The share, and where it goes.
#[derive(Clone)]
pub struct Canary {
    /// The idle slot.
    pub target: Target,
    /// Of a hundred visitors.
    pub percent: u8,
    /// Which visitors: a hash with a key that nobody outside knows, so that none chooses a side. While it is the same a
    /// greater share takes in those of the smaller one.
    pub key: RandomState,
}

/// Where a visitor belongs.
#[derive(Debug)]
pub(crate) struct Visit {
    /// On the canary.
    pub(crate) is_canary: bool,
    /// Keeps a new visitor there.
    pub(crate) set_cookie: Option<HeaderValue>,
}

impl Canary {
    /// Returns where a visitor belongs; one without our cookie gets `id`.
    pub(crate) fn visit(&self, service: &ServiceName, headers: &HeaderMap, id: impl FnOnce() -> String) -> Visit {
        let name = format!("bg-canary-{service}");
        if let Some(known) = cookie(headers, &name) {
            return Visit { is_canary: self.takes(known), set_cookie: None };
        }
        let id = id();
        let text = format!("{name}={id}; Path=/; HttpOnly; SameSite=Lax");
        Visit { is_canary: self.takes(&id), set_cookie: HeaderValue::try_from(text).ok() }
    }

    fn takes(&self, id: &str) -> bool {
        self.key.hash_one(id) % 100 < u64::from(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use config::name::Slot;

    use super::*;
    use crate::upstream::run::Run;

    #[test]
    fn the_share_is_as_told_each_visitor_stays_and_a_greater_one_takes_in_the_smaller() {
        let target = Target { run: Run::new(Slot::Green, 1), endpoints: Vec::new() };
        let small = Canary { target, percent: 10, key: RandomState::new() };
        let great = Canary { percent: 50, ..small.clone() };
        let service: ServiceName = "shop".parse().unwrap();
        let mut counts = [0, 0];
        for number in 0..10_000 {
            let first = small.visit(&service, &HeaderMap::new(), || format!("visitor{number}"));
            let cookie = first.set_cookie.unwrap();
            assert!(cookie.to_str().unwrap().starts_with("bg-canary-shop=visitor"), "{cookie:?}");
            let headers: HeaderMap = [(http::header::COOKIE, cookie)].into_iter().collect();
            let again = small.visit(&service, &headers, || panic!("it is known"));
            assert_eq!((again.is_canary, again.set_cookie), (first.is_canary, None));
            let later = great.visit(&service, &headers, || panic!("it is known")).is_canary;
            assert!(later || !first.is_canary);
            counts[0] += u32::from(first.is_canary);
            counts[1] += u32::from(later);
        }
        assert!((850..1150).contains(&counts[0]) && (4700..5300).contains(&counts[1]), "{counts:?}");
    }
}
