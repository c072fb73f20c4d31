//! `bgctl check`: every problem of a configuration file, with its place and a hint.

use std::path::PathBuf;

use ::config::load::{Presence, load};
use ::config::project;
use clap::Args;

use crate::commands::described::reading;
use crate::context::Context;
use crate::error::{Error, ExitCode, Kind};

/// Validate a configuration file
#[derive(Debug, Args)]
pub struct Check {
    /// The file: a project's where its name says bluegreen, else the proxy's (default: bluegreen.toml where there is one)
    file: Option<PathBuf>,
}

fn default_file() -> PathBuf {
    let project = PathBuf::from(project::FILE);
    if project.exists() { project } else { ::config::paths::PROXY_CONFIG.into() }
}

impl Check {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let file = self.file.or_else(|| context.global.file.clone()).unwrap_or_else(default_file);
        let is_projects = file.file_name().is_some_and(|name| name.to_string_lossy().contains("bluegreen"));
        let problems = if is_projects {
            project::check(&file, reading(&context.global))
        } else {
            match load(&file, Presence::Required) {
                Ok(model) => model.complaints,
                Err(problems) => problems,
            }
        };
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
            context.ui.data(&format!("{} is good", file.display()));
        } else {
            problems.iter().for_each(|problem| context.ui.data(&problem.render()));
        }
        Ok(if problems.is_empty() { ExitCode::DONE } else { Kind::Usage.exit_code() })
    }
}
