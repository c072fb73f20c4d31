//! What a request took when it was last looked at, and with which compiler: another one makes other instructions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::error::Error;

/// A twentieth more is a regression.
const TOLERANCE: f64 = 1.05;

/// What was counted, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// What `rustc` and `valgrind` say of themselves, and the kind of processor.
    pub made_by: BTreeMap<String, String>,
    /// Instructions of a request, by its kind's name.
    pub instructions: BTreeMap<String, u64>,
}

/// What a comparison says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No kind of request takes a twentieth more.
    Good,
    /// These do, by kind: before and now.
    Worse(Vec<(String, u64, u64)>),
    /// They can't be compared: what differs, in words.
    Incomparable(String),
}

impl Baseline {
    /// Returns what this machine's programs made.
    ///
    /// # Errors
    /// Where one of them is missing.
    pub fn here(instructions: BTreeMap<String, u64>) -> Result<Self, Error> {
        let made_by = [
            ("rustc".to_owned(), version("rustc")?),
            ("valgrind".to_owned(), version("valgrind")?),
            ("processor".to_owned(), std::env::consts::ARCH.to_owned()),
        ];
        Ok(Self { made_by: made_by.into(), instructions })
    }

    /// Reads one that was written.
    ///
    /// # Errors
    /// Where there is none, or it is not one.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
        let wrong = || Error::Load(format!("{} is no baseline", path.display()));
        let value: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
        let object = |key: &str| value[key].as_object().cloned().ok_or_else(wrong);
        let made_by =
            object("made_by")?.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        let instructions =
            object("instructions")?.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?)));
        Ok(Self { made_by: made_by.collect(), instructions: instructions.collect() })
    }

    /// Writes it.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let made_by: Map<String, Value> =
            self.made_by.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let value = json!({ "made_by": made_by, "instructions": self.instructions });
        fs::write(path, format!("{value:#}\n")).map_err(Error::io(format!("write {}", path.display())))
    }

    /// Compares what was counted now with this.
    #[must_use]
    pub fn judge(&self, now: &Self) -> Verdict {
        let differs = self.made_by.iter().find(|(name, value)| now.made_by.get(*name) != Some(value));
        if let Some((name, value)) = differs {
            let other = now.made_by.get(name).map_or("unknown", String::as_str);
            return Verdict::Incomparable(format!("{name} is {other}, and that of the baseline {value}"));
        }
        let worse = now.instructions.iter().filter_map(|(name, now)| {
            let before = *self.instructions.get(name)?;
            (*now as f64 > before as f64 * TOLERANCE).then(|| (name.clone(), before, *now))
        });
        let worse: Vec<_> = worse.collect();
        if worse.is_empty() { Verdict::Good } else { Verdict::Worse(worse) }
    }
}

fn version(program: &'static str) -> Result<String, Error> {
    let output = Command::new(program).arg("--version").output().map_err(Error::io(format!("run {program}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(rustc: &str, small: u64) -> Baseline {
        let made_by = BTreeMap::from([("rustc".to_owned(), rustc.to_owned())]);
        Baseline { made_by, instructions: BTreeMap::from([("small".to_owned(), small)]) }
    }

    #[test]
    fn a_twentieth_more_is_worse_and_another_compiler_says_nothing() {
        let before = baseline("rustc 1", 10_000);
        assert_eq!(before.judge(&baseline("rustc 1", 10_500)), Verdict::Good);
        assert_eq!(before.judge(&baseline("rustc 1", 9000)), Verdict::Good);
        let worse = Verdict::Worse(vec![("small".to_owned(), 10_000, 10_501)]);
        assert_eq!(before.judge(&baseline("rustc 1", 10_501)), worse);
        let Verdict::Incomparable(why) = before.judge(&baseline("rustc 2", 99_999)) else { panic!("it compared") };
        assert_eq!(why, "rustc is rustc 2, and that of the baseline rustc 1");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.json");
        let written = baseline("rustc 1", 10_000);
        written.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), written);
        fs::write(&path, "{}").unwrap();
        assert!(Baseline::read(&path).is_err());
    }
}
