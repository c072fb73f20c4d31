//! What `doctor` finds: the engine, its settings, and everything of ours on it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bollard::models::SystemInfo;
use bollard::query_parameters::DownloadFromContainerOptions;
use config::admin::PROTOCOL;
use config::admin::response::Version;
use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::container::describe;
use super::program_image::UID;
use super::refusal::refusal;
use super::{Docker, labels, ports};
use crate::engine::EngineError;

/// Two clocks further apart than this make times in logs and histories hard to compare.
const CLOCK_SKEW: Duration = Duration::from_secs(2);
/// Less free space than this is too little for one more image of usual size.
const LOW_DISK: u64 = 2 << 30;
/// With less than this, saving a few kilobytes of state may fail.
const FULL_DISK: u64 = 100 << 20;

/// One line of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at, as `live-restore`.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// In words.
    pub words: String,
    /// The line that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How something is; ordered, so that the worst of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Someone should know.
    Warn,
    /// It does not work.
    Bad,
}

impl Finding {
    /// Returns a finding that needs nothing.
    pub fn ok(what: &'static str, words: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Ok, words: words.into(), mend: None }
    }

    /// Returns a finding that someone should know of.
    pub fn warn(what: &'static str, words: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warn, words: words.into(), mend: None }
    }

    /// Returns a finding of something that does not work.
    pub fn bad(what: &'static str, words: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Bad, words: words.into(), mend: None }
    }

    /// Adds the line that mends it.
    #[must_use]
    pub fn mend(mut self, line: impl Into<String>) -> Self {
        self.mend = Some(line.into());
        self
    }
}

impl fmt::Display for Finding {
    /// Writes it for people: the verdict first, and the line that mends it below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Bad => "BAD",
        };
        write!(f, "{verdict:<5} {:<13} {}", self.what, self.words)?;
        match &self.mend {
            Some(line) => write!(f, "\n{:20}-> {line}", ""),
            None => Ok(()),
        }
    }
}

impl Docker {
    pub(super) async fn look_around(&self) -> Vec<Finding> {
        let info = match self.handles.call.info().await {
            Ok(info) => info,
            Err(error) => {
                let words = refusal("ask the engine about itself", error).to_string();
                return vec![Finding::bad("engine", words).mend("systemctl status docker")];
            }
        };
        let version = info.server_version.as_deref().unwrap_or("of unknown version");
        let engine = format!("{}: {} {version}, spoken to in API {}", self.target(), self.kind(), self.api());
        let mut findings =
            vec![Finding::ok("engine", engine), self.restarts(&info), clock(&info), disk(&info, self.is_here())];
        findings.push(self.look_at_proxy().await);
        for port in self.ports_of_interest().await {
            findings.push(self.look_at_port(port).await);
        }
        findings.extend(self.look_at_state().await);
        findings.push(versions(self.proxy_version().await.ok().flatten().as_ref(), &self.names.flag()));
        findings
    }

    async fn look_at_proxy(&self) -> Finding {
        const WHAT: &str = "proxy";
        let (name, flag) = (self.names.proxy(), self.names.flag());
        let container = match self.inspect(&name).await {
            Ok(Some(container)) => container,
            Ok(None) => {
                return Finding::warn(WHAT, format!("there is no {name} yet")).mend(format!("bgctl up{flag}"));
            }
            Err(error) => return Finding::bad(WHAT, error.to_string()),
        };
        let own_labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        if !labels::is_ours(own_labels, &self.names.network()) {
            let words = format!("{name} is {}, which bluegreen did not make", describe(&container));
            return Finding::bad(WHAT, words).mend(format!("docker rm -f {name} && bgctl up{flag}"));
        }
        match self.proxy_version().await {
            Ok(Some(_)) => Finding::ok(WHAT, format!("{name} runs and answers")),
            Ok(None) => {
                // Why the engine did not start it, as after a reboot; empty where it was stopped by someone.
                let error = container.state.and_then(|state| state.error).filter(|error| !error.is_empty());
                let words = match error {
                    Some(error) => format!("{name} does not run: {error}"),
                    None => format!("{name} gives no answer on its socket"),
                };
                Finding::bad(WHAT, words).mend(format!("bgctl up{flag}"))
            }
            Err(error) => Finding::bad(WHAT, error.to_string()),
        }
    }

