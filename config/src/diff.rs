//! What a new configuration changes, and which of it waits for a restart.

use crate::model::Model;

/// The keys in which two configurations differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Applied at once, without touching a connection.
    pub live: Vec<&'static str>,
    /// In force only after a restart.
    pub restart: Vec<&'static str>,
}

impl Diff {
    /// Returns how a new configuration differs from the one in force.
    pub fn between(old: &Model, new: &Model) -> Self {
        let (a, b) = (&old.limits, &new.limits);
        let restart = [
            ("listen", old.listen != new.listen),
            ("listen_tls", old.listen_tls != new.listen_tls),
            ("admin", old.admin != new.admin),
            ("state", old.state != new.state),
            ("metrics", old.metrics != new.metrics),
            ("workers", old.workers != new.workers),
            // Given to each worker's parser and pool when it starts.
            ("limits.header_bytes", a.header_bytes != b.header_bytes),
            ("limits.header_fields", a.header_fields != b.header_fields),
            ("limits.target_bytes", a.target_bytes != b.target_bytes),
            ("limits.upstream_idle", a.upstream_idle != b.upstream_idle),
            ("limits.upstream_idle_connections", a.upstream_idle_connections != b.upstream_idle_connections),
            ("log.level", old.log.level != new.log.level),
            ("log.format", old.log.format != new.log.format),
        ];
        let live = [
            ("certificates", old.certificates != new.certificates),
            ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
            ("proxy_protocol", old.proxy_protocol != new.proxy_protocol),
            ("limits.connections", a.connections != b.connections),
            ("limits.connections_per_address", a.connections_per_address != b.connections_per_address),
            ("log.access", old.log.access != new.log.access),
            ("webhook", old.webhook != new.webhook),
            ("acme", old.acme != new.acme),
            ("limits.header_timeout", a.header_timeout != b.header_timeout),
            ("limits.idle_timeout", a.idle_timeout != b.idle_timeout),
            ("limits.body_idle_timeout", a.body_idle_timeout != b.body_idle_timeout),
            ("limits.connect_timeout", a.connect_timeout != b.connect_timeout),
            ("limits.response_timeout", a.response_timeout != b.response_timeout),
            ("limits.shutdown_timeout", a.shutdown_timeout != b.shutdown_timeout),
            ("services", old.services != new.services),
        ];
        let changed = |keys: &[(&'static str, bool)]| keys.iter().filter(|key| key.1).map(|key| key.0).collect();
        Self { live: changed(&live), restart: changed(&restart) }
    }

    /// Tells whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Listen;

    #[test]
    fn a_new_listener_waits_for_a_restart_and_a_time_out_does_not() {
        let old = Model::default();
        assert!(Diff::between(&old, &old).is_empty());
        let mut new = old.clone();
        new.listen = Listen::Asked(old.listen.addresses(80));
        new.limits.idle_timeout *= 2;
        let diff = Diff::between(&old, &new);
        assert_eq!((diff.live, diff.restart), (vec!["limits.idle_timeout"], vec!["listen"]));
    }
}
