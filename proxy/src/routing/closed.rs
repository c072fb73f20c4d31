//! A service that is closed on purpose: paused, so that its requests wait, or under maintenance, so that visitors see a page.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::admin::request;
use config::name::ServiceName;
use http::HeaderMap;
use http::header::COOKIE;
use ipnet::IpNet;
use tokio::sync::Notify;

use super::waiting::Waiting;

/// Why a service is closed, and for whom.
#[derive(Clone, Default)]
pub struct Closed {
    /// Requests wait here.
    pub gate: Option<Arc<Gate>>,
    /// Visitors are shown a page.
    pub maintenance: Option<Arc<Maintenance>>,
    /// A health check from outside asks for this path, and is told that all is well.
    pub health_path: Option<String>,
}

/// The page, and who does not get it.
pub struct Maintenance {
    /// What visitors are told.
    pub message: Arc<str>,
    /// Clients that are served all the same.
    pub allow: Vec<IpNet>,
    /// The cookie with which a visitor is served all the same.
    pub pass: Option<String>,
}

impl Maintenance {
    /// Tells whether a request is served all the same.
    pub(crate) fn lets_in(&self, service: &ServiceName, client: IpAddr, headers: &HeaderMap) -> bool {
        self.allow.iter().any(|network| network.contains(&client))
            || self.pass.as_ref().is_some_and(|pass| cookie(headers, &format!("bg-pass-{service}")) == Some(pass))
    }
}

/// Returns the value of a cookie. Whatever else stands beside it: applications write bytes into theirs that are no text.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(COOKIE).iter().find_map(|value| {
        value.as_bytes().split(|byte| *byte == b';').find_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok()
        })
    })
}

/// Where requests of a paused service wait.
pub struct Gate {
    is_open: AtomicBool,
    bell: Notify,
    waiting: Waiting,
    most: usize,
    wait: Duration,
}

impl Gate {
    /// Returns a closed one.
    pub fn new(pause: &request::Pause) -> Self {
        Self {
            is_open: AtomicBool::new(false),
            bell: Notify::new(),
            waiting: Waiting::default(),
            most: usize::try_from(pause.requests).unwrap_or(usize::MAX),
            wait: pause.wait,
        }
    }

    /// Lets all that wait go, in the order in which they came; the table without the gate must be published before.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.bell.notify_waiters();
    }

    /// Tells whether it was opened.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Returns how many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.count()
    }

    /// Waits until the gate opens; false where there is no place to wait, or the time is over.
    ///
    /// # Cancel safety
    /// Dropping it gives the place back.
    pub async fn pass(&self) -> bool {
        struct Place<'g>(&'g Waiting);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.leave();
            }
        }
        let opened = self.bell.notified();
        tokio::pin!(opened);
        // Registered before looking, so that the opening can't fall between the look and the wait.
        opened.as_mut().enable();
        if self.is_open() {
            return true;
        }
        if !self.waiting.enter(self.most) {
            return false;
        }
        let _place = Place(&self.waiting);
        tokio::time::timeout(self.wait, opened).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_let_in_by_address_or_by_cookie() {
        let maintenance = Maintenance {
            message: "".into(),
            allow: vec!["192.0.2.0/24".parse().unwrap()],
            pass: Some("s3cret".to_owned()),
        };
        let service = "shop".parse().unwrap();
        let lets_in = |client: &str, cookie: &'static str| {
            let headers = HeaderMap::from_iter([(COOKIE, http::HeaderValue::from_static(cookie))]);
            maintenance.lets_in(&service, client.parse().unwrap(), &headers)
        };
        assert!(lets_in("192.0.2.7", "") && lets_in("203.0.113.1", "a=b; bg-pass-shop=s3cret"));
        assert!(!lets_in("203.0.113.1", "bg-pass-other=s3cret") && !lets_in("203.0.113.1", "bg-pass-shop=s3cre"));
    }

    #[tokio::test]
    async fn so_many_wait_so_long_and_an_open_gate_holds_nobody() {
        let wait = Duration::from_millis(30);
        let gate = Gate::new(&request::Pause { requests: 1, wait, ..request::Pause::default() });
        let began = std::time::Instant::now();
        assert_eq!(tokio::join!(gate.pass(), gate.pass()), (false, false));
        assert!(began.elapsed() >= wait);
        let (passed, ()) = tokio::join!(gate.pass(), async { gate.open() });
        assert!(passed && gate.pass().await);
        assert_eq!(gate.waiting(), 0);
    }
}
