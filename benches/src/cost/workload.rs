//! What is asked of a proxy, and by which program.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::CORES;
use crate::error::Error;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Small answers on so many kept connections.
    Small(u32),
    /// A connection for each request.
    Fresh,
    /// Bodies of 16 KiB.
    Post,
    /// Answers of so many KiB.
    Answer(u32),
    /// Small answers over HTTP/2, 8 connections of 16 streams.
    Http2,
    /// Small answers of a proxy with two workers.
    TwoWorkers,
    /// Small answers over TLS, on 64 kept connections.
    Tls,
    /// A connection over TLS, with a whole handshake, for each request.
    Handshakes,
    /// Small answers on 64 kept connections, a line in the access log for each.
    Logged,
    /// Small answers on 64 kept connections, of one of ten thousand services.
    ManyServices,
}

/// What a proxy is set up with for a kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Worker threads or processes.
    pub workers: usize,
    /// It listens for TLS too.
    pub tls: bool,
    /// It writes the combined log into a file.
    pub logged: bool,
    /// How many services it has, each with a domain of its own.
    pub services: usize,
}

/// What we promise of our own share: ours by the better nginx.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// More than this is a defect.
    pub gate: f64,
    /// What is wanted.
    pub aim: f64,
}

/// The service that is asked for where there are many.
pub(super) const ASKED: &str = "s5000.test";

impl Workload {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Small(64),
        Self::Small(256),
        Self::Fresh,
        Self::Post,
        Self::Answer(64),
        Self::Answer(1024),
        Self::Answer(10 * 1024),
        Self::Http2,
        Self::Tls,
        Self::Handshakes,
        Self::Logged,
        Self::TwoWorkers,
        Self::ManyServices,
    ];

    /// Returns its name in the table.
    pub fn name(self) -> String {
        match self {
            Self::Small(connections) => format!("small answers, {connections} keep-alive"),
            Self::Fresh => "one connection a request".to_owned(),
            Self::Post => "POST 16 KiB".to_owned(),
            Self::Answer(kib) if kib >= 1024 => format!("{} MiB answers", kib / 1024),
            Self::Answer(kib) => format!("{kib} KiB answers"),
            Self::Http2 => "h2c in front (8 x 16 streams)".to_owned(),
            Self::TwoWorkers => "small answers, 2 workers".to_owned(),
            Self::Tls => "TLS 1.3, small answers".to_owned(),
            Self::Handshakes => "TLS 1.3, a handshake a request".to_owned(),
            Self::Logged => "small answers, combined log".to_owned(),
            Self::ManyServices => "small answers, 10,000 services".to_owned(),
        }
    }

    /// Returns what a proxy is set up with for it.
    #[must_use]
    pub fn setup(self) -> Setup {
        Setup {
            workers: if self == Self::TwoWorkers { 2 } else { 1 },
            tls: matches!(self, Self::Tls | Self::Handshakes),
            logged: self == Self::Logged,
            services: if self == Self::ManyServices { 10_000 } else { 1 },
        }
    }

    /// Returns what is promised for it, where something is.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        let (gate, aim) = match self {
            Self::Small(64) | Self::Logged => (0.93, 0.85),
            Self::Small(_) => (0.92, 0.80),
            Self::Fresh => (1.05, 0.95),
            Self::Post => (0.80, 0.70),
            Self::Answer(64) => (1.05, 0.90),
            Self::Answer(1024) => (0.55, 0.45),
            Self::Answer(_) => (0.75, 0.60),
            Self::Http2 => (0.60, 0.50),
            Self::Tls => (1.0, 0.9),
            Self::Handshakes => (1.1, 1.0),
            // What is promised of these is beside our own first row.
            Self::TwoWorkers | Self::ManyServices => return None,
        };
        Some(Goal { gate, aim })
    }

    /// Runs it for so many seconds and returns how many requests were answered with 200.
    pub(super) fn run(self, proxy: SocketAddr, seconds: u32, folder: &Path) -> Result<u64, Error> {
        let scheme = if self.setup().tls { "https" } else { "http" };
        let url = format!("{scheme}://{proxy}{}", self.path());
        let mut command = Command::new("taskset");
        command.args(["-c", &CORES.1.to_string()]);
        match self {
            Self::Http2 => {
                command.args(["h2load", "-c", "8", "-m", "16", "-t", "1", "-D", &seconds.to_string(), &url]);
            }
            Self::Small(connections) => wrk(&mut command, connections, seconds, &url),
            Self::TwoWorkers | Self::Tls | Self::Logged => wrk(&mut command, 64, seconds, &url),
            Self::ManyServices => {
                wrk(&mut command, 64, seconds, &url);
                command.args(["-H", &format!("Host: {ASKED}")]);
            }
            Self::Fresh | Self::Handshakes => {
                wrk(&mut command, 16, seconds, &url);
                command.args(["-H", "Connection: close"]);
            }
            Self::Answer(_) => wrk(&mut command, 16, seconds, &url),
            Self::Post => {
                let script = folder.join("post.lua");
                let text = "wrk.method = 'POST'\nwrk.body = string.rep('x', 16384)\n";
                fs::write(&script, text).map_err(Error::io("write the script of wrk"))?;
                wrk(&mut command, 64, seconds, &url);
                command.arg("-s").arg(script);
            }
        }
        let output = command.output().map_err(Error::io("run the load (wrk, h2load)"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let requests = if self == Self::Http2 { h2load_requests(&said) } else { wrk_requests(&said) };
        requests.ok_or_else(|| Error::Load(format!("{said}{}", String::from_utf8_lossy(&output.stderr))))
    }

    /// What the application answers it at.
    fn path(self) -> String {
        match self {
            Self::Answer(kib) => format!("/{kib}k"),
            _ => "/small".to_owned(),
        }
    }
}

fn wrk(command: &mut Command, connections: u32, seconds: u32, url: &str) {
    command.args(["wrk", "-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), url]);
}

/// `123 requests in 4.00s`; none where something else than 200 came, or an error. A connection that its server closes after
/// each answer is one to wrk.
fn wrk_requests(said: &str) -> Option<u64> {
    if said.contains("Non-2xx") || said.contains("timeout") && !said.contains("timeout 0") {
        return None;
    }
    let line = said.lines().find(|line| line.contains(" requests in "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, ...`
fn h2load_requests(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.starts_with("requests:"))?;
    let count = |word: &str| -> Option<u64> {
        let part = line.split(',').find(|part| part.trim_end().ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    (count("failed")? == 0).then(|| count("succeeded")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loads_say_is_read_and_an_error_is_none() {
        let good = "Running 1s test\n  Latency 1ms\n  81234 requests in 4.01s, 9.90MB read\nRequests/sec: 20000\n";
        assert_eq!(wrk_requests(good), Some(81234));
        assert_eq!(wrk_requests(&format!("{good}  Non-2xx or 3xx responses: 5\n")), None);
        assert_eq!(wrk_requests("unable to connect"), None);
        let good = "requests: 90 total, 95 started, 90 done, 90 succeeded, 0 failed, 0 errored, 0 timeout\n";
        assert_eq!(h2load_requests(good), Some(90));
        assert_eq!(h2load_requests(&good.replace("0 failed", "3 failed")), None);
    }
}
