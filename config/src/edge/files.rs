//! Answers beside the application's: files of a folder, what an old version still has, and what is made shorter on its way.

use std::path::{Component, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Consistent, Fault, PathGlob};
use crate::name::PathPrefix;

/// Which answers are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compress {
    /// Media types; `text/*` is every one that begins so.
    pub types: Vec<String>,
    /// A shorter answer is sent as it is, where its length is told.
    pub min_bytes: u64,
    /// In the order in which they are preferred, where a client takes several alike.
    pub algorithms: Vec<Algorithm>,
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            types: Self::TYPES.map(str::to_owned).into(),
            min_bytes: Self::MIN_BYTES,
            algorithms: Algorithm::ALL.into(),
        }
    }
}

impl Compress {
    /// What a packet carries anyway.
    pub const MIN_BYTES: u64 = 1024;
    /// What gets shorter.
    pub const TYPES: [&'static str; 9] = [
        "text/*",
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/manifest+json",
        "application/wasm",
        "application/xml",
        "application/xhtml+xml",
        "image/svg+xml",
    ];
}

impl Consistent for Compress {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, is_empty) in [("types", self.types.is_empty()), ("algorithms", self.algorithms.is_empty())] {
            if is_empty {
                faults.push(Fault::new(
                    key,
                    format!("`{key}` is empty, so nothing is compressed"),
                    "write compress = false",
                ));
            }
        }
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && !b"/;,".contains(&b));
        for kind in &self.types {
            if !kind.split_once('/').is_some_and(|(kind, sub)| is_word(kind) && is_word(sub)) {
                let what = format!("`{}` is no media type", super::shorten(kind));
                faults.push(Fault::new("types", what, "write text/html, application/json or text/*"));
            }
        }
        if let Some(twice) = self.algorithms.iter().enumerate().find(|(at, one)| self.algorithms[..*at].contains(one)) {
            faults.push(Fault::new("algorithms", format!("`{}` is listed twice", twice.1.word()), "list it once"));
        }
        faults
    }
}

/// A way to make a body shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Algorithm {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// Returns it as `Accept-Encoding` calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// A folder whose files are served below a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticFiles {
    /// The path that its files are below.
    pub path: PathPrefix,
    /// The folder, as the proxy sees it.
    pub folder: PathBuf,
    /// What is served for a folder.
    #[serde(default = "index")]
    pub index: String,
    /// The file of the folder that is served where there is none, as of an application of one page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How long a browser may keep them; where absent it asks again.
    #[serde(default, with = "crate::duration::option", skip_serializing_if = "Option::is_none")]
    pub cache: Option<Duration>,
    /// Whether `basic_auth` counts for them.
    #[serde(default = "yes")]
    pub auth: bool,
    /// Whether the application is asked where there is no file; else that is answered 404.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallthrough: bool,
}

fn index() -> String {
    StaticFiles::INDEX.to_owned()
}

fn yes() -> bool {
    true
}

impl StaticFiles {
    /// The file of a folder, where none is named.
    pub const INDEX: &'static str = "index.html";
}

impl Consistent for StaticFiles {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let is_plain = self.folder.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !self.folder.is_absolute() || !is_plain {
            let what = "the folder is no absolute path";
            faults.push(Fault::new("folder", what, "write it as the proxy sees it, such as /srv/static"));
        }
        if self.index.is_empty() || self.index.contains('/') || self.index.starts_with('.') {
            faults.push(Fault::new("index", "the index is no name of a file", "write index.html"));
        }
        let is_file = |path: &str| {
            path.starts_with('/')
                && !path.ends_with('/')
                && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
        };
        if self.fallback.as_deref().is_some_and(|path| !is_file(path)) {
            let hint = "begin it with `/`, which is the folder: /index.html";
            faults.push(Fault::new("fallback", "the fallback is no file of the folder", hint));
        }
        faults
    }
}

/// What a new version doesn't have is asked of the old one for a while, and the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldAssets {
    /// The paths.
    pub paths: Vec<PathGlob>,
    /// How long after a flip.
    #[serde(default = "minutes")]
    pub minutes: u32,
}

fn minutes() -> u32 {
    OldAssets::MINUTES
}

impl OldAssets {
    /// How long after a flip, where it is not given.
    pub const MINUTES: u32 = 10;
    /// A day.
    pub const MOST_MINUTES: u32 = 24 * 60;
}

impl Consistent for OldAssets {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.paths.is_empty() {
            faults.push(Fault::new("paths", "`old_assets` names no path", "add paths = [\"/assets/*\"]"));
        }
        if !(1..=Self::MOST_MINUTES).contains(&self.minutes) {
            let what = format!("`minutes` is {}", self.minutes);
            faults.push(Fault::new("minutes", what, format!("it goes from 1 to {}", Self::MOST_MINUTES)));
        }
        faults
    }
}
