//! Sizes as people write them: `512`, `64KiB`, `50m`, `1g`.

/// Units, the largest first. As docker and nginx do, each is a power of 1024, however it is spelt.
const UNITS: [(&str, u32); 4] = [("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)];

/// Returns the number of bytes that a text such as `64KiB` or `50m` means.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 512, 64KiB or 50m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = bytes_of(unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Returns the bytes of a unit: none, `b`, `k`, `KB`, `MiB`, `g`, `t`, in either case.
pub fn bytes_of(unit: &str) -> Option<u64> {
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    Some(1024_u64.pow(power))
}

/// Returns the text that [`parse`] reads back, in the largest unit that needs no fraction.
pub fn format(bytes: u64) -> String {
    let fits = |(_, power): &&(&str, u32)| bytes > 0 && bytes.is_multiple_of(1024_u64.pow(*power));
    match UNITS.iter().find(fits) {
        Some((unit, power)) => format!("{}{unit}", bytes / 1024_u64.pow(*power)),
        None => bytes.to_string(),
    }
}

/// An optional size as text; for `#[serde(with = "config::size::option")]`.
pub mod option {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the size as text, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(size: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => serializer.serialize_str(&super::format(*size)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a size from text, or null.
    ///
    /// # Errors
    /// Those of the deserializer, and a text that is not a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0", "512", "64KiB", "50MiB", "1GiB", "1025"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!([parse("50m"), parse("1 kb"), parse("7B")], [Ok(50 << 20), Ok(1024), Ok(7)]);
        for bad in ["", "m", "-1", "1.5m", "1x", "99999999999g"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
