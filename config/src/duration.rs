//! Durations as people write them: `200ms`, `30s`, `1m 30s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Returns the duration that a text such as `30s` or `1m 30s` means; a bare `0` is zero.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a duration such as 200ms, 30s or 1m: {error}"))
}

/// Returns the text that [`parse`] reads back, to the millisecond where it is longer than one.
pub fn format(duration: Duration) -> String {
    let shown = if duration.as_millis() > 0 {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        duration
    };
    humantime::format_duration(shown).to_string()
}

/// Writes a duration as text; for `#[serde(with = "config::duration")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// Reads a duration from text; for `#[serde(with = "config::duration")]`.
///
/// # Errors
/// Those of the deserializer, and a text that is not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same for an optional duration; for `#[serde(with = "config::duration::option")]`.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the duration as text, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration from text, or null.
    ///
    /// # Errors
    /// Those of the deserializer, and a text that is not a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["200ms", "30s", "1m 30s", "0s", "41us"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        assert!(parse("30").unwrap_err().contains("30s"));
    }
}
