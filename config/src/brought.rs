//! Certificates that are brought to a proxy by the admin protocol: their names, and what is sent of one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;

/// A name is no longer than a host's (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

/// What a certificate is called: the first host that it is for, with `wildcard` for a star. A file may have this name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateName(String);

impl CertificateName {
    /// Returns the name of a certificate; `None` where it names no host.
    pub fn of(certificate: &Certificate) -> Option<Self> {
        certificate.names.first()?.replace('*', "wildcard").replace(':', "-").parse().ok()
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CertificateName {
    type Err = WrongName;

    fn from_str(text: &str) -> Result<Self, WrongName> {
        let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        let is_whole = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(is_fit);
        if is_whole && !text.starts_with('.') { Ok(Self(text.to_owned())) } else { Err(WrongName) }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no name of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a certificate's name is 1 to 253 of a-z, 0-9, `.`, `-` and `_`, as in shop.example.com or wildcard.example.com"
)]
pub struct WrongName;

/// What is sent of a certificate: texts in PEM. `Debug` shows nothing of the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brought {
    /// The certificate, its issuers behind it.
    pub chain: String,
    /// Its key.
    pub key: String,
}

impl fmt::Debug for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brought").field("chain", &self.chain).field("key", &"***").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_file_and_leads_nowhere_else() {
        for good in ["shop.test", "wildcard.shop.test", "10.0.0.1", "--1"] {
            assert_eq!(good.parse::<CertificateName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(254);
        for bad in ["", ".", "..", "../x", "a/b", "A", "*.x", ".hidden", "a\0", &long] {
            assert!(bad.parse::<CertificateName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_sent_and_not_shown() {
        let brought = Brought { chain: "chain".to_owned(), key: "hunter2".to_owned() };
        assert!(!format!("{brought:?}").contains("hunter2"));
        assert!(serde_json::to_string(&brought).unwrap().contains("hunter2"));
    }
}
