//! Which networks may come.

use serde::{Deserialize, Serialize};

use super::{Consistent, Fault};
use crate::name::PathPrefix;
use crate::network::Network;

/// A rule of networks. Of several rules the one with the longest path counts, and in it the smallest network that has the
/// address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The paths that it is for; where absent all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPrefix>,
    /// Who may come; where there is anybody, nobody else may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// Who may not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
}

impl Consistent for Access {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.allow.is_empty() && self.deny.is_empty() {
            let hint = "add allow = [\"10.0.0.0/8\"], or deny = [...]";
            faults.push(Fault::new("path", "the rule names nobody", hint));
        }
        for network in self.allow.iter().filter(|network| self.deny.contains(network)) {
            faults.push(Fault::new("deny", format!("`{network}` is allowed and denied"), "leave it in one of them"));
        }
        faults
    }
}
