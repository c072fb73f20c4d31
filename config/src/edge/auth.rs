//! Who may come with a name and a password, of which only a hash is known.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Consistent, Fault};
use crate::name::PathPrefix;

/// A name and a password are asked for. Of several rules the one with the longest path counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// What a browser shows beside the question.
    #[serde(default = "realm")]
    pub realm: String,
    /// The hash of each one's password, by name.
    pub users: BTreeMap<String, PasswordHash>,
    /// The paths that it is for; where absent all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPrefix>,
    /// Paths of those for which nobody is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<PathPrefix>,
}

/// The realm where none is given.
fn realm() -> String {
    BasicAuth::REALM.to_owned()
}

impl BasicAuth {
    /// The realm where none is given.
    pub const REALM: &'static str = "restricted";
}

impl Consistent for BasicAuth {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.users.is_empty() {
            let hint =
                "add users = { alice = \"$2y$...\" }, or users_file = \"htpasswd\"; `htpasswd -nB alice` makes one";
            faults.push(Fault::new("users", "nobody has a password, so nobody could come", hint));
        }
        if self.realm.bytes().any(|byte| byte.is_ascii_control() || b"\"\\".contains(&byte)) || !self.realm.is_ascii() {
            let what = "the realm has a character that can't be told to a browser";
            faults.push(Fault::new("realm", what, "write it with letters, digits and blanks"));
        }
        for name in self.users.keys() {
            if name.is_empty() || name.contains(':') || name.bytes().any(|byte| byte.is_ascii_control()) {
                let what = format!("`{}` can be nobody's name", super::shorten(name));
                faults.push(Fault::new("users", what, "a name has no `:` and is not empty"));
            }
        }
        faults
    }
}

/// Which kind of hash it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// `$2y$...`.
    Bcrypt,
    /// `$argon2id$...`, and its two sisters.
    Argon2,
}

/// The hash of a password; nothing that is printed for people shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash(String);

impl PasswordHash {
    /// What is told to whoever writes something else.
    pub const HINT: &'static str = "`htpasswd -nB NAME` makes one of bcrypt, `argon2` one of argon2id";
    /// A hash of bcrypt that takes longer than about a second.
    const MOST_ROUNDS: u32 = 14;
    /// What one of argon2 may take of memory, in KiB.
    const MOST_MEMORY: u32 = 256 * 1024;
    /// How often it may go over that.
    const MOST_PASSES: u32 = 10;

    /// Returns it as it was written.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns its kind.
    pub fn kind(&self) -> HashKind {
        if self.0.starts_with("$argon2") { HashKind::Argon2 } else { HashKind::Bcrypt }
    }
}

impl FromStr for PasswordHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = String;

    // No message repeats the text: it may be the password itself.
    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('$').collect();
        match parts[..] {
            ["", "2a" | "2b" | "2y" | "2x", rounds, rest] => {
                let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
                let rounds = rounds.parse().ok().filter(|_| rounds.len() == 2).unwrap_or(0_u32);
                if rest.len() != 53 || !rest.bytes().all(is_digit) || !(4..=31).contains(&rounds) || parts[1] == "2x" {
                    return Err("the hash of bcrypt is not whole".to_owned());
                }
                if rounds > Self::MOST_ROUNDS {
                    return Err(format!(
                        "a hash of bcrypt with {rounds} rounds takes too long; at most {}",
                        Self::MOST_ROUNDS
                    ));
                }
            }
            ["", "argon2id" | "argon2i" | "argon2d", "v=19", parameters, salt, hash] => {
                argon2(parameters, salt, hash)?;
            }
            _ => return Err("this is no hash of bcrypt or argon2".to_owned()),
        }
        Ok(Self(text))
    }
}

fn argon2(parameters: &str, salt: &str, hash: &str) -> Result<(), String> {
    let mut names = ["m", "t", "p"].iter();
    let mut numbers = [0_u32; 3];
    for (number, parameter) in numbers.iter_mut().zip(parameters.split(',')) {
        let value = parameter.split_once('=').filter(|(name, _)| names.next() == Some(name));
        *number = value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    }
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
    let [memory, passes, lanes] = numbers;
    let is_whole = parameters.split(',').count() == 3
        && (11..=86).contains(&salt.len())
        && (16..=86).contains(&hash.len())
        && is_digits(salt)
        && is_digits(hash);
    if !is_whole || passes == 0 || !(1..=16).contains(&lanes) || memory < 8 * lanes {
        return Err("the hash of argon2 is not whole".to_owned());
    }
    if memory > PasswordHash::MOST_MEMORY || passes > PasswordHash::MOST_PASSES {
        return Err(format!(
            "the hash of argon2 takes too much: at most {} KiB of memory, {} times",
            PasswordHash::MOST_MEMORY,
            PasswordHash::MOST_PASSES
        ));
    }
    Ok(())
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Returns the users of a file as `htpasswd` writes it: `name:hash` a line, with comments behind `#` at its beginning.
///
/// # Errors
/// The line, from 1, and what is wrong with it.
pub fn users_of(text: &str) -> Result<BTreeMap<String, PasswordHash>, (usize, String)> {
    let mut users = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let told = |what: String| (at + 1, what);
        let (name, hash) = line.split_once(':').ok_or_else(|| told("it is no `name:hash`".to_owned()))?;
        let hash = hash.parse().map_err(told)?;
        if users.insert(name.to_owned(), hash).is_some() {
            return Err(told(format!("`{}` has a password already", super::shorten(name))));
        }
    }
    Ok(users)
}
