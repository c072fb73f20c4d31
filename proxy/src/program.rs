//! What the program `bgproxy` does: its command line, its log, its signals and its exit code.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use config::error::Problem;
use config::model::{Log, LogFormat, LogLevel};
use config::paths;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use crate::admin::relay;
use crate::app::{App, Bound, Options, StartError};
use crate::args::{self, Args, Command, Serve};
use crate::handover::take::Succession;
use crate::successor::Program;
use crate::telemetry::panics;
use crate::{holder, notify, upgrading as upgrade};

/// `bgproxy relay` found no proxy.
const NO_PROXY: u8 = 2;

/// Runs a command line, the program's name first, until it ends or a signal ends it, and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = args.into_iter().collect();
    let program = own_program(&words);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; where they can't be written, there is nobody to tell.
            drop(error.print());
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match args.command {
        Some(Command::Relay { admin }) => match relay::run(&args::relay_socket(admin)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ relay::Error::NoProxy { .. }) => fail(&error.to_string(), NO_PROXY),
            Err(error) => fail(&error.to_string(), 1),
        },
        Some(Command::Hold) => match holder::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("can't wait for signals: {error}"), 1),
        },
        Some(Command::Upgrade { serve }) => match upgrade::run(&serve) {
            Ok(words) => {
                say(&words);
                ExitCode::SUCCESS
            }
            Err(error @ upgrade::Error::NoProxy { .. }) => fail(&error.to_string(), NO_PROXY),
            Err(error) => fail(&error.to_string(), 1),
        },
        None => serve(&args.serve, program),
    }
}

/// Returns how this process was started, so that another one can be; `None` where its file is not known.
fn own_program(words: &[OsString]) -> Option<Program> {
    Some(Program::own(upgrade::own_file().ok()?, words.iter().skip(1).cloned().collect()))
}

fn serve(serve: &Serve, program: Option<Program>) -> ExitCode {
    let model = match serve.model() {
        Ok(model) => model,
        Err(problems) => {
            let problems = problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n");
            say(&problems);
            if serve.take_over {
                Succession::decline(serve.state.as_deref().unwrap_or(Path::new(paths::STATE_DIR)), problems);
            }
            return ExitCode::FAILURE;
        }
    };
    if serve.check {
        model.complaints.iter().for_each(|complaint| say(&complaint.render()));
        return if model.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    start_log(&model.log);
    panics::tell();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    match runtime.and_then(|runtime| runtime.block_on(serve_until_told(Options { program, ..serve.options(&model) }))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error.to_string(), 1),
        Err(error) => fail(&format!("can't wait for signals: {error}"), 1),
    }
}

/// Serves until SIGTERM or SIGINT, and then drains.
async fn serve_until_told(options: Options) -> std::io::Result<Result<(), StartError>> {
    // Before anything else, so that a signal during the start is not lost and does not kill us half-way.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut usr1 = signal(SignalKind::user_defined1())?;
    let running = match App::bind(options).and_then(Bound::start) {
        Ok(running) => running,
        Err(error) => return Ok(Err(error)),
    };
    let addresses: Vec<String> = running.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(listen = addresses.join(" "), admin = %running.admin().display(), "serving");
    notify::serving();
    let is_succeeded = loop {
        tokio::select! {
            _ = term.recv() => break false,
            _ = int.recv() => break false,
            _ = running.successor_serves() => break true,
            _ = hup.recv() => running.reload(),
            _ = usr1.recv() => running.reopen_logs(),
        }
    };
    let (deadline, hurry) = (running.shutdown_timeout(), running.hurry());
    let mut ended = if is_succeeded {
        tracing::info!(?deadline, "a successor serves; finishing what is under way");
        let (dismiss, hurried) = (running.dismiss(), running.hurried());
        let mut ended = tokio::task::spawn_blocking(move || running.retire(deadline));
        tokio::select! {
            _ = &mut ended => {
                tracing::info!("ended");
                return Ok(Ok(()));
            }
            () = hurried => tracing::info!("the successor sends requests elsewhere; idle connections are ended"),
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        dismiss();
        ended
    } else {
        tracing::info!(?deadline, "draining; a second signal ends at once");
        tokio::task::spawn_blocking(move || running.shutdown(deadline))
    };
    tokio::select! {
        _ = &mut ended => {}
        _ = async { tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} } } => {
            tracing::warn!("told again: requests under way are ended");
            hurry();
            // A panic of it was said on its own thread.
            drop(ended.await);
        }
    }
    tracing::info!("ended");
    Ok(Ok(()))
}

fn start_log(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log_to = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => log_to.init(),
        LogFormat::Json => log_to.json().init(),
    }
}

/// Every connection is a file, and the usual soft limit is far below what the kernel would let us have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
}

fn fail(words: &str, code: u8) -> ExitCode {
    say(&format!("bgproxy: {words}"));
    ExitCode::from(code)
}

fn say(words: &str) {
    // Where stderr is closed, the exit code says it.
    drop(writeln!(std::io::stderr(), "{words}"));
}
