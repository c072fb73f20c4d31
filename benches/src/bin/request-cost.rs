//! `request-cost`: the processor time of a request in bgproxy, nginx and `HAProxy`, in turns.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::cost::report::{HEAD, Row, picture};
use benches::cost::{Kind, Target, Workload, idle, measure, median};
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
    /// Measure idle connections too, which takes two minutes
    #[arg(long)]
    idle: bool,
    /// Draw what was found
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
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
    print(HEAD);
    let mut rows = Vec::new();
    for workload in Workload::ALL.into_iter().filter(|workload| workload.name().contains(&args.only)) {
        let mut row = Row { workload, micros: Default::default() };
        for _ in 0..args.rounds {
            for (kind, micros) in Kind::ALL.into_iter().zip(&mut row.micros) {
                let own = folder()?;
                let target = Target::start(kind, workload.setup(), &ours, own.path(), application.address()).await?;
                micros.push(measure(&target, workload, args.seconds, own.path())?.micros());
            }
        }
        print(&row.line());
        rows.push(row);
    }
    if let [Some(one), two, many] =
        [Workload::Small(64), Workload::TwoWorkers, Workload::ManyServices].map(|workload| ours_in(&rows, workload))
    {
        let beside =
            |other: Option<f64>| other.map_or("not measured".to_owned(), |other| format!("{:.2}", other / one));
        print(&format!("\nbgproxy beside itself: two workers {}, 10,000 services {}\n", beside(two), beside(many)));
    }
    if args.idle {
        print("\nidle connections, 10 s after their last request; what is given back 10 s after they went\n");
        for kind in [Kind::Nginx, Kind::Haproxy, Kind::Bluegreen] {
            let own = folder()?;
            let setup = Workload::Small(64).setup();
            let target = Target::start(kind, setup, &ours, own.path(), application.address()).await?;
            let found = idle::measure(&target).await?;
            let (name, back) = (kind.name(), found.given_back * 100.0);
            print(&format!("{name:<31}{:>9.0} bytes each, {back:.0} % given back\n", found.bytes));
        }
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, picture(&rows)).map_err(Error::io("write the picture"))?;
    }
    Ok(())
}

/// The microseconds of a request in bgproxy.
fn ours_in(rows: &[Row], workload: Workload) -> Option<f64> {
    let row = rows.iter().find(|row| row.workload == workload)?;
    Some(median(&mut row.micros[Kind::Bluegreen as usize].clone()))
}

fn print(text: &str) {
    // A reader that has gone wants nothing.
    drop(std::io::stdout().write_all(text.as_bytes()));
}

fn say(words: &str) {
    // Where stderr is closed, nobody wants to know.
    drop(writeln!(std::io::stderr(), "{words}"));
}
