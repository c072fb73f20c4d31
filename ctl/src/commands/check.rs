//! `bgctl check`: every problem of a configuration file, with its place and a hint.

use std::path::PathBuf;

use ::config::load::{Presence, load};
use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode, Kind};

/// Validate the proxy's configuration file
#[derive(Debug, Args)]
pub struct Check {
    /// The file
    #[arg(default_value = ::config::paths::PROXY_CONFIG)]
    file: PathBuf,
}

impl Check {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        if self.file.file_name().is_some_and(|name| name == "bluegreen.toml") {
            return Err(Error::not_there_yet("bgctl check of bluegreen.toml"));
        }
        let problems = load(&self.file, Presence::Required).err().unwrap_or_default();
        if context.ui.tone().json {
            let list: Vec<_> = problems
                .iter()
                .map(|problem| {
                    serde_json::json!({
                        "file": problem.place.file.display().to_string(),
                        "line": problem.place.position.map(|at| at.line),
                        "column": problem.place.position.map(|at| at.column),
                        "what": problem.what,
                        "hint": problem.hint,
                    })
                })
                .collect();
            context.ui.document(&serde_json::json!({ "problems": list }));
        } else if problems.is_empty() {
            context.ui.data(&format!("{} is good", self.file.display()));
        } else {
            problems.iter().for_each(|problem| context.ui.data(&problem.render()));
        }
        Ok(if problems.is_empty() { ExitCode::DONE } else { Kind::Usage.exit_code() })
    }
}
