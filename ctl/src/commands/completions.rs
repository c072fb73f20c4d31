//! `bgctl completions`: what a shell needs to complete our commands and options.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Print completions for a shell
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell; `bgctl completions bash > /etc/bash_completion.d/bgctl` is for everybody on this machine
    shell: Shell,
}

impl Completions {
    /// The command line is given, since it lists this command too.
    #[expect(clippy::unused_async, reason = "every command is run in the same way")]
    pub(crate) async fn run(self, context: &Context<'_>, mut line: Command) -> Result<ExitCode, Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut line, "bgctl", &mut script);
        context.ui.text(&String::from_utf8_lossy(&script));
        Ok(ExitCode::DONE)
    }
}
