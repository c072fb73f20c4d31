//! The gateway: a `bgproxy` beside the slots, started so that it outlives us, and found again by its record and its socket.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::exit::reap;
use super::folders::at;
use super::identity::Identity;
use super::successor::listeners;
use super::{Process, log, program, record};
use crate::engine::wanted::Wanted;
use crate::engine::{AdminStream, EngineError, Gateway, GatewaySpec, IsWanted, LogRange};

/// How long a new proxy may take until its admin socket answers: it restores its state first.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proxy that was told to end may drain, and a little more, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(35);
/// A killed proxy needs no longer to be gone.
const LAST_MOMENTS: Duration = Duration::from_secs(1);
/// How long an instance may take to end when all is taken down.
const INSTANCE_GRACE: Duration = crate::engine::STOP_GRACE;
/// The pauses between two looks at a socket that is not there yet.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How much of a failed proxy's log is shown.
const LAST_LINES: usize = 10;

impl Process {
    pub(super) async fn bring_up(&self, spec: &GatewaySpec) -> Result<Gateway, EngineError> {
        if !spec.trusted_proxies.is_empty() {
            return Err(EngineError::Usage(
                "--trusted-proxy: not there yet\nhint: until then every X-Forwarded header of a client is replaced by the truth"
                    .to_owned(),
            ));
        }
        if !spec.volumes.is_empty() {
            return Err(EngineError::Usage(
                "--volume: a proxy without a container sees every folder of its host already".to_owned(),
            ));
        }
        let mut listen = Vec::new();
        for publish in &spec.publish {
            let flag = if is_tls(publish) { "--listen-tls" } else { "--listen" };
            listen.extend([flag.to_owned(), listen_address(publish)?]);
        }
        self.folders.make()?;
        let _lock = self.lock()?;
        self.find_proxy_again().await?;
        if let Some(stream) = self.connect_admin().await? {
            match listeners(stream).await {
                Ok(addresses) if spec.upgrade => {
                    let binary = find_proxy(spec.proxy_binary.as_deref())?;
                    let done = vec![self.upgrade_proxy(&binary).await?];
                    return Ok(Gateway { changed: true, done, warnings: Vec::new(), addresses });
                }
                Ok(addresses) => {
                    return Ok(Gateway { changed: false, done: Vec::new(), warnings: Vec::new(), addresses });
                }
                Err(error) if !self.has_ended().await? => return Err(error),
                // It was killed, and had not yet let go of its socket.
                Err(_) => {}
            }
        }
        self.refuse_deaf_proxy().await?;
        let binary = find_proxy(spec.proxy_binary.as_deref())?;
        let addresses = self.start_proxy(&binary, &listen).await?;
        let done = vec![format!("started {} (log: {})", binary.display(), self.folders.proxy_log().display())];
        Ok(Gateway { changed: true, done, warnings: Vec::new(), addresses })
    }

    pub(super) async fn tear_down(&self, volumes: bool) -> Result<Vec<String>, EngineError> {
        if !self.folders.state().is_dir() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let mut done = Vec::new();
        self.find_proxy_again().await?;
        // The proxy first: while it drains, the instances still answer.
        if let Some(proxy) = record::read::<Identity>(&self.folders.proxy_record())? {
            if proxy.is_alive() {
                proxy
                    .stop(STOP_TIMEOUT)
                    .await
                    .map_err(|error| EngineError::Refused(format!("stop the proxy: {error}")))?;
                done.push("stopped the proxy".to_owned());
            }
            record::remove(&self.folders.proxy_record())?;
        }
        for instance in self.list_instances(None)? {
            self.stop_instance(&instance, INSTANCE_GRACE).await?;
            self.remove_instance(&instance).await?;
            done.push(format!("removed {}", instance.name));
        }
        self.folders.remove(volumes)?;
        let state = self.folders.state().display();
        done.push(if volumes { format!("removed {state}") } else { format!("left the saved state in {state}") });
        Ok(done)
    }

    pub(super) async fn open_admin(&self) -> Result<Option<Box<dyn AdminStream>>, EngineError> {
        let stream = self.connect_admin().await?;
        Ok(stream.map(|stream| Box::new(stream) as Box<dyn AdminStream>))
    }

    pub(super) async fn read_proxy_log(
        &self,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let path = self.folders.proxy_log();
        let read = async {
            let mut reader = log::read(&path, range.tail, line).await?;
            if range.follow {
                reader.follow(&self.proxy_runs()?, line).await?;
            }
            reader.finish(line);
            Ok(())
        };
        self.had_proxy(&path, read.await)
    }

