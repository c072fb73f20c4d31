//! A share of a service's visitors on the idle slot: each stays where a cookie of ours put it.

use std::sync::Arc;

use config::name::ServiceName;
use http::HeaderMap;
use http::HeaderValue;

use super::closed::cookie;
use super::target::Target;
use crate::signature::Key;

/// The share, and where it goes.
#[derive(Clone)]
pub struct Canary {
    /// The idle slot.
    pub target: Target,
    /// Of a hundred visitors.
    pub percent: u8,
    /// Which visitors: by a key that nobody outside knows, so that none chooses a side. It outlives us, and a greater share
    /// takes in those of the smaller one.
    pub key: Key,
    /// The deployment that is tried: of another one no cookie is believed.
    pub deployment: Arc<str>,
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
    /// Returns where a visitor belongs; one without a cookie that we signed for this deployment gets `id`.
    pub(crate) fn visit(&self, service: &ServiceName, headers: &HeaderMap, id: impl FnOnce() -> String) -> Visit {
        let name = format!("bg-canary-{service}");
        let words = |purpose, id| [purpose, service.as_str(), &*self.deployment, id];
        let takes = |id| self.key.number(&words("canary side", id)) % 100 < u64::from(self.percent);
        let known = cookie(headers, &name).and_then(|value| value.split_once('.'));
        if let Some((id, _)) = known.filter(|(id, signature)| self.key.has_signed(&words("canary", id), signature)) {
            return Visit { is_canary: takes(id), set_cookie: None };
        }
        let id = id();
        let signature = self.key.sign(&words("canary", &id));
        let text = format!("{name}={id}.{signature}; Path=/; HttpOnly; SameSite=Lax");
        Visit { is_canary: takes(&id), set_cookie: HeaderValue::try_from(text).ok() }
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
        let small = Canary { target, percent: 10, key: Key::new([7; 32]), deployment: "d1".into() };
        let great = Canary { percent: 50, ..small.clone() };
        let service: ServiceName = "shop".parse().unwrap();
        let mut counts = [0, 0];
        for number in 0..10_000 {
            let first = small.visit(&service, &HeaderMap::new(), || format!("visitor{number}"));
            let cookie = first.set_cookie.unwrap();
            assert!(cookie.to_str().unwrap().starts_with("bg-canary-shop=visitor"), "{cookie:?}");
            // A browser sends back the pair alone.
            let cookie = HeaderValue::from_str(cookie.to_str().unwrap().split(';').next().unwrap()).unwrap();
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

    #[test]
    fn a_cookie_that_was_made_up_or_is_of_another_deployment_or_service_is_ignored() {
        let target = Target { run: Run::new(Slot::Green, 1), endpoints: Vec::new() };
        let canary = Canary { target, percent: 50, key: Key::new([7; 32]), deployment: "d1".into() };
        let [shop, other] = ["shop", "other"].map(|name| name.parse::<ServiceName>().unwrap());
        let signed = canary.visit(&shop, &HeaderMap::new(), || "v1".to_owned()).set_cookie.unwrap();
        let pair = signed.to_str().unwrap().split(';').next().unwrap().to_owned();
        let is_known = |canary: &Canary, service: &ServiceName, pair: &str| {
            let headers: HeaderMap =
                [(http::header::COOKIE, HeaderValue::from_str(pair).unwrap())].into_iter().collect();
            canary.visit(service, &headers, || "new".to_owned()).set_cookie.is_none()
        };
        assert!(is_known(&canary, &shop, &pair));
        assert!(!is_known(&canary, &other, &pair.replace("shop", "other")));
        assert!(!is_known(&Canary { deployment: "d2".into(), ..canary.clone() }, &shop, &pair));
        assert!(!is_known(&Canary { key: Key::new([8; 32]), ..canary.clone() }, &shop, &pair));
        for made_up in ["bg-canary-shop=v1", &pair.replace("v1", "v2"), &pair[..pair.len() - 1], "bg-canary-shop=."] {
            assert!(!is_known(&canary, &shop, made_up), "{made_up}");
        }
    }
}
