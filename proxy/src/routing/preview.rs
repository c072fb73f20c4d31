//! A version that waits for its flip, shown to whoever has a link: the token in its query becomes a cookie of ours.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::admin::PREVIEW_PARAMETER;
use config::name::ServiceName;
use http::header::{COOKIE, HeaderValue};
use http::request::Parts;

use super::closed::cookie;
use super::target::Target;
use crate::signature::Key;

/// What is shown, and by which tokens.
#[derive(Clone)]
pub struct Preview {
    /// The idle slot.
    pub target: Target,
    /// Signs the tokens.
    pub key: Key,
    /// The deployment that is shown: of another one no token is believed.
    pub deployment: Arc<str>,
}

/// What a request is to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The live version; its visitor has nothing of ours.
    Live,
    /// The live version, as the visitor's cookie or link holds no more; the application sees neither.
    Ended,
    /// The idle slot; the application does not see the cookie.
    Idle,
    /// The same address without the token, with a cookie.
    Enter(Box<Entry>),
    /// That the link holds no more.
    Refused,
}

/// How a visitor is let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the visitor is sent.
    pub(crate) location: HeaderValue,
    /// What keeps the visitor there.
    pub(crate) cookie: HeaderValue,
}

/// Returns the token that holds until a time.
pub(crate) fn token(key: &Key, service: &ServiceName, deployment: &str, until: SystemTime) -> String {
    let until = format!("{:x}", until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let signature = key.sign(&["preview", service.as_str(), deployment, &until]);
    format!("{until}.{signature}")
}

impl Preview {
    /// Returns what a request is to be shown.
    pub(crate) fn look(&self, service: &ServiceName, request: &Parts) -> Look {
        let query = request.uri.query().unwrap_or_default();
        if let Some(token) = query.split('&').find_map(value_of) {
            let Some(left) = self.left(service, token) else { return Look::Refused };
            let location = HeaderValue::try_from(without_token(request.uri.path(), query));
            let name = name(service);
            let cookie = format!("{name}={token}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax", left.as_secs());
            return match (location, HeaderValue::try_from(cookie)) {
                (Ok(location), Ok(cookie)) => Look::Enter(Box::new(Entry { location, cookie })),
                _ => Look::Refused,
            };
        }
        match cookie(&request.headers, &name(service)).map(|token| self.left(service, token)) {
            None => Look::Live,
            Some(None) => Look::Ended,
            Some(Some(_)) => Look::Idle,
        }
    }

    /// Returns how long a token still holds.
    fn left(&self, service: &ServiceName, token: &str) -> Option<Duration> {
        let (until, signature) = token.split_once('.')?;
        if !self.key.has_signed(&["preview", service.as_str(), &self.deployment, until], signature) {
            return None;
        }
        let until = UNIX_EPOCH + Duration::from_secs(u64::from_str_radix(until, 16).ok()?);
        until.duration_since(SystemTime::now()).ok()
    }
}

/// Returns what a request is to be shown where nothing is shown any more: what is left of a preview is nothing to the application.
pub(crate) fn left_over(service: &ServiceName, request: &Parts) -> Look {
    let has_token = request.uri.query().is_some_and(|query| query.split('&').any(|pair| value_of(pair).is_some()));
    if has_token || cookie(&request.headers, &name(service)).is_some() { Look::Ended } else { Look::Live }
}

/// Returns a target without a token, as the application is to see it.
pub(crate) fn without_parameter(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    if query.split('&').all(|pair| value_of(pair).is_none()) {
        return Cow::Borrowed(target);
    }
    let rest: Vec<&str> = query.split('&').filter(|pair| value_of(pair).is_none()).collect();
    if rest.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(format!("{path}?{}", rest.join("&"))) }
}

fn name(service: &ServiceName) -> String {
    format!("bg-preview-{service}")
}

fn value_of(pair: &str) -> Option<&str> {
    pair.split_once('=').filter(|(name, _)| *name == PREVIEW_PARAMETER).map(|(_, value)| value)
}

/// Returns the address without the token, on the same host: two slashes would lead to another one.
fn without_token(path: &str, query: &str) -> String {
    let path = path.trim_start_matches(['/', '\\']);
    let rest: Vec<&str> = query.split('&').filter(|pair| value_of(pair).is_none()).collect();
    if rest.is_empty() { format!("/{path}") } else { format!("/{path}?{}", rest.join("&")) }
}

