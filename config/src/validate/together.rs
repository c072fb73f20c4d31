//! Services that are switched together: `with` names others of the file, and leads back to none.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, shorten};
use crate::file::Text;
use crate::name::ServiceName;
use crate::project::file::Service;

/// What each service is switched with, by its name as it is written.
type Named<'f> = BTreeMap<&'f str, &'f [Text]>;

impl Check<'_> {
    /// Returns what each service of the file names, as far as nothing is wrong with it.
    pub(super) fn together(&mut self, services: &[(Text, Service)]) -> BTreeMap<String, Vec<ServiceName>> {
        let named: Named<'_> = services
            .iter()
            .map(|(name, service)| (name.get_ref().as_str(), service.with.as_deref().unwrap_or_default()))
            .collect();
        let mut together = BTreeMap::new();
        for (name, with) in &named {
            let mut good: Vec<ServiceName> = Vec::new();
            for other in *with {
                match wrong(name, other.get_ref(), &named) {
                    Some((what, hint)) => self.refuse(other.span(), what, &hint),
                    // What is wrong with the name itself is told where the service stands.
                    None => match other.get_ref().parse() {
                        Ok(known) if good.contains(&known) => {
                            self.refuse(other.span(), format!("`{known}` is listed twice"), "");
                        }
                        parsed => good.extend(parsed.ok()),
                    },
                }
            }
            together.insert((*name).to_owned(), good);
        }
        together
    }
}

/// Returns what is wrong with a name, and a hint.
fn wrong(name: &str, other: &str, named: &Named<'_>) -> Option<(String, String)> {
    if !named.contains_key(other) {
        let all: Vec<&str> = named.keys().copied().collect();
        return Some((format!("there is no service `{}`", shorten(other)), format!("the file has {}", all.join(", "))));
    }
    if name == other {
        return Some((format!("`{other}` is the service itself"), "name those that are to go with it".to_owned()));
    }
    leads_to(other, name, named, &mut BTreeSet::new()).then(|| {
        let hint = "take it out of one of the two: only the one that is switched names the others";
        (format!("`{name}` and `{other}` would switch each other"), hint.to_owned())
    })
}

/// Tells whether a switch of one service is one of another, too.
fn leads_to<'f>(from: &'f str, to: &str, named: &Named<'f>, seen: &mut BTreeSet<&'f str>) -> bool {
    let Some(with) = named.get(from).filter(|_| seen.insert(from)) else { return false };
    with.iter().any(|next| next.get_ref() == to || leads_to(next.get_ref(), to, named, seen))
}
