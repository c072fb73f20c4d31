//! `bgctl`: deploys, switches, operates.
//!
//! [`run`] reads the arguments ([`cli`]), makes a [`context`], hands over to one file of [`commands`], and turns what it
//! returns into words ([`ui`]) and an exit code ([`error`]). An image travels by [`transfer`]; a deployment is planned and executed in
//! [`deploy`], against an [`engine`] and the proxy's [`admin`] socket; [`top`] draws what that says; `traffic` is that of our own
//! visitors.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod admin;
pub mod cli;
pub mod commands;
pub mod context;
pub mod demo;
pub mod deploy;
pub mod engine;
pub mod error;
pub mod global;
mod import;
pub mod interrupt;
mod mask;
mod nginx;
pub mod top;

mod traffic;
pub mod transfer;
pub mod ui;
pub mod way;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::interrupt::Interrupt;
use crate::ui::{Tone, Ui};
use crate::way::Way;

/// A deployment is a deep chain of steps that wait for one another, and a build without optimisation keeps room for each of them.
/// What is not used of it is no memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs the command line of this process, on a thread with room for its deepest chain of steps.
pub fn program() -> std::process::ExitCode {
    let run = || run(std::env::args_os(), &Ui::terminal()).into();
    match std::thread::Builder::new().name("bgctl".to_owned()).stack_size(STACK_BYTES).spawn(run) {
        // What a panic says was said where it happened.
        Ok(thread) => thread.join().unwrap_or(std::process::ExitCode::from(101)),
        Err(_) => run(),
    }
}

/// Runs a command line, the program's name first, and returns the exit code.
///
/// It makes a runtime of its own; inside of one use [`run_inside`].
pub fn run(args: impl IntoIterator<Item = OsString>, ui: &Ui) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run_inside(args, ui));
            // A blocking read of a terminal or a look-up must not keep the program.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let error = Error::usage(format!("start the runtime: {error}"));
            ui.error(&error);
            error.kind.exit_code()
        }
    }
}

/// As [`run`], inside of a tokio runtime.
pub async fn run_inside(args: impl IntoIterator<Item = OsString>, ui: &Ui) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(refusal) => return refuse(&refusal, ui),
    };
    let Cli { mut global, command } = cli;
    if let Some(host) = command.host() {
        global.host = Some(host.to_owned());
    }
    ui.set_tone(Tone { json: global.json, quiet: global.quiet, verbose: global.verbose });
    if command.is_of_a_host() {
        match commands::described_host(&global) {
            Ok(host) => global.host = host,
            Err(error) => {
                ui.error(&error);
                return error.kind.exit_code();
            }
        }
    }
    ui.set_way(Way::of(&global));
    let context = Context::new(global, ui, Interrupt::listen());
    match dispatch(command, &context).await {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error);
            error.kind.exit_code()
        }
    }
}

/// Prints what clap has to say: help and version are data, the rest is wrong usage.
fn refuse(refusal: &clap::Error, ui: &Ui) -> ExitCode {
    let text = refusal.render();
    if refusal.use_stderr() {
        let text = text.to_string();
        ui.error(&Error::usage(text.trim_start_matches("error: ").trim_end()));
        return error::Kind::Usage.exit_code();
    }
    ui.text(&text.to_string());
    ExitCode::DONE
}

/// Commands that undo or explain what a signal interrupts take it themselves; the others just end.
async fn dispatch(command: Command, context: &Context<'_>) -> Result<ExitCode, Error> {
    match command {
        Command::Demo(args) => args.run(context).await,
        Command::Up(args) => args.run(context).await,
        Command::Switch(args) => args.run(context).await,
        Command::Deploy(args) => args.run(context).await,
        Command::Rollback(args) => commands::everywhere::rollback(context, args).await,
        Command::Route(args) => args.run(context).await,
        Command::Recover(args) => args.run(context).await,
        Command::Scale(args) => args.run(context).await,
        Command::Verify(args) => args.run(context).await,
        command => context.interrupt.beside(dispatch_plain(command, context)).await?,
    }
}

async fn dispatch_plain(command: Command, context: &Context<'_>) -> Result<ExitCode, Error> {
    match command {
        Command::Demo(_)
        | Command::Up(_)
        | Command::Switch(_)
        | Command::Deploy(_)
        | Command::Rollback(_)
        | Command::Route(_)
        | Command::Recover(_)
        | Command::Scale(_)
        | Command::Verify(_) => Ok(ExitCode::DONE),
        Command::DemoUptimer(args) => args.run(context).await,
        Command::Down(args) => args.run(context).await,
        Command::Flip(args) => args.run(context).await,
        Command::Status(args) => args.run(context).await,
        Command::Logs(args) => args.run(context).await,
        Command::Rm(args) => args.run(context).await,
        Command::Config(args) => args.run(context).await,
        Command::Apply(args) => args.run(context).await,
        Command::Check(args) => args.run(context).await,
        Command::Doctor(args) => args.run(context).await,
        Command::Events(args) => args.run(context).await,
        Command::Push(args) => args.run(context).await,
        Command::History(args) => args.run(context).await,
        Command::Pause(args) => args.run(context).await,
        Command::Resume(args) => args.run(context).await,
        Command::Maintenance(args) => args.run(context).await,
        Command::Canary(args) => args.run(context).await,
        Command::Preview(args) => args.run(context).await,
        Command::Exec(args) => args.run(context).await,
        Command::Run(args) => args.run(context).await,
        Command::Prune(args) => args.run(context).await,
        Command::Plan(args) => args.run(context).await,
        Command::Init(args) => args.run(context).await,
        Command::ImportNginx(args) => args.run(context).await,
        Command::Schema(args) => args.run(context).await,
        Command::Top(args) => args.run(context).await,
        Command::Completions(args) => args.run(context, Cli::command()).await,
        Command::Complete(args) => args.run(context).await,
        Command::Man(args) => args.run(context, Cli::command()).await,
    }
}