    /// Hands over the wanted lines of the file that is the proxy's standard output.
    pub(super) async fn read_access_log(
        &self,
        range: LogRange,
        is_wanted: IsWanted<'_>,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let path = self.folders.access_log();
        let mut wanted = Wanted::new(is_wanted, range.tail);
        let read = async {
            let mut reader = log::read(&path, None, &mut |text| wanted.take(text, line)).await?;
            wanted.release(line);
            if range.follow {
                reader.follow(&self.proxy_runs()?, &mut |text| wanted.take(text, line)).await?;
            }
            Ok(())
        };
        self.had_proxy(&path, read.await)
    }

    /// Returns what tells whether the proxy still runs.
    fn proxy_runs(&self) -> std::io::Result<impl Fn() -> bool + Send + Sync + use<>> {
        let proxy: Option<Identity> = record::read(&self.folders.proxy_record()).map_err(std::io::Error::other)?;
        Ok(move || proxy.as_ref().is_some_and(Identity::is_alive))
    }

    fn had_proxy(&self, path: &Path, read: std::io::Result<()>) -> Result<(), EngineError> {
        match read {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(EngineError::NoProxy(format!(
                "{} is not there: no proxy was started here since\nhint: `bgctl up --engine process` starts one",
                path.display()
            ))),
            Err(error) => Err(at(path, &error)),
        }
    }

    pub(in crate::engine) async fn listeners(&self) -> Result<Vec<String>, EngineError> {
        match self.connect_admin().await? {
            Some(stream) => listeners(stream).await,
            None => Err(EngineError::NoProxy("no proxy runs here".to_owned())),
        }
    }

    pub(super) async fn connect_admin(&self) -> Result<Option<UnixStream>, EngineError> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let socket = self.folders.socket();
        match UnixStream::connect(&socket).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Ok(None),
            Err(error) => Err(at(&socket, &error)),
        }
    }

    /// Tells whether the proxy of the record is gone; one that is about to end is given a moment.
    async fn has_ended(&self) -> Result<bool, EngineError> {
        let Some(proxy) = record::read::<Identity>(&self.folders.proxy_record())? else { return Ok(true) };
        let deadline = Instant::now() + LAST_MOMENTS;
        while proxy.is_alive() && Instant::now() < deadline {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        Ok(!proxy.is_alive())
    }

    /// A second proxy would only fail at the lock of the state folder; the pid helps more than that would.
    async fn refuse_deaf_proxy(&self) -> Result<(), EngineError> {
        if self.has_ended().await? {
            return Ok(());
        }
        match record::read::<Identity>(&self.folders.proxy_record())? {
            Some(proxy) if proxy.is_alive() => Err(EngineError::NoProxy(format!(
                "the proxy runs ({proxy}) but its admin socket {} does not answer\nhint: `bgctl down --engine process` ends it",
                self.folders.socket().display()
            ))),
            _ => Ok(()),
        }
    }

    async fn start_proxy(&self, binary: &Path, listen: &[String]) -> Result<Vec<String>, EngineError> {
        let log = self.folders.proxy_log();
        let mut command = Command::new(binary);
        command.args(listen);
        command.arg("--admin").arg(self.folders.socket()).arg("--state").arg(self.folders.proxy_state());
        command.current_dir("/");
        // What it says of itself goes to stderr, and what it says of requests to stdout.
        let requests = File::options().create(true).append(true).open(self.folders.access_log());
        let child = requests
            .and_then(|requests| program::detach(&mut command, &log)?.stdout(requests).spawn())
            .map_err(|error| EngineError::NoProxy(format!("start {}: {error}", binary.display())))?;
        let identity = Identity::of(child.id());
        let saved = identity.as_ref().map_or(Ok(()), |proxy| record::write(&self.folders.proxy_record(), proxy));
        let mut end = reap(child, identity.clone(), |_| ());
        let ready = async {
            saved?;
            tokio::select! {
                ready = self.wait_for_socket() => ready,
                code = end.wait_for(Option::is_some) => Err(EngineError::NoProxy(match code.ok().and_then(|code| *code) {
                    Some(code) => format!("{} ended at once, exit code {code}", binary.display()),
                    None => format!("{} ended at once", binary.display()),
                })),
            }
        };
        match ready.await {
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                if let Some(proxy) = identity {
                    proxy.kill();
                }
                record::remove(&self.folders.proxy_record())?;
                Err(self.with_last_words(error).await)
            }
        }
    }

    async fn wait_for_socket(&self) -> Result<Vec<String>, EngineError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(stream) = self.connect_admin().await? {
                let answer = tokio::time::timeout_at(deadline, listeners(stream)).await;
                return answer.unwrap_or_else(|_| Err(EngineError::NoProxy("its admin socket is silent".to_owned())));
            }
            if Instant::now() >= deadline {
                return Err(EngineError::NoProxy(format!(
                    "the proxy did not open {} within {} s",
                    self.folders.socket().display(),
                    START_TIMEOUT.as_secs()
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn with_last_words(&self, error: EngineError) -> EngineError {
        let mut words = error.to_string();
        let mut add = |line: &str| {
            words.push_str("\n  ");
            words.push_str(line);
        };
        if let Ok(reader) = log::read(&self.folders.proxy_log(), Some(LAST_LINES), &mut add).await {
            reader.finish(&mut add);
        }
        EngineError::NoProxy(words)
    }

    fn lock(&self) -> Result<File, EngineError> {
        let path = self.folders.lock();
        let open = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(file)
        };
        open().map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock => EngineError::NoProxy(
                "another bgctl is bringing this gateway up or down\nhint: try again when it is done".to_owned(),
            ),
            _ => at(&path, &error),
        })
    }
}

