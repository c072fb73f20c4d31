//! What https is to a service, as requests see it.

use std::sync::Arc;

use http::HeaderValue;

/// What is asked of a service's visitors, and what they are told.
pub struct Secure {
    /// Hosts that there is a certificate for, exact or `*.`: visitors of plain HTTP are led to https. Empty: nobody is.
    pub led: Vec<String>,
    /// The port of https, where it is not the usual one.
    pub port: u16,
    /// Told over https.
    pub hsts: Option<HeaderValue>,
    /// Whose certificates clients have to show, in PEM.
    pub client_ca: Option<Arc<str>>,
    /// What a load balancer asks for by plain HTTP.
    pub health_path: Option<String>,
}

impl Secure {
    /// Tells whether visitors of a host are led to https.
    pub fn leads(&self, host: &str) -> bool {
        self.led.iter().any(|name| covers(name, host))
    }
}

/// Tells whether a certificate's name is for a host. A star stands for one label (RFC 9525 section 6.3).
pub fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        None => name == host,
        Some(parent) => name == host || host.split_once('.').is_some_and(|(_, rest)| rest == parent),
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(covers("a.test", "a.test") && covers("*.a.test", "x.a.test") && covers("*.a.test", "*.a.test"));
        assert!(!covers("*.a.test", "a.test") && !covers("*.a.test", "x.y.a.test") && !covers("a.test", "x.a.test"));
    }
}
