//! The command line: the list of commands.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::global::Global;

/// The first page of help, grouped as people need it.
const HELP: &str = "\
{about}

{usage-heading} {usage}

Every day:
  demo         A zero-downtime switch on this machine with real traffic, and its proof
  switch       Start the idle slot, wait for health, flip, drain, stop the old one
  deploy       Send an image to a host and switch to it there
  status       Services, slots, health, what is in flight
  logs         Logs of a service's slots or of the proxy
  rollback     Back to the previous deployment
  history      Past switches with their reports

Set up:
  up           Make sure that the proxy runs
  init         Write a commented bluegreen.toml
  import-nginx Write the bluegreen.toml that is equal to an nginx configuration
  check        Validate a configuration file
  apply        Send routes and settings of the file to the running proxy
  doctor       What is wrong with this host, and the line that mends it

Rarely:
  down         Remove what we made
  push         Send an image without a registry
  flip         The bare pointer swap
  route        Put addresses that we don't manage behind the proxy
  rm           Drain and remove a service
  config       Print what is in force
  events       Follow what happens in the proxy
  recover pause resume maintenance canary preview scale exec run prune plan
  schema top verify completions man

Options:
{options}";

/// Deploy a new version of a web application without one failed request
#[derive(Debug, Parser)]
#[command(name = "bgctl", version, help_template = HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What is asked for.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the doc comment of each command's arguments is its help")]
pub enum Command {
    Demo(commands::demo::Demo),
    #[command(hide = true)]
    DemoUptimer(commands::demo_uptimer::DemoUptimer),
    Up(commands::up::Up),
    Down(commands::down::Down),
    Switch(commands::switch::Switch),
    Deploy(commands::deploy::Deploy),
    Rollback(commands::rollback::Rollback),
    Flip(commands::flip::Flip),
    Route(commands::route::Route),
    Status(commands::status::Status),
    Logs(commands::logs::Logs),
    Rm(commands::rm::Rm),
    Config(commands::config::Config),
    Apply(commands::apply::Apply),
    Check(commands::check::Check),
    Doctor(commands::doctor::Doctor),
    Events(commands::events::Events),
    Push(commands::push::Push),
    History(commands::history::History),
    Recover(commands::recover::Recover),
    Pause(commands::pause::Pause),
    Resume(commands::pause::Resume),
    Maintenance(commands::maintenance::Maintenance),
    Canary(commands::canary::Canary),
    Preview(commands::preview::Preview),
    Scale(commands::scale::Scale),
    Exec(commands::exec::Exec),
    Run(commands::exec::Run),
    Prune(commands::prune::Prune),
    Plan(commands::plan::Plan),
    Init(commands::init::Init),
    ImportNginx(commands::import_nginx::ImportNginx),
    Schema(commands::schema::Schema),
    Top(commands::top::Top),
    Verify(commands::verify::Verify),
    Completions(commands::completions::Completions),
    #[command(hide = true)]
    Complete(commands::complete::Complete),
    Man(commands::man::Man),
}

impl Command {
    /// Returns the host that is named before the image; it stands for `--host`.
    pub fn host(&self) -> Option<&str> {
        let place = match self {
            Self::Push(push) => &push.place,
            Self::Deploy(deploy) => &deploy.place,
            _ => return None,
        };
        place.first().filter(|_| place.len() == 2).map(String::as_str)
    }

    /// Tells whether it works on a host, which `bluegreen.toml` may name.
    pub fn is_of_a_host(&self) -> bool {
        !matches!(
            self,
            Self::Demo(_)
                | Self::DemoUptimer(_)
                | Self::Check(_)
                | Self::Init(_)
                | Self::ImportNginx(_)
                | Self::Schema(_)
                | Self::Completions(_)
                | Self::Man(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_is_not_hidden_stands_in_the_grouped_help() {
        let words: Vec<&str> = HELP.split_whitespace().collect();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(words.contains(&command.get_name()), "{}", command.get_name());
        }
    }
}
