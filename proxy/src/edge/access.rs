//! Which networks may come.

use std::net::IpAddr;

use config::name::PathPrefix;
use config::network::expand;
use ipnet::IpNet;

use super::path::longest;

/// A rule of networks.
pub(super) struct Access {
    path: PathPrefix,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Access {
    pub(super) fn compile(rules: &[config::edge::Access]) -> Vec<Self> {
        let compile = |rule: &config::edge::Access| Self {
            path: rule.path.clone().unwrap_or_else(PathPrefix::root),
            allow: expand(&rule.allow),
            deny: expand(&rule.deny),
        };
        rules.iter().map(compile).collect()
    }

    /// The smallest network that has the address decides; where none has it, whether anybody is named that may come.
    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let smallest = |networks: &[IpNet]| {
            networks.iter().filter(|network| network.contains(&address)).map(IpNet::prefix_len).max()
        };
        match (smallest(&self.allow), smallest(&self.deny)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }
}

/// Tells whether an address may come to a path: the rule with the longest path says it.
pub(super) fn lets_in(rules: &[Access], path: &str, address: IpAddr) -> bool {
    let length = |rule: &Access| rule.path.takes(path).then(|| rule.path.trimmed().len());
    longest(rules, length).is_none_or(|rule| rule.allows(address))
}
