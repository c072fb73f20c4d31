//! `bgctl check`.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Validate a configuration file
#[derive(Debug, Args)]
pub struct Check {
    /// The file
    file: Option<PathBuf>,
}

impl Check {
    pub(crate) async fn run(self, _: &Context<'_>) -> Result<ExitCode, Error> {
        let file = self.file.unwrap_or_else(|| ::config::paths::PROXY_CONFIG.into());
        Err(Error::not_there_yet("bgctl check")
            .hint(format!("`bgproxy --check --config {}` reads the proxy's own file", file.display())))
    }
}
