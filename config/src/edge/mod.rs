//! What a service wants done between a visitor and its application: redirects, rules, and files beside it.
//!
//! Each setting is one type, whose words are parsed once. What two of its words have to do with each other, [`Consistent`]
//! tells: with its place where a file says it, with its name where the admin API does.

mod access;
mod auth;
pub mod file;
mod files;
mod headers;
mod limit;
mod path;
mod redirect;
mod template;

pub use self::access::Access;
pub use self::auth::{BasicAuth, HashKind, PasswordHash, users_of};
pub use self::files::{Algorithm, Compress, OldAssets, StaticFiles};
pub use self::headers::{FieldName, HeaderChanges, RequestHeaders, ResponseHeaders};
pub use self::limit::{LimitBy, RateLimit};
pub use self::path::{PathGlob, Pattern};
pub use self::redirect::{Redirect, RedirectStatus, Rewrite};
pub use self::template::{Part, Template, Variable};

use serde::{Deserialize, Deserializer};

/// What is wrong with a setting whose words are right one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key that it stands at.
    pub key: &'static str,
    /// What.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl Fault {
    fn new(key: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key, what: what.into(), hint: hint.into() }
    }
}

/// A setting that knows what is wrong with it.
pub trait Consistent {
    /// Returns everything that is wrong.
    fn faults(&self) -> Vec<Fault>;
}

impl<T: Consistent> Consistent for Vec<T> {
    fn faults(&self) -> Vec<Fault> {
        self.iter().flat_map(Consistent::faults).collect()
    }
}

impl<T: Consistent> Consistent for Option<T> {
    fn faults(&self) -> Vec<Fault> {
        self.iter().flat_map(Consistent::faults).collect()
    }
}

/// Reads a setting and refuses what is wrong with it; for `#[serde(deserialize_with = "edge::consistent")]`.
///
/// # Errors
/// Those of the deserializer, and the first fault of the setting.
pub fn consistent<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Consistent,
    D: Deserializer<'de>,
{
    let setting = T::deserialize(deserializer)?;
    match setting.faults().into_iter().next() {
        None => Ok(setting),
        Some(Fault { key, what, hint }) => Err(serde::de::Error::custom(format!("{key}: {what} ({hint})"))),
    }
}

/// Reads and writes a type as the text that it is parsed from.
macro_rules! serde_as_text {
    ($($type:ty),* $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
use serde_as_text;

/// A message shows the beginning of what was written, however long that is.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
