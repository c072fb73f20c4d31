//! What the engine's answers mean to a deployment: refused, or out of reach.

use std::error::Error as _;

use bollard::errors::Error;

use crate::engine::EngineError;

/// Returns our error for one of the engine's; `what` says what was attempted, as in `start shop_BLUE`.
#[expect(clippy::needless_pass_by_value, reason = "reads as a closure in map_err")]
pub(super) fn refusal(what: &str, error: Error) -> EngineError {
    match &error {
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            refused(what, message)
        }
        Error::RequestTimeoutError => EngineError::Unreachable(format!("{what}: the Docker engine did not answer")),
        other => EngineError::Unreachable(format!("{what}: {}", chain(other))),
    }
}

/// Returns our error for the engine's words.
pub(super) fn refused(what: &str, message: &str) -> EngineError {
    let message = message.trim();
    if message.contains("no space left on device") {
        return EngineError::Unreachable(format!(
            "{what}: the disk of the engine's host is full ({message})\nhint: `docker system df` shows what fills it"
        ));
    }
    EngineError::Refused(format!("{what}: {message}"))
}

/// Returns the HTTP status of the engine's refusal, where it is one.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Turns `404` into `None`.
pub(super) fn found<T>(what: &str, answer: Result<T, Error>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(refusal(what, error)),
    }
}

/// Returns a failure with all its causes, each once.
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn a_full_disk_is_out_of_reach_and_a_refusal_is_a_refusal() {
        let full = refusal("create shop_BLUE", answer(500, "write /x: no space left on device"));
        assert!(matches!(full, EngineError::Unreachable(text) if text.contains("disk")));
        let refused = refusal("create shop_BLUE", answer(400, "invalid mount"));
        assert!(matches!(refused, EngineError::Refused(text) if text == "create shop_BLUE: invalid mount"));
    }

    #[test]
    fn only_404_means_that_it_is_not_there() {
        assert!(found::<()>("look", Err(answer(404, "no"))).unwrap().is_none());
        assert!(found::<()>("look", Err(answer(500, "no"))).is_err());
    }
}
