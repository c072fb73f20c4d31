//! `bgctl man`: the manual page of the program, or that of one command.

use clap::{Args, Command};
use clap_mangen::Man as Page;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Print the manual page
#[derive(Debug, Args)]
pub struct Man {
    /// The page of this command
    command: Option<String>,
}

impl Man {
    /// The command line is given, since it lists this command too.
    #[expect(clippy::unused_async, reason = "every command is run in the same way")]
    pub(crate) async fn run(self, context: &Context<'_>, mut line: Command) -> Result<ExitCode, Error> {
        // Only a built command knows its usage and the options of every command.
        line.build();
        let line = match &self.command {
            None => line,
            Some(name) => {
                let found = line.find_subcommand(name).cloned();
                let found = found.ok_or_else(|| {
                    Error::usage(format!("there is no command `{name}`")).hint("`bgctl --help` lists them")
                })?;
                found.display_name(format!("bgctl-{name}"))
            }
        };
        let mut page = Vec::new();
        Page::new(line).render(&mut page).map_err(|error| Error::usage(format!("write the page: {error}")))?;
        context.ui.text(&String::from_utf8_lossy(&page));
        Ok(ExitCode::DONE)
    }
}
