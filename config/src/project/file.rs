//! `bluegreen.toml` exactly as it is written: texts and numbers with their places, nothing judged yet.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_spanned::Spanned;

use crate::file::{Acme, Certificate, Limits, Log, Number, Options, Text, Webhook};

/// The whole file.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The Docker host.
    pub host: Option<Text>,
    /// The proxy's own settings.
    pub proxy: Option<Proxy>,
    /// Own certificates.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// Services, by name.
    #[serde(default)]
    pub services: BTreeMap<Text, Service>,
}

/// `[proxy]`: of the proxy's own file what changes while it runs.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Option<Vec<Text>>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Option<Vec<Text>>,
    /// Limits and time-outs; those that need a restart were refused before.
    #[serde(default)]
    pub limits: Limits,
    /// The access log; what needs a restart was refused before.
    #[serde(default)]
    pub log: Log,
    /// Who is told when the proxy acted alone.
    #[serde(default)]
    pub webhook: Webhook,
    /// Where certificates come from that nobody brings.
    #[serde(default)]
    pub acme: Acme,
}

/// `[services.NAME]`. What is left out says nothing: what the live slot runs with stays.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Service {
    pub image: Option<Text>,
    pub with: Option<Vec<Text>>,
    pub to: Option<Spanned<Vec<Text>>>,
    pub no_health: Option<Spanned<bool>>,
    pub port: Option<Number>,
    pub domains: Option<Vec<Text>>,
    pub paths: Option<Vec<Text>>,
    pub strip_path: Option<Spanned<bool>>,
    pub tls: Option<Text>,
    pub health_path: Option<Text>,
    pub health_port: Option<Number>,
    pub health_host: Option<Text>,
    pub health_headers: Option<BTreeMap<Text, Text>>,
    pub health_status: Option<Text>,
    pub health_timeout: Option<Text>,
    pub health_interval: Option<Text>,
    pub healthy: Option<Number>,
    pub deadline: Option<Text>,
    pub image_health: Option<Text>,
    pub drain: Option<Text>,
    pub drain_tunnels: Option<Text>,
    pub detach: Option<Spanned<bool>>,
    pub pause: Option<Spanned<bool>>,
    pub bake: Option<Text>,
    pub bake_errors: Option<Number>,
    pub bake_slow: Option<Number>,
    pub keep: Option<Text>,
    pub stop_grace: Option<Text>,
    pub keep_images: Option<Number>,
    pub pull: Option<Text>,
    pub before: Option<Text>,
    pub before_timeout: Option<Text>,
    pub replicas: Option<Number>,
    pub stop_first: Option<bool>,
    /// It takes no requests.
    pub no_port: Option<bool>,
    pub note: Option<Text>,
    pub lock_wait: Option<Text>,
    #[serde(default)]
    pub env: BTreeMap<Text, Spanned<Scalar>>,
    #[serde(default)]
    pub env_inherit: Vec<Text>,
    #[serde(default)]
    pub env_files: Vec<Text>,
    pub volumes: Option<Vec<Text>>,
    pub mounts: Option<Vec<Text>>,
    pub tmpfs: Option<Vec<Text>>,
    pub networks: Option<Vec<Text>>,
    pub user: Option<Spanned<Scalar>>,
    pub init: Option<bool>,
    pub add_hosts: Option<Vec<Text>>,
    pub labels: Option<Vec<Text>>,
    pub memory: Option<Spanned<Scalar>>,
    pub cpus: Option<Spanned<Scalar>>,
    pub shm_size: Option<Spanned<Scalar>>,
    pub ulimits: Option<Vec<Text>>,
    pub entrypoint: Option<Text>,
    pub command: Option<Vec<Text>>,
    #[serde(default)]
    pub secrets: BTreeMap<Text, Spanned<Secret>>,
    #[serde(default)]
    pub hooks: Hooks,
    pub options: Option<Options>,
}

/// A key of `[services.NAME.secrets]`: where its value comes from.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Secret {
    pub file: Option<Text>,
    pub command: Option<Text>,
    pub env: Option<Text>,
}

/// `[services.NAME.hooks]`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Hooks {
    pub before_start: Option<Text>,
    pub before_flip: Option<Text>,
    pub before_flip_in: Option<Text>,
    pub after: Option<Text>,
    pub on_failure: Option<Text>,
    pub timeout: Option<Text>,
}

/// A value that people write as a text or bare: `"8080"`, `8080`, `true`, `1.5`.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// In quotes.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number with a fraction; how it was written is lost.
    Fraction(f64),
    /// True or false.
    Flag(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => number.fmt(f),
            Self::Fraction(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Fraction(number))
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar::Flag(flag))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
