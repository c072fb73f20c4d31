//! What an engine could not do.

/// What an engine could not do; the kind decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine or its host can't be reached, or its disk is full: exit 8.
    #[error("{0}")]
    Unreachable(String),
    /// The image is missing, or the engine refused to create or start the instance: exit 3.
    #[error("{0}")]
    Refused(String),
    /// The proxy is not there and could not be made to run: exit 2.
    #[error("{0}")]
    NoProxy(String),
    /// Wrong usage, such as an image with several exposed ports and no `--port`: exit 1.
    #[error("{0}")]
    Usage(String),
}
