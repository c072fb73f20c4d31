//! The same settings exactly as a file says them: texts and numbers with their places, nothing judged yet.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;

type Text = Spanned<String>;
type Number = Spanned<i64>;

/// One of `redirects`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Redirect {
    pub from: Option<Text>,
    pub pattern: Option<Text>,
    pub host: Option<Text>,
    pub to: Text,
    pub status: Option<Number>,
}

/// One of `rewrite`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Rewrite {
    pub prefix: Option<Text>,
    pub pattern: Option<Text>,
    pub to: Text,
}

/// `request_headers` and `response_headers`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct HeaderChanges {
    pub set: BTreeMap<Text, Text>,
    pub add: BTreeMap<Text, Text>,
    pub remove: Vec<Text>,
}

/// `access`, or one of several.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Access {
    pub allow: Vec<Text>,
    pub deny: Vec<Text>,
    pub path: Option<Text>,
}

/// `basic_auth`, or one of several.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct BasicAuth {
    pub realm: Option<Text>,
    pub users: BTreeMap<Text, Text>,
    pub users_file: Option<Text>,
    pub path: Option<Text>,
    pub except: Vec<Text>,
}

/// One of `rate_limits`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct RateLimit {
    pub requests: Option<Number>,
    pub per: Option<Text>,
    pub burst: Option<Number>,
    pub connections: Option<Number>,
    pub by: Option<Text>,
    pub path: Option<Text>,
}

/// `compress`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Compress {
    pub types: Option<Vec<Text>>,
    pub min_bytes: Option<Number>,
    pub algorithms: Option<Vec<Text>>,
}

/// One of `static`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct StaticFiles {
    pub path: Text,
    pub folder: Text,
    pub index: Option<Text>,
    pub fallback: Option<Text>,
    pub cache: Option<Text>,
    pub auth: Option<bool>,
    pub fallthrough: Option<bool>,
}

/// `old_assets`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct OldAssets {
    pub paths: Vec<Text>,
    pub minutes: Option<Number>,
}

/// A table, or a list of such tables.
#[derive(Debug)]
pub struct OneOrMore<T>(pub Vec<Spanned<T>>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, or a list of tables")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                // Where a table stands is known by who reads it.
                let one = T::deserialize(MapAccessDeserializer::new(map))?;
                Ok(OneOrMore(vec![Spanned::new(0..0, one)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMore(all))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// `true`, `false`, or a table of what differs from the defaults.
#[derive(Debug)]
pub enum Switch<T> {
    /// On, or off.
    Is(bool),
    /// On, with these.
    With(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a table")
            }

            fn visit_bool<E>(self, is: bool) -> Result<Self::Value, E> {
                Ok(Switch::Is(is))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Switch::With)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}
