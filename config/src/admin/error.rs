//! What the proxy answers when it refuses a call: a stable code, a sentence, a hint.

use serde::{Deserialize, Serialize};

/// The reason of a refusal; the text form never changes once released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the call can't be read.
    BadRequest,
    /// 404: no such method and path.
    NoSuchCall,
    /// 404: no service of that name.
    UnknownService,
    /// 409: another service has the route.
    RouteTaken,
    /// 409: `If-Match` names another generation than the present one.
    Stale,
    /// 409: the service, or the setting, belongs to the file, or to the admin API, and the other wanted to change it.
    OtherOrigin,
    /// 409: the slot has no endpoints.
    EmptySlot,
    /// 409: the slot to stage is live.
    SlotIsLive,
    /// 409: the slot is not healthy.
    NotHealthy,
    /// 409: no earlier slot is warm.
    NothingToRollBack,
    /// 409: something is under way that does not go together with it.
    NotNow,
    /// 409: another flip or staging took the place of what was waited for.
    Superseded,
    /// 413: the body is too long.
    TooLarge,
    /// 423: someone else holds the service's lease.
    Locked,
    /// 428: a change without `If-Match`.
    NoIfMatch,
    /// 501: a call that this version doesn't have yet.
    NotThereYet,
    /// 503: another process is taking this one's place.
    HandingOver,
    /// 507: the state could not be saved, so nothing was changed.
    NotSaved,
    /// 500: our own fault.
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 19] = [
        Self::BadRequest,
        Self::NoSuchCall,
        Self::UnknownService,
        Self::RouteTaken,
        Self::Stale,
        Self::OtherOrigin,
        Self::EmptySlot,
        Self::SlotIsLive,
        Self::NotHealthy,
        Self::NothingToRollBack,
        Self::NotNow,
        Self::Superseded,
        Self::TooLarge,
        Self::Locked,
        Self::NoIfMatch,
        Self::NotThereYet,
        Self::HandingOver,
        Self::NotSaved,
        Self::Internal,
    ];

    /// Returns the HTTP status it is sent with.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NoSuchCall | Self::UnknownService => 404,
            Self::RouteTaken
            | Self::Stale
            | Self::OtherOrigin
            | Self::EmptySlot
            | Self::SlotIsLive
            | Self::NotHealthy
            | Self::NothingToRollBack
            | Self::NotNow
            | Self::Superseded => 409,
            Self::TooLarge => 413,
            Self::Locked => 423,
            Self::NoIfMatch => 428,
            Self::Internal => 500,
            Self::NotThereYet => 501,
            Self::HandingOver => 503,
            Self::NotSaved => 507,
        }
    }
}

/// A refusal, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what was refused, and why.
    pub message: String,
    /// What to do about it; empty where there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl AdminError {
    /// Returns a refusal without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}
