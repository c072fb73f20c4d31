//! `request-cost`: the processor time of a request in bgproxy, nginx and `HAProxy`, in turns.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::cost::{Kind, Target, Workload, measure, median};
use benches::error::Error;
use clap::Parser;

/// Measures the processor time of a request: bgproxy beside nginx and HAProxy
#[derive(Debug, Parser)]
#[command(name = "request-cost")]
struct Args {
    /// Rounds, in each of which the proxies take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each is loaded
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only workloads whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// The bgproxy to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    proxy_binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Error::io("start")).and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("request-cost: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Error> {
    let ours = match &args.proxy_binary {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(Error::io("find this program"))?.with_file_name("bgproxy"),
    };
    if !ours.is_file() {
        return Err(Error::Missing { path: ours, hint: "cargo build --release -p proxy" });
    }
    let folder = || tempfile::tempdir().map_err(Error::io("make a folder"));
    let application_folder = folder()?;
    let application = Target::application(application_folder.path()).await?;
    print(&format!(
        "{:<30} {:>9} | ratio to nginx: {:>8} {:>8} {:>8}\n",
        "", "nginx us", "nginx+", "haproxy", "bgproxy"
    ));
    for workload in Workload::ALL.into_iter().filter(|workload| workload.name().contains(&args.only)) {
        let mut micros: Vec<Vec<f64>> = vec![Vec::new(); Kind::ALL.len()];
        for _ in 0..args.rounds {
            for (kind, micros) in Kind::ALL.into_iter().zip(&mut micros) {
                let own = folder()?;
                let target = Target::start(kind, workload.workers(), &ours, own.path(), application.address()).await?;
                micros.push(measure(&target, workload, args.seconds, own.path())?.micros());
            }
        }
        // Of each round its own ratio, so that a slow minute counts for neither side.
        let ratio = |kind: usize| {
            let mut ratios: Vec<f64> = micros[kind].iter().zip(&micros[0]).map(|(own, nginx)| own / nginx).collect();
            median(&mut ratios)
        };
        let [plus, haproxy, ours] = [1, 2, 3].map(ratio);
        let nginx = median(&mut micros[0].clone());
        print(&format!(
            "{:<30} {nginx:>9.1} |                 {plus:>8.2} {haproxy:>8.2} {ours:>8.2}\n",
            workload.name()
        ));
    }
    Ok(())
}

fn print(text: &str) {
    // A reader that has gone wants nothing.
    drop(std::io::stdout().write_all(text.as_bytes()));
}

fn say(words: &str) {
    // Where stderr is closed, nobody wants to know.
    drop(writeln!(std::io::stderr(), "{words}"));
}