/// Tells whether it is the port of https that a `--publish` is for.
fn is_tls(publish: &str) -> bool {
    publish.rsplit(':').next() == Some("443")
}

/// Returns the address to listen on that a `--publish [IP:]PORT[:PORT]` means. There is no namespace between the two
/// ports here, so the second one only tells https, 443, from http; port 0 is any free one.
fn listen_address(publish: &str) -> Result<String, EngineError> {
    let wrong = || {
        EngineError::Usage(format!("--publish {publish}: [IP:]PORT:PORT is wanted, as in 8080:80 or 127.0.0.1:8080:80"))
    };
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let (front, last) = publish.rsplit_once(':').unwrap_or(("", publish));
    let address = match front {
        _ if !is_port(last) => return Err(wrong()),
        "" => format!("0.0.0.0:{last}"),
        port if is_port(port) => format!("0.0.0.0:{port}"),
        address => address.to_owned(),
    };
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(wrong()),
    }
}

/// Returns the proxy's program: the named one, else the one beside this program, else the one in PATH.
fn find_proxy(named: Option<&Path>) -> Result<PathBuf, EngineError> {
    let advice =
        "hint: `make static` makes one in target/release; then name it by --proxy-binary, or put it beside bgctl";
    if let Some(named) = named {
        let named = std::path::absolute(named).map_err(|error| at(named, &error))?;
        return match named.is_file() {
            true => Ok(named),
            false => Err(EngineError::NoProxy(format!("{}: there is no such program\n{advice}", named.display()))),
        };
    }
    let names = [format!("bgproxy-linux-{}", std::env::consts::ARCH), "bgproxy".to_owned()];
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let beside = beside.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let search = config::paths::variable("PATH");
    let found = beside.into_iter().find(|file| file.is_file());
    found.or_else(|| program::find("bgproxy", search.as_deref()).ok()).ok_or_else(|| {
        EngineError::NoProxy(format!("there is no bgproxy beside bgctl or in PATH to run as the proxy\n{advice}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_is_an_address_to_listen_on() {
        for (publish, listen) in [
            ("8080:80", "0.0.0.0:8080"),
            ("8080", "0.0.0.0:8080"),
            ("127.0.0.1:0:80", "127.0.0.1:0"),
            ("[::1]:8080:80", "[::1]:8080"),
        ] {
            assert_eq!(listen_address(publish).unwrap(), listen, "{publish}");
        }
        for wrong in ["", "http", "host:80:80", "1:2:3:4", "99999:80"] {
            assert!(matches!(listen_address(wrong), Err(EngineError::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_named_proxy_that_is_not_there_is_said_with_the_command_that_makes_it() {
        let Err(EngineError::NoProxy(words)) = find_proxy(Some(Path::new("/nowhere/bgproxy"))) else { panic!() };
        assert!(words.contains("/nowhere/bgproxy") && words.contains("make static"), "{words}");
    }
}
