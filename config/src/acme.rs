//! Where certificates come from that nobody brings: an authority that speaks ACME (RFC 8555), and how a domain is proved to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::webhook::WebhookUrl;

/// What stands in the place of what nobody is to see.
const MASK: &str = "***";
/// The authority where nothing is said.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// How many hosts are given a certificate on demand in an hour, where nothing is said: a third of what Let's Encrypt takes of an
/// account in three hours, so that what services name has its part.
const ON_DEMAND_PER_HOUR: u32 = 30;
/// Its own for trials.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Whether certificates for a service's domains come by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// They are brought, or there are none.
    #[default]
    Off,
    /// An authority is asked.
    Auto,
}

/// How a domain is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Challenge {
    /// A file on port 80 (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A record of DNS (RFC 8555 section 8.4).
    #[serde(rename = "dns-01")]
    Dns01,
}

impl Challenge {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Http01, Self::TlsAlpn01, Self::Dns01];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

impl FromStr for Challenge {
    type Err = AcmeError;

    fn from_str(text: &str) -> Result<Self, AcmeError> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(AcmeError::Challenge)
    }
}

/// `[acme]`: each is there or left open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeSettings {
    /// Whom the authority writes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The authority; left open it is Let's Encrypt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Directory>,
    /// Let's Encrypt's authority for trials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging: Option<bool>,
    /// The name of the key that binds the account to one that someone has there (RFC 8555 section 7.3.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eab_key_id: Option<String>,
    /// That key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eab_hmac: Option<EabKey>,
    /// The file that it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eab_hmac_file: Option<PathBuf>,
    /// A file of certificates that are believed of the authority's own site besides those of the public authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The program that writes records of DNS, and its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_hook: Option<Vec<String>>,
    /// In which order ways to prove a domain are tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenges: Option<Vec<Challenge>>,
    /// Whether visitors of plain HTTP are led to https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<bool>,
    /// Who is asked whether a host that no service names may have a certificate; left open none may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<WebhookUrl>,
    /// How many such hosts are given one in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand_per_hour: Option<u32>,
}

/// Two settings that do not go together, or one that lacks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The key that is at fault.
    pub key: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// What to do.
    pub hint: &'static str,
}

