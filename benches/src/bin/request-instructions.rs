//! `request-instructions`: how many instructions of bgproxy a request takes, and whether that are more than they were.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use benches::error::Error;
use benches::instructions::{Baseline, Kind, Verdict, count};
use clap::Parser;

/// Counts the instructions that a request takes in bgproxy, and compares them with the baseline
#[derive(Debug, Parser)]
#[command(name = "request-instructions")]
struct Args {
    /// The bgproxy to count in, built for release [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    proxy_binary: Option<PathBuf>,
    /// What to compare with
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    baseline: PathBuf,
    /// Make what is counted the baseline
    #[arg(long)]
    save: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Error::io("start")).and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("request-instructions: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<ExitCode, Error> {
    let ours = match &args.proxy_binary {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(Error::io("find this program"))?.with_file_name("bgproxy"),
    };
    if !ours.is_file() {
        return Err(Error::Missing { path: ours, hint: "cargo build --release -p proxy" });
    }
    let baseline = if args.save { None } else { Some(Baseline::read(&args.baseline)?) };
    // Counting takes a minute, and would say nothing.
    if let Some(baseline) = &baseline
        && let Verdict::Incomparable(why) = baseline.judge(&Baseline::here(BTreeMap::new())?)
    {
        say(&format!("SKIPPED the count of instructions: {why}"));
        return Ok(ExitCode::SUCCESS);
    }
    let now = Baseline::here(counted(&ours, baseline.as_ref()).await?)?;
    let Some(baseline) = baseline else {
        now.write(&args.baseline)?;
        return Ok(ExitCode::SUCCESS);
    };
    match baseline.judge(&now) {
        Verdict::Worse(worse) => {
            for (kind, before, now) in worse {
                say(&format!("a request of kind `{kind}` takes {now} instructions, and took {before}"));
            }
            say("hint: find what it does more; where that is wanted, --save makes it the baseline");
            Ok(ExitCode::FAILURE)
        }
        Verdict::Good | Verdict::Incomparable(_) => Ok(ExitCode::SUCCESS),
    }
}

/// Counts each kind of request, and prints it.
async fn counted(ours: &Path, baseline: Option<&Baseline>) -> Result<BTreeMap<String, u64>, Error> {
    let mut instructions = BTreeMap::new();
    for kind in Kind::ALL {
        let now = count(kind, ours).await?;
        let before = baseline.and_then(|baseline| baseline.instructions.get(kind.name()));
        let before = before.map_or_else(String::new, |before| format!(", and took {before}"));
        print(&format!("MEASURED request-instructions: {} takes {now}{before}\n", kind.name()));
        instructions.insert(kind.name().to_owned(), now);
    }
    Ok(instructions)
}

fn print(text: &str) {
    // A reader that has gone wants nothing.
    drop(std::io::stdout().write_all(text.as_bytes()));
}

fn say(words: &str) {
    // Where stderr is closed, nobody wants to know.
    drop(writeln!(std::io::stderr(), "{words}"));
}
