//! `swap-latency`: how long a switch takes under load, here and in nginx and `HAProxy`, in one run.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::contender::{Installed, Kind};
use benches::error::Error;
use benches::load::Plan;
use benches::measure::Measure;
use benches::round;
use benches::table::Findings;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Measures how long a switch takes under load: bgproxy beside nginx and HAProxy
#[derive(Debug, Parser)]
#[command(name = "swap-latency")]
struct Args {
    /// Switches of bgproxy and of HAProxy
    #[arg(long, default_value_t = 1000)]
    flips: usize,
    /// Reloads of nginx
    #[arg(long, default_value_t = 100)]
    reloads: usize,
    /// Rounds that the switches are spread over; in each, the proxies take turns
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Requests a second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The bgproxy to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    proxy_binary: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Error::io("start")).and_then(|runtime| runtime.block_on(until_signal(&args)));
    match outcome {
        Ok(text) => {
            // A reader that has gone wants nothing.
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("swap-latency: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A signal drops the measurement, and with it the proxy that runs.
async fn until_signal(args: &Args) -> Result<String, Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("wait for signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("wait for signals"))?;
    let interrupted = || Error::Load("interrupted".to_owned());
    tokio::select! {
        outcome = measure(args) => outcome,
        _ = interrupt.recv() => Err(interrupted()),
        _ = terminate.recv() => Err(interrupted()),
    }
}

async fn measure(args: &Args) -> Result<String, Error> {
    let plan = Plan { rate: args.rate, keep_alive: 64, fresh: 4 };
    let rounds = usize::from(args.rounds);
    let mut measured = vec![(ours(args)?, Measure::default())];
    let mut skipped = Vec::new();
    for kind in Kind::ALL.into_iter().skip(1) {
        match kind.find() {
            Some(installed) => measured.push((installed, Measure::default())),
            None => skipped.push(kind),
        }
    }
    for number in 0..rounds {
        for (installed, measure) in &mut measured {
            let all = if installed.kind == Kind::Nginx { args.reloads } else { args.flips };
            let switches = all * (number + 1) / rounds - all * number / rounds;
            let (program, call) = (installed.kind.program(), installed.kind.call());
            say(&format!("round {} of {rounds}: {switches} times `{call}` of {program}", number + 1));
            measure.add(round::run(installed, plan, switches).await?);
        }
    }
    let findings = Findings { plan, rounds, measured, skipped };
    Ok(if args.json { format!("{:#}\n", findings.json()) } else { findings.text() })
}

/// Ours must be there: a comparison without it says nothing.
fn ours(args: &Args) -> Result<Installed, Error> {
    let beside = || {
        let own = std::env::current_exe().map_err(Error::io("find the folder of this program"))?;
        Ok(own.with_file_name(Kind::Bluegreen.program()))
    };
    let path = args.proxy_binary.clone().map_or_else(beside, Ok)?;
    if path.is_file() {
        return Ok(Kind::Bluegreen.installed(path));
    }
    Err(Error::Missing { path, hint: "cargo build --release -p proxy" })
}

fn say(words: &str) {
    // Where stderr is closed, nobody wants to know.
    drop(writeln!(std::io::stderr(), "{words}"));
}
