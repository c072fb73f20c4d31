//! The journal of a service: what is being done to it, step by step, and what was done before.

use serde::{Deserialize, Serialize};

use super::response::Counts;
use crate::name::{ServiceName, Slot};

/// A line of the journal; it is on the disk before the call answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "action", rename_all = "snake_case")]
pub enum Journal {
    /// Something begins; what was open before and never ended is called abandoned.
    Begin {
        /// What, for whom.
        work: Work,
    },
    /// A step is about to be done, or was.
    Step {
        /// The id that the work began with.
        id: String,
        /// The step's name, as in `create`.
        step: String,
        /// How far it is.
        state: StepState,
    },
    /// It has ended.
    End {
        /// The id that the work began with.
        id: String,
        /// How.
        outcome: Outcome,
        /// The report, as it was printed.
        report: Box<serde_json::Value>,
        /// The log of an instance that failed; only the last one is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
}

/// Something that is done to a service: a switch, a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The id of this run; a deployment that is gone back to keeps its own.
    pub id: String,
    /// The deployment that is to become live.
    pub deployment: String,
    /// In words, as in `switch to shop:42`.
    pub what: String,
    /// As in `alice@laptop`.
    pub who: String,
    /// What the user wants to be remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The slot that is to become live.
    pub slot: Slot,
    /// The image, as the user wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The engine's id of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The source that the image says it was built from (`org.opencontainers.image.revision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The image that was live before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_image: Option<String>,
    /// Services that become live together with it, which a rollback takes along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<ServiceName>,
    /// Where the live slot is to have more replicas, or fewer, and nothing is to become live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

/// A change of the number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The number of the last replica before.
    pub from: u32,
    /// The number of the last one afterwards.
    pub to: u32,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It is about to be done, or being done.
    Begun,
    /// It was done.
    Done,
}

/// How work has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new version is live.
    Done,
    /// It is not, and everything is as it was before.
    Undone,
    /// The proxy flipped back, and everything is as it was before.
    FlippedBack,
    /// Whoever did it has gone, and nobody finished it.
    Abandoned,
}

impl Outcome {
    /// Returns it in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Undone => "undone",
            Self::FlippedBack => "flipped back",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A step of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// How far it is.
    pub state: StepState,
    /// Since when, RFC 3339.
    pub at: String,
}

/// Work that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What, for whom.
    #[serde(flatten)]
    pub work: Work,
    /// When it began, RFC 3339.
    pub began: String,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Where the proxy flipped back by itself: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flipped_back: Option<FlipBack>,
    /// When it ended; null while it is open.
    pub ended: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The report of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<serde_json::Value>,
}

impl Entry {
    /// Tells whether a step was begun.
    pub fn has_begun(&self, step: &str) -> bool {
        self.steps.iter().any(|known| known.step == step)
    }
}

/// A flip back by the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlipBack {
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
    /// What became of the requests.
    pub counts: Counts,
}

/// What is known of a service's past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The service.
    pub service: ServiceName,
    /// Everything that was begun, the latest first.
    pub entries: Vec<Entry>,
}

impl History {
    /// Returns the work that has not ended.
    pub fn open(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.ended.is_none())
    }
}