    /// Returns the ports that the holder publishes, else those that `up` would.
    async fn ports_of_interest(&self) -> Vec<u16> {
        let holder = self.inspect(&self.names.holder()).await.ok().flatten();
        let published = ports::read(holder.and_then(|holder| holder.host_config?.port_bindings).as_ref());
        if published.is_empty() { vec![80, 443] } else { published.iter().map(|port| port.host).collect() }
    }

    async fn look_at_port(&self, port: u16) -> Finding {
        const WHAT: &str = "port";
        let free_it = format!("ss -ltnp 'sport = :{port}'");
        match self.publishers(port).await {
            Ok(names) if names.iter().any(|name| name.starts_with(&format!("`{}`", self.names.holder()))) => {
                Finding::ok(WHAT, format!("{port} is published by {}", self.names.holder()))
            }
            Ok(names) if !names.is_empty() => {
                Finding::warn(WHAT, format!("{port} is taken by the container {}", names.join(", ")))
            }
            // What listens on this machine says nothing of that one.
            Ok(_) if !self.is_here() => Finding::ok(
                WHAT,
                format!("{port} is published by no container; programs of another host can't be seen from here"),
            ),
            Ok(_) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                match timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
                    Ok(Ok(_)) => Finding::warn(WHAT, format!("{port} is taken by a program on the host")).mend(free_it),
                    Ok(Err(_)) | Err(_) => Finding::ok(WHAT, format!("{port} is free")),
                }
            }
            Err(error) => Finding::bad(WHAT, error.to_string()),
        }
    }

    /// Looks at the owner of the state's folder, as the proxy sees it.
    async fn look_at_state(&self) -> Option<Finding> {
        const WHAT: &str = "state";
        let volume = self.handles.call.inspect_volume(&self.names.volume()).await.ok()?;
        let options = DownloadFromContainerOptions { path: config::paths::STATE_DIR.to_owned() };
        let mut archive = std::pin::pin!(self.handles.call.download_from_container(&self.names.proxy(), Some(options)));
        let mut head = Vec::new();
        while head.len() < 512 {
            head.extend_from_slice(&archive.next().await?.ok()?);
        }
        let header: [u8; 512] = head.get(..512)?.try_into().ok()?;
        let owner = tar::Header::from_byte_slice(&header).uid().ok()?;
        Some(if owner == UID {
            Finding::ok(WHAT, format!("the volume {} belongs to the proxy's user", self.names.volume()))
        } else {
            let words = format!("the volume {} belongs to uid {owner}, and the proxy is {UID}", self.names.volume());
            Finding::bad(WHAT, words).mend(format!("sudo chown -R {UID}:{UID} {}", volume.mountpoint))
        })
    }
}

impl Docker {
    /// Returns what someone who runs a site on this engine should know at once, a sentence each.
    pub(super) async fn host_warnings(&self) -> Result<Vec<String>, EngineError> {
        let info = self.handles.call.info().await.map_err(|error| refusal("ask the engine about itself", error))?;
        let finding = self.restarts(&info);
        let is_bad = finding.verdict != Verdict::Ok;
        Ok(is_bad.then(|| format!("{} is {}", finding.what, finding.words)).into_iter().collect())
    }

    /// Returns what becomes of containers while the engine restarts. Podman has no daemon that they would end with.
    fn restarts(&self, info: &SystemInfo) -> Finding {
        if self.handles.is_podman {
            return Finding::ok(
                "restart",
                "Podman has no daemon: `systemctl is-enabled podman-restart` tells whether a reboot starts them again",
            );
        }
        live_restore(info)
    }

    fn kind(&self) -> &'static str {
        if self.handles.is_podman { "Podman" } else { "Docker" }
    }
}

fn live_restore(info: &SystemInfo) -> Finding {
    const WHAT: &str = "live-restore";
    if info.live_restore_enabled.unwrap_or(false) {
        return Finding::ok(WHAT, "on: containers go on while the Docker daemon restarts");
    }
    Finding::warn(
        WHAT,
        "off: when the Docker daemon restarts or is upgraded, every container stops with it, the site too",
    )
    .mend("add \"live-restore\": true to /etc/docker/daemon.json, then systemctl reload docker")
}

