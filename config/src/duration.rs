//! Durations as people write them: `200ms`, `30s`, `1m 30s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// The longest duration that is read.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Returns the duration that a text such as `30s` or `1m 30s` means; a bare `0` is zero.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a duration such as 200ms, 30s or 1m: {error}"))?;
    // Longer than anybody waits, and far from where the sum of an instant and a duration ends.
    if duration > LONGEST {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(duration)
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

/// The same for an optional time-out; for `#[serde(with = "config::duration::option")]`.
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

    /// Reads a time-out from text, or null for none of one's own.
    ///
    /// # Errors
    /// Those of the deserializer, a text that is not a duration, and zero, in which nothing would ever be in time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let duration = text.map(|text| super::parse(&text).map_err(serde::de::Error::custom)).transpose()?;
        if duration == Some(Duration::ZERO) {
            return Err(serde::de::Error::custom("a time-out of zero, so that nothing would ever be in time"));
        }
        Ok(duration)
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
        assert!(parse("584000000000y").is_err() && parse("2y").is_err() && parse("1y").is_ok());
    }
}
