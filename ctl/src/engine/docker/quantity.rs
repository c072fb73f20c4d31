//! Sizes, shares and limits in docker's own words: `--memory 512m`, `--cpus 1.5`, `--ulimit nofile=1024:2048`.

use bollard::models::ResourcesUlimits;
use config::size;

/// Reads a number of bytes: `512m`, `1.5g`, `64MiB`, `1048576`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is not a size such as 512m or 2g");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = size::bytes_of(unit).and_then(|bytes| i64::try_from(bytes).ok()).ok_or_else(wrong)?;
    scaled(number, unit).ok_or_else(wrong)
}

/// Reads a share of processors as docker's billionths: `1.5`, `.5`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn nano_cpus(text: &str) -> Result<i64, String> {
    match scaled(text.trim(), 1_000_000_000) {
        Some(nanos) if nanos > 0 => Ok(nanos),
        _ => Err(format!("`{text}` is not a number of processors such as 2 or 0.5")),
    }
}

/// Reads a limit: `nofile=1024:2048`, `nofile=1024`, `core=-1`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn ulimit(text: &str) -> Result<ResourcesUlimits, String> {
    const KNOWN: [&str; 15] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
    ];
    let wrong = |why: &str| format!("`{text}`: {why}; write it as nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(|| wrong("it has no `=`"))?;
    if !KNOWN.contains(&name) && name != "stack" {
        return Err(wrong("there is no such limit"));
    }
    let limit = |text: &str| match text {
        "unlimited" => Some(-1),
        text => text.parse::<i64>().ok().filter(|limit| *limit >= -1),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (Some(soft), Some(hard)) = (limit(soft), limit(hard)) else {
        return Err(wrong("a limit is a number, or -1 for none"));
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(wrong("the soft limit is above the hard one"));
    }
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

/// Returns a decimal number times a whole one, rounded down, without the errors of floating point.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let part = i64::try_from(part * i128::from(unit) / scale).ok()?;
    whole.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, size) in [
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("64MiB", 64 << 20),
            ("1048576", 1 << 20),
            ("2k", 2048),
            ("10b", 10),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3", "99999999999t", "."] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_are_billionths() {
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus(".01"), Ok(10_000_000));
        for bad in ["", "0", "-1", "two", "1e3"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_has_a_known_name_and_an_order() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(1024), Some(2048)));
        assert_eq!(ulimit("core=-1").unwrap().hard, Some(-1));
        for bad in ["nofile", "nofil=1", "nofile=2:1", "nofile=x", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
