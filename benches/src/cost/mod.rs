//! What a request costs a proxy: the processor time that it takes, beside nginx and `HAProxy` in the same round.
//!
//! The proxy has one core, the load and the application the other; with two workers it shares both with them. Time is the proxy's own, user and system, of all its
//! threads: it holds within a few per cent where throughput swings.

mod contender;
pub mod idle;
pub mod report;
mod workload;

use std::fs;
use std::path::Path;
use std::time::Duration;

pub use contender::{Kind, Target};
pub use workload::{Goal, Setup, Workload};

use crate::error::Error;

/// The core of the proxy, and that of everybody else.
pub const CORES: (usize, usize) = (0, 1);

/// What one proxy took for one workload.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Requests that were answered.
    pub requests: u64,
    /// The processor time that the proxy took meanwhile.
    pub busy: Duration,
}

impl Cost {
    /// Returns the microseconds of one request.
    pub fn micros(self) -> f64 {
        self.busy.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }
}

/// Runs a workload against a proxy for so long and returns what it cost.
///
/// # Errors
/// Where the load fails, or an answer of it is not the right one.
pub fn measure(target: &Target, workload: Workload, seconds: u32, folder: &Path) -> Result<Cost, Error> {
    // What the first requests do once is not what a request costs.
    let address = match workload {
        Workload::Http2 => target.over_http2(),
        Workload::Tls | Workload::Handshakes => target.over_tls(),
        _ => target.address(),
    };
    workload.run(address, 1, folder)?;
    let before = target.busy()?;
    let requests = workload.run(address, seconds, folder)?;
    Ok(Cost { requests, busy: target.busy()?.saturating_sub(before) })
}

/// Returns the processor time of all threads of a process, by the kernel's own reckoning in nanoseconds.
fn busy(process: u32) -> Result<Duration, Error> {
    let failed = || Error::io(format!("read the time of process {process}"));
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).map_err(failed())? {
        let path = thread.map_err(failed())?.path().join("schedstat");
        let text = fs::read_to_string(path).map_err(failed())?;
        nanos += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Returns the bytes that a process has in memory.
fn resident(process: u32) -> Result<u64, Error> {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.map_err(Error::io(format!("read the memory of process {process}")))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::Load(format!("process {process} has no VmRSS")))
}

/// Returns the middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