fn clock(info: &SystemInfo) -> Finding {
    const WHAT: &str = "clock";
    let Some(theirs) = info.system_time.as_deref().and_then(|time| humantime::parse_rfc3339(time).ok()) else {
        return Finding::warn(WHAT, "the engine does not tell its time");
    };
    let now = SystemTime::now();
    let apart = now.duration_since(theirs).unwrap_or_else(|ahead| ahead.duration());
    if apart <= CLOCK_SKEW {
        return Finding::ok(WHAT, "the engine's clock agrees with this one");
    }
    Finding::warn(WHAT, format!("the engine's clock and this one are {} s apart", apart.as_secs()))
        .mend("timedatectl set-ntp true")
}

fn disk(info: &SystemInfo, is_here: bool) -> Finding {
    const WHAT: &str = "disk";
    let folder = info.docker_root_dir.as_deref().unwrap_or("/var/lib/docker");
    if !is_here {
        return Finding::ok(
            WHAT,
            format!("{folder} is on another host, and was not looked at: `df -h {folder}` there"),
        );
    }
    let Ok(space) = rustix::fs::statvfs(Path::new(folder)) else {
        return Finding::warn(WHAT, format!("the free space of {folder} can't be read from here"));
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    disk_finding(folder, free)
}

fn disk_finding(folder: &str, free: u64) -> Finding {
    let words = format!("{} MiB free in {folder}", free >> 20);
    match free {
        free if free < FULL_DISK => Finding::bad("disk", words).mend("docker system prune"),
        free if free < LOW_DISK => Finding::warn("disk", words).mend("docker system prune"),
        _ => Finding::ok("disk", words),
    }
}

fn versions(proxy: Option<&Version>, flag: &str) -> Finding {
    const WHAT: &str = "versions";
    let ours = env!("CARGO_PKG_VERSION");
    let Some(proxy) = proxy else { return Finding::ok(WHAT, format!("bgctl {ours}; no proxy answers")) };
    let words = format!("bgctl {ours}, {} {} (build {:.12})", proxy.program, proxy.version, proxy.build);
    if proxy.protocol != PROTOCOL {
        let words = format!("{words} speaks protocol {}, and this bgctl {PROTOCOL}", proxy.protocol);
        return Finding::bad(WHAT, words).mend(format!("bgctl up{flag} --upgrade"));
    }
    if proxy.version != ours {
        return Finding::warn(WHAT, words).mend(format!("bgctl up{flag} --upgrade"));
    }
    Finding::ok(WHAT, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_verdict_first_and_what_mends_it_below() {
        let finding = Finding::warn("live-restore", "off").mend("turn it on");
        assert_eq!(finding.to_string(), "warn  live-restore  off\n                    -> turn it on");
    }

    #[test]
    fn little_space_is_a_warning_and_none_is_bad() {
        assert_eq!(disk_finding("/x", 10 << 30).verdict, Verdict::Ok);
        assert_eq!(disk_finding("/x", 1 << 30).verdict, Verdict::Warn);
        let full = disk_finding("/x", 1 << 20);
        assert!(full.verdict == Verdict::Bad && full.mend.is_some());
    }

    #[test]
    fn live_restore_off_and_a_wrong_clock_are_warnings_with_the_line_that_mends() {
        let off = live_restore(&SystemInfo::default());
        assert!(off.verdict == Verdict::Warn && off.mend.unwrap().contains("live-restore"));
        let on = SystemInfo { live_restore_enabled: Some(true), ..SystemInfo::default() };
        assert_eq!(live_restore(&on).verdict, Verdict::Ok);
        let past = SystemInfo { system_time: Some("2020-01-01T00:00:00Z".to_owned()), ..SystemInfo::default() };
        assert_eq!(clock(&past).verdict, Verdict::Warn);
    }

    #[test]
    fn a_proxy_of_another_protocol_does_not_work() {
        let mut proxy = Version {
            program: "bgproxy".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            build: "ab".to_owned(),
            pid: 1,
            hands_over: true,
        };
        assert_eq!(versions(Some(&proxy), "").verdict, Verdict::Ok);
        proxy.protocol = PROTOCOL + 1;
        assert_eq!(versions(Some(&proxy), " --gateway x").mend.unwrap(), "bgctl up --gateway x --upgrade");
        assert_eq!(versions(None, "").verdict, Verdict::Ok);
    }
}