impl AcmeSettings {
    /// Tells whether nothing is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these settings with what they leave open taken from others. An authority and the key for it go together.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        let names_authority = self.directory.is_some() || self.staging.is_some();
        let has_key = self.eab_key_id.is_some();
        Self {
            email: self.email.or(below.email),
            directory: if names_authority { self.directory } else { below.directory },
            staging: if names_authority { self.staging } else { below.staging },
            eab_key_id: if has_key { self.eab_key_id } else { below.eab_key_id },
            eab_hmac: if has_key { self.eab_hmac } else { below.eab_hmac },
            eab_hmac_file: if has_key { self.eab_hmac_file } else { below.eab_hmac_file },
            ca: self.ca.or(below.ca),
            dns_hook: self.dns_hook.or(below.dns_hook),
            challenges: self.challenges.or(below.challenges),
            redirect: self.redirect.or(below.redirect),
            on_demand: self.on_demand.or(below.on_demand),
            on_demand_per_hour: self.on_demand_per_hour.or(below.on_demand_per_hour),
        }
    }

    /// Returns the authority's address.
    pub fn directory(&self) -> &str {
        match (&self.directory, self.staging) {
            (Some(directory), _) => &directory.0,
            (None, Some(true)) => LETS_ENCRYPT_STAGING,
            (None, _) => LETS_ENCRYPT,
        }
    }

    /// Returns how a domain is proved, the first to be tried first. A wildcard is proved by DNS alone (RFC 8555 section 7.1.3).
    pub fn challenges(&self, is_wildcard: bool) -> Vec<Challenge> {
        let usual = if self.dns_hook.is_some() { &Challenge::ALL[..] } else { &Challenge::ALL[..2] };
        let wanted = self.challenges.as_deref().unwrap_or(usual);
        match is_wildcard {
            false => wanted.to_vec(),
            true if self.dns_hook.is_some() => vec![Challenge::Dns01],
            true => Vec::new(),
        }
    }

    /// Returns how many hosts that no service names are given a certificate in an hour.
    pub fn on_demand_per_hour(&self) -> u32 {
        self.on_demand_per_hour.unwrap_or(ON_DEMAND_PER_HOUR)
    }

    /// Returns what does not go together.
    pub fn contradiction(&self) -> Option<Contradiction> {
        let said = |key, what, hint| Some(Contradiction { key, what, hint });
        if self.directory.is_some() && self.staging == Some(true) {
            return said(
                "staging",
                "`staging` is of Let's Encrypt, and `directory` names an authority",
                "leave one of the two out",
            );
        }
        match (&self.eab_key_id, &self.eab_hmac, &self.eab_hmac_file) {
            (Some(_), None, None) => {
                return said(
                    "eab_key_id",
                    "`eab_key_id` has no key",
                    "add eab_hmac = \"...\" or eab_hmac_file = \"/...\"",
                );
            }
            (_, Some(_), Some(_)) => {
                return said(
                    "eab_hmac_file",
                    "`eab_hmac` and `eab_hmac_file` are the same",
                    "leave one of the two out",
                );
            }
            (None, Some(_), None) => return said("eab_hmac", "`eab_hmac` has no name", "add eab_key_id = \"...\""),
            (None, None, Some(_)) => {
                return said("eab_hmac_file", "`eab_hmac_file` has no name", "add eab_key_id = \"...\"");
            }
            _ => {}
        }
        if self.challenges.as_ref().is_some_and(Vec::is_empty) {
            return said(
                "challenges",
                "`challenges` names no way to prove a domain",
                "leave it out for http-01 and tls-alpn-01",
            );
        }
        if self.challenges.as_ref().is_some_and(|all| all.contains(&Challenge::Dns01)) && self.dns_hook.is_none() {
            return said(
                "challenges",
                "dns-01 has nobody who writes the record",
                "add dns_hook = [\"/path/of/a/program\"]",
            );
        }
        if self.on_demand_per_hour.is_some() && self.on_demand.is_none() {
            return said(
                "on_demand_per_hour",
                "`on_demand_per_hour` has nobody who is asked",
                "add on_demand = \"http://...\", which says whether a host may have a certificate",
            );
        }
        if self.on_demand_per_hour == Some(0) {
            return said(
                "on_demand_per_hour",
                "`on_demand_per_hour` lets no host have a certificate",
                "leave `on_demand` out where none may",
            );
        }
        match &self.dns_hook {
            Some(hook) if !hook.first().is_some_and(|program| program.starts_with('/')) => {
                said("dns_hook", "`dns_hook` begins with no absolute path", "dns_hook = [\"/etc/bluegreen/dns-hook\"]")
            }
            _ => None,
        }
    }
}

/// An address of mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

impl Email {
    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = AcmeError;

    fn try_from(text: String) -> Result<Self, AcmeError> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b",;:<>?".contains(&byte));
        let is_whole = text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        if is_plain && is_whole { Ok(Self(text)) } else { Err(AcmeError::Email) }
    }
}

/// The address of an authority. It is always https.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Directory(String);

impl TryFrom<String> for Directory {
    type Error = AcmeError;

    fn try_from(text: String) -> Result<Self, AcmeError> {
        let url = text.parse::<WebhookUrl>().map_err(|_| AcmeError::Directory)?;
        if url.is_tls() { Ok(Self(text)) } else { Err(AcmeError::Directory) }
    }
}

/// A key that binds an account, in base64 for addresses; nothing that is printed for people shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EabKey(String);

impl EabKey {
    /// Returns it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EabKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl TryFrom<String> for EabKey {
    type Error = AcmeError;

    fn try_from(text: String) -> Result<Self, AcmeError> {
        let text = text.trim().trim_end_matches('=');
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // One digit alone carries no whole byte.
        let is_good = !text.is_empty() && text.len() % 4 != 1 && text.bytes().all(is_digit);
        if is_good { Ok(Self(text.to_owned())) } else { Err(AcmeError::EabKey) }
    }
}