/// Returns a request without our cookie, as the application is to see it.
pub(crate) fn without_cookie(request: &Parts, service: &ServiceName) -> Parts {
    let mut request = request.clone();
    let ours = name(service);
    let is_ours = |pair: &&[u8]| pair.split(|byte| *byte == b'=').next() == Some(ours.as_bytes());
    let values: Vec<HeaderValue> = request.headers.get_all(COOKIE).iter().cloned().collect();
    request.headers.remove(COOKIE);
    for value in values {
        let pairs = value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let rest: Vec<&[u8]> = pairs.filter(|pair| !is_ours(pair)).collect();
        if let Some(value) = HeaderValue::from_bytes(&rest.join(&b"; "[..])).ok().filter(|value| !value.is_empty()) {
            request.headers.append(COOKIE, value);
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use config::name::Slot;

    use super::*;
    use crate::upstream::run::Run;

    fn preview() -> Preview {
        let target = Target { run: Run::new(Slot::Green, 1), endpoints: Vec::new() };
        Preview { target, key: Key::new([7; 32]), deployment: "d1".into() }
    }

    fn shop() -> ServiceName {
        "shop".parse().unwrap()
    }

    fn request(target: &str, cookies: &[&str]) -> Parts {
        let mut request = http::Request::builder().uri(target);
        for cookie in cookies {
            request = request.header(COOKIE, *cookie);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn hour() -> SystemTime {
        SystemTime::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_link_leads_to_the_same_address_with_a_cookie_that_shows_the_idle_slot() {
        let (preview, shop) = (preview(), shop());
        let token = token(&preview.key, &shop, "d1", hour());
        for (asked, led) in [
            ("/a/b?x=1&bg_preview=TOKEN&y=2", "/a/b?x=1&y=2"),
            ("/?bg_preview=TOKEN", "/"),
            ("//evil.example/?bg_preview=TOKEN", "/evil.example/"),
        ] {
            let Look::Enter(entry) = preview.look(&shop, &request(&asked.replace("TOKEN", &token), &[])) else {
                panic!("{asked}");
            };
            assert_eq!(entry.location, led);
            let cookie = entry.cookie.to_str().unwrap();
            assert!(cookie.starts_with(&format!("bg-preview-shop={token}; Path=/; Max-Age=35")), "{cookie}");
            assert!(cookie.ends_with("; HttpOnly; SameSite=Lax"), "{cookie}");
        }
        let cookie = format!("a=b; bg-preview-shop={token}; c=d");
        assert_eq!(preview.look(&shop, &request("/", &[&cookie])), Look::Idle);
        let seen = without_cookie(&request("/", &[&cookie, &format!("bg-preview-shop={token}"), "e=f"]), &shop);
        let seen: Vec<&HeaderValue> = seen.headers.get_all(COOKIE).iter().collect();
        assert_eq!(seen, ["a=b; c=d", "e=f"]);
    }

    #[test]
    fn what_is_left_of_a_preview_is_kept_from_the_application() {
        let shop = shop();
        let look = |target: &str, cookies: &[&str]| left_over(&shop, &request(target, cookies));
        assert_eq!(look("/a?b=1", &["a=b", "bg-preview-other=x"]), Look::Live);
        assert_eq!((look("/?bg_preview=x", &[]), look("/", &["a=b; bg-preview-shop=x"])), (Look::Ended, Look::Ended));
        for (target, wanted) in [
            ("/a", "/a"),
            ("/a?b=1&c", "/a?b=1&c"),
            ("/a?bg_preview=x", "/a"),
            ("//a?b=1&bg_preview=x&c=2&bg_preview=y", "//a?b=1&c=2"),
        ] {
            assert_eq!(without_parameter(target), wanted);
        }
    }

    #[test]
    fn a_token_that_was_made_up_has_ended_or_is_for_something_else_shows_the_live_version() {
        let (preview, shop) = (preview(), shop());
        let past = SystemTime::now() - Duration::from_secs(1);
        let good = token(&preview.key, &shop, "d1", hour());
        let longer = good.replacen(|c: char| c.is_ascii_hexdigit(), "f", 1);
        for wrong in [
            token(&preview.key, &shop, "d1", past),
            token(&preview.key, &shop, "d2", hour()),
            token(&preview.key, &"other".parse().unwrap(), "d1", hour()),
            token(&Key::new([8; 32]), &shop, "d1", hour()),
            longer,
            String::new(),
            "x.y".to_owned(),
        ] {
            assert_eq!(preview.look(&shop, &request(&format!("/?bg_preview={wrong}"), &[])), Look::Refused, "{wrong}");
            let cookie = format!("bg-preview-shop={wrong}");
            assert_eq!(preview.look(&shop, &request("/", &[&cookie])), Look::Ended, "{wrong}");
        }
        assert_eq!(preview.look(&shop, &request("/?bg_previews=1&x", &["a=b"])), Look::Live);
    }
}
