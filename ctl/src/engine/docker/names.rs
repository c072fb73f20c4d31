//! The names of everything that a gateway has on a Docker host.

use config::name::{ServiceName, Slot};

use crate::engine::{EngineError, slot_name};

/// The names of one gateway: those of the default one, or all of them prefixed by `--gateway NAME` and a dash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    prefix: String,
    /// Holder and proxy have a name of their own while someone else's have theirs.
    is_moving: bool,
}

/// The holder's alias on the gateway's network; the network is the gateway's own, so it needs no prefix.
pub(super) const ALIAS: &str = "reverse-proxy";
/// What a kept container's name ends in.
pub(super) const KEPT: &str = "_kept";

impl Names {
    /// Returns the names of the gateway that `--gateway` names, or of the default one.
    ///
    /// # Errors
    /// A name that Docker would not take.
    pub(super) fn new(gateway: Option<&str>) -> Result<Self, EngineError> {
        let Some(name) = gateway.filter(|name| !name.is_empty()) else {
            return Ok(Self { prefix: String::new(), is_moving: false });
        };
        let first = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        // A slot's name is one DNS label, and an image's name takes lower case only.
        if !first || !rest || name.len() > 24 || name.ends_with('-') || name.contains("--") {
            return Err(EngineError::Usage(format!(
                "gateway `{name}`: a name is 1 to 24 of a-z, 0-9 and single dashes, as in --gateway staging"
            )));
        }
        Ok(Self { prefix: format!("{name}-"), is_moving: false })
    }

    pub(super) fn network(&self) -> String {
        format!("{}web-gateway", self.prefix)
    }

    pub(super) fn holder(&self) -> String {
        format!("{}reverse-proxy-ports{}", self.prefix, self.moving_end())
    }

    pub(super) fn proxy(&self) -> String {
        format!("{}reverse-proxy{}", self.prefix, self.moving_end())
    }

    /// Returns the names of a gateway that is made beside what is to be replaced.
    pub(super) fn moving(&self) -> Self {
        Self { is_moving: true, ..self.clone() }
    }

    /// Returns the names that such a gateway has in the end.
    pub(super) fn settled(&self) -> Self {
        Self { is_moving: false, ..self.clone() }
    }

    fn moving_end(&self) -> &'static str {
        if self.is_moving { "_moving" } else { "" }
    }

    /// Returns the name under which what was replaced waits for who wants to go back.
    pub(super) fn before(name: &str) -> String {
        format!("{name}_before")
    }

    /// Returns whose slot a container's name is.
    pub(super) fn parse_slot(&self, name: &str) -> Option<(ServiceName, Slot)> {
        let (service, slot) = name.strip_prefix(&self.prefix)?.rsplit_once('_')?;
        // Docker's names are case sensitive, and so is the recipe's.
        let slot = [Slot::Blue, Slot::Green].into_iter().find(|known| known.upper() == slot)?;
        Some((service.parse().ok()?, slot))
    }

    /// Returns the name under which a proxy waits while its successor is tried.
    pub(super) fn replaced_proxy(&self) -> String {
        format!("{}reverse-proxy_replaced", self.prefix)
    }

    pub(super) fn volume(&self) -> String {
        format!("{}bluegreen-state", self.prefix)
    }

    /// Returns the volume that says, between `down` and `up`, which containers were taken over.
    pub(super) fn adopted(&self) -> String {
        format!("{}bluegreen-adopted", self.prefix)
    }

    /// Returns the proxy's image without its tag.
    pub(super) fn image(&self) -> String {
        format!("{}bluegreen-proxy", self.prefix)
    }

    /// Returns the name of an application's image that we make.
    pub(super) fn application(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn slot(&self, service: &ServiceName, slot: Slot, replica: u32) -> String {
        format!("{}{}", self.prefix, slot_name(service, slot, replica))
    }

    /// Returns the name of a service's one-off container.
    pub(super) fn once(&self, service: &ServiceName) -> String {
        format!("{}{service}_once", self.prefix)
    }

    /// Returns what the user adds to a command to mean this gateway: nothing, or ` --gateway NAME`.
    pub(super) fn flag(&self) -> String {
        match self.prefix.strip_suffix('-') {
            Some(name) => format!(" --gateway {name}"),
            None => String::new(),
        }
    }
}

/// Returns a slot's name from its own or its kept one, and whether it was the kept one.
pub(super) fn strip_kept(name: &str) -> (&str, bool) {
    match name.strip_suffix(KEPT) {
        Some(slot) => (slot, true),
        None => (name, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_prefixes_every_name() {
        let shop = "shop".parse().unwrap();
        let names = Names::new(None).unwrap();
        assert_eq!(names.slot(&shop, Slot::Blue, 1), "shop_BLUE");
        assert_eq!(names.slot(&shop, Slot::Blue, 2), "shop_BLUE_2");
        assert_eq!((names.holder(), names.flag()), ("reverse-proxy-ports".to_owned(), String::new()));
        let names = Names::new(Some("test")).unwrap();
        let all = [names.network(), names.holder(), names.proxy(), names.volume(), names.image()];
        assert!(all.iter().all(|name| name.starts_with("test-")), "{all:?}");
        assert_eq!(names.slot(&shop, Slot::Green, 1), "test-shop_GREEN");
        assert_eq!(names.flag(), " --gateway test");
    }

    #[test]
    fn a_gateway_name_that_docker_would_refuse_is_wrong_usage() {
        for bad in ["-a", "a-", "A", "a b", "a--b", "a/b", "0123456789012345678901234"] {
            assert!(matches!(Names::new(Some(bad)), Err(EngineError::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn a_slots_name_is_read_back_and_others_are_none() {
        let names = Names::new(Some("test")).unwrap();
        assert_eq!(names.parse_slot("test-shop_GREEN"), Some(("shop".parse().unwrap(), Slot::Green)));
        for other in
            ["shop_GREEN", "test-shop_green", "test-shop", "test-shop_BLUE_2", "test-shop_BLUE_kept", "test-_BLUE"]
        {
            assert_eq!(names.parse_slot(other), None, "{other}");
        }
        assert_eq!(
            (names.moving().proxy(), names.moving().settled().proxy()),
            ("test-reverse-proxy_moving".to_owned(), names.proxy())
        );
    }

    #[test]
    fn a_kept_name_gives_its_slots_name_back() {
        assert_eq!(strip_kept("shop_BLUE_kept"), ("shop_BLUE", true));
        assert_eq!(strip_kept("shop_BLUE_2_kept"), ("shop_BLUE_2", true));
        assert_eq!(strip_kept("shop_BLUE"), ("shop_BLUE", false));
    }
}