macro_rules! written {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = AcmeError;

            fn from_str(text: &str) -> Result<Self, AcmeError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(it: $name) -> Self {
                it.0
            }
        }
    )*};
}

written!(Email, Directory, EabKey);

/// Why a setting is refused; it repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcmeError {
    /// It is no address of mail.
    #[error("this is no address of mail")]
    Email,
    /// It is no address of an authority.
    #[error("an authority's address is https:// with a host, and has no name and password")]
    Directory,
    /// It is no key.
    #[error("the key is no base64 for addresses (A-Z, a-z, 0-9, `-` and `_`)")]
    EabKey,
    /// There is no such challenge.
    #[error("a domain is proved by http-01, tls-alpn-01 or dns-01")]
    Challenge,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AcmeSettings, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn an_authority_is_https_and_where_nothing_is_said_it_is_lets_encrypt() {
        assert_eq!(AcmeSettings::default().directory(), LETS_ENCRYPT);
        assert_eq!(read(r#"{"staging":true}"#).unwrap().directory(), LETS_ENCRYPT_STAGING);
        assert_eq!(read(r#"{"directory":"https://ca.test:9/d"}"#).unwrap().directory(), "https://ca.test:9/d");
        for wrong in [r#"{"directory":"http://ca.test/"}"#, r#"{"email":"me"}"#, r#"{"eab_hmac":"a+b/"}"#, r#"{"x":1}"#]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wildcard_is_proved_by_dns_alone() {
        let hook = read(r#"{"dns_hook":["/bin/hook"]}"#).unwrap();
        assert_eq!(hook.challenges(true), [Challenge::Dns01]);
        assert_eq!(hook.challenges(false), Challenge::ALL);
        assert_eq!(AcmeSettings::default().challenges(true), []);
        assert_eq!(AcmeSettings::default().challenges(false), [Challenge::Http01, Challenge::TlsAlpn01]);
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (text, key) in [
            (r#"{"staging":true,"directory":"https://ca.test/"}"#, "staging"),
            (r#"{"eab_key_id":"k"}"#, "eab_key_id"),
            (r#"{"eab_hmac":"aaaa"}"#, "eab_hmac"),
            (r#"{"eab_key_id":"k","eab_hmac":"aaaa","eab_hmac_file":"/k"}"#, "eab_hmac_file"),
            (r#"{"challenges":[]}"#, "challenges"),
            (r#"{"challenges":["dns-01"]}"#, "challenges"),
            (r#"{"on_demand_per_hour":5}"#, "on_demand_per_hour"),
            (r#"{"on_demand":"http://app.test/","on_demand_per_hour":0}"#, "on_demand_per_hour"),
            (r#"{"dns_hook":["hook"]}"#, "dns_hook"),
            (r#"{"dns_hook":[]}"#, "dns_hook"),
        ] {
            assert_eq!(read(text).unwrap().contradiction().unwrap().key, key, "{text}");
        }
        let good = r#"{"email":"me@shop.test","eab_key_id":"k","eab_hmac":"aaaa","challenges":["tls-alpn-01"]}"#;
        let good = read(good).unwrap();
        assert_eq!(good.contradiction(), None);
        assert!(!format!("{good:?}").contains("aaaa") && good.eab_hmac.unwrap().reveal() == "aaaa");
    }

    #[test]
    fn a_key_goes_with_its_name_and_an_authority_alone() {
        let table = read(r#"{"directory":"https://two.test/","eab_key_id":"2","eab_hmac_file":"/two"}"#).unwrap();
        let file = read(r#"{"staging":true,"eab_key_id":"1","eab_hmac":"aaaa","redirect":false}"#).unwrap();
        let both = file.clone().or(table.clone());
        assert_eq!((both.directory, both.eab_hmac_file, both.redirect), (None, None, Some(false)));
        assert_eq!(table.or(file).contradiction(), None);
    }
}
