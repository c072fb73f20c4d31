//! How many instructions of ours a request takes, counted by callgrind: the same on a busy machine as on a quiet one, so that a
//! change that costs a twentieth is seen.
//!
//! Two runs of one build differ in nothing but the number of requests; what lies between them is what those requests took. They
//! come one after the other, so that every wake-up serves one of them. What the kernel does for them is not in it.

mod baseline;
mod peers;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

pub use baseline::{Baseline, Verdict};

use self::peers::{Application, Visitor};
use crate::child::Child;
use crate::error::Error;

/// Requests of the shorter run, in which all is done that is done once.
const FEW: u32 = 200;
/// What the longer run has more.
const MORE: u32 = 1000;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A small answer on a kept connection.
    Small,
    /// The same, with a connection for each.
    Fresh,
    /// With a body of 16 KiB.
    Post,
    /// With an answer of 64 KiB.
    Large,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Small, Self::Fresh, Self::Post, Self::Large];

    /// Returns its name in the baseline.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Fresh => "fresh",
            Self::Post => "post",
            Self::Large => "large",
        }
    }
}

/// Returns how many instructions a request takes in the given build.
///
/// # Errors
/// Where valgrind is missing, or the proxy does not serve under it.
pub async fn count(kind: Kind, program: &Path) -> Result<u64, Error> {
    let few = run(kind, program, FEW).await?;
    let all = run(kind, program, FEW + MORE).await?;
    Ok(all.saturating_sub(few) / u64::from(MORE))
}

/// Serves so many requests and returns what the whole process took.
async fn run(kind: Kind, program: &Path, requests: u32) -> Result<u64, Error> {
    let folder = tempfile::tempdir().map_err(Error::io("make a folder"))?;
    let folder = folder.path();
    let application = Application::start(kind)?;
    let address = free()?;
    let config = folder.join("bgproxy.toml");
    // Probes come by the clock, and are no part of a request.
    let text = format!(
        "[services.bench]\nendpoints = [\"{}\"]\n[services.bench.health]\nenabled = false\n",
        application.address()
    );
    fs::write(&config, text).map_err(Error::io("write bgproxy.toml"))?;
    let counted = folder.join("counted");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", counted.display()));
    command.arg(program).args(["--workers", "1", "--listen", &address.to_string(), "--config"]).arg(config);
    command.arg("--state").arg(folder.join("state")).arg("--admin").arg(folder.join("admin.sock"));
    let mut child = Child::start(&mut command, "bgproxy under valgrind", folder)?;
    child.until(async || TcpStream::connect(address).is_ok()).await?;
    let mut visitor = Visitor::new(kind, address);
    for number in 0..requests {
        visitor.ask(number)?;
    }
    drop(visitor);
    drop(child);
    total(&counted)
}

/// Reads the sum out of what callgrind wrote at the end of the process.
fn total(counted: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(counted).map_err(Error::io("read what callgrind counted"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line.and_then(|sum| sum.split(' ').next()?.parse().ok())
        .ok_or_else(|| Error::Load("callgrind wrote no sum: the proxy did not end as it was told to".to_owned()))
}

fn free() -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map_err(Error::io("find a port"))
}
