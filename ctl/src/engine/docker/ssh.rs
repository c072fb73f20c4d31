//! The way to an engine on another host: the system's own `ssh`, and `docker system dial-stdio` at its other end.
//!
//! Configuration, agents, jump hosts and hardware keys work because it is the user's ssh. All connections of a run, and of the
//! runs of the next minute, go through one that is kept open.

use std::fmt;
use std::fs::DirBuilder;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use config::paths;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Words of ssh beyond this are not kept.
const WORDS: usize = 4096;
/// What ssh said last is in its pipe when it has ended; a connection that it keeps open may hold that pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long ssh may take to connect, in its own words.
const CONNECT: &str = "ConnectTimeout=10";
/// How long the shared connection outlives the last use of it.
const PERSIST: &str = "ControlPersist=60";

/// Whom to call: `[user@]host[:port][/socket]`, as behind `ssh://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The engine's socket there, where it is not the usual one.
    socket: Option<String>,
}

impl Destination {
    /// Reads one.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (place, socket) = match text.split_once('/') {
            Some((place, path)) if !path.is_empty() => (place, Some(format!("/{path}"))),
            Some((place, _)) => (place, None),
            None => (text, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, place),
        };
        // The colons of an address of IPv6 are none of a port.
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(str::parse).transpose().map_err(|_| "its port is not a number".to_owned())?;
        // ssh would take a leading dash for an option.
        let is_name = |word: &str| !word.is_empty() && !word.starts_with('-') && !word.contains(char::is_whitespace);
        if !is_name(host) || !user.as_deref().is_none_or(is_name) {
            return Err("write an ssh name, user@host, or a URL with ssh://, unix:// or tcp://".to_owned());
        }
        Ok(Self { user, host: host.to_owned(), port, socket })
    }

    /// Returns the host alone.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Starts ssh; whether it arrives is seen by the first read.
    ///
    /// # Errors
    /// Where there is no ssh on this machine.
    pub(super) fn dial(&self) -> io::Result<SshStream> {
        let mut command = Command::new("ssh");
        command.args(["-T", "-o", CONNECT]);
        if let Some(folder) = control_folder() {
            let path = format!("ControlPath={}/%C", folder.display());
            command.args(["-o", "ControlMaster=auto", "-o", &path, "-o", PERSIST]);
        }
        if !io::stderr().is_terminal() {
            // Nobody is there to be asked.
            command.args(["-o", "BatchMode=yes"]);
        }
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &self.user {
            command.args(["-l", user]);
        }
        command.args(["--", &self.host, "docker"]);
        if let Some(socket) = &self.socket {
            command.args(["--host", &format!("unix://{}", quoted(socket))]);
        }
        command.args(["system", "dial-stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(input), Some(output), Some(words)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("ssh has no pipes"));
        };
        Ok(SshStream { input, output, ending: Ending::NotYet(Some((child, Words::keep(words)))), has_answered: false })
    }

    /// Adds what may help to what ssh said.
    pub(super) fn explain(&self, words: &str) -> String {
        let host = &self.host;
        let said = |text: &str| words.contains(text);
        let hint = if said("Host key verification failed") || said("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            format!(
                "its key is not the one that this machine knows: run `ssh {self}` once and compare the fingerprint; in CI put \
                 the line of `ssh-keyscan {host}` that you have checked into ~/.ssh/known_hosts"
            )
        } else if said("Permission denied (") {
            format!("it takes none of your keys: `ssh-copy-id {self}`, or `ssh-add` the right one")
        } else if said("Could not resolve hostname") {
            "is the name spelt as in ~/.ssh/config or in DNS?".to_owned()
        } else if said("command not found") || said("docker: not found") {
            format!("Docker is missing there, or not in the PATH of `ssh {self} docker version`")
        } else if said("permission denied while trying to connect to the Docker daemon") {
            format!("the user may not use Docker there: `sudo usermod -aG docker USER` on {host}")
        } else if said("Cannot connect to the Docker daemon") {
            format!("Docker does not run there: `ssh {self} systemctl status docker`")
        } else {
            format!("does `ssh {self} docker version` work?")
        };
        format!("reach docker on {self} by ssh: {}\nhint: {hint}", words.trim().replace('\n', "; "))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Quotes a word for the shell at the other end.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Returns the folder of the shared connections' sockets; `None` where it would not be ours alone.
fn control_folder() -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let folder = match paths::variable("XDG_RUNTIME_DIR") {
        Some(runtime) => PathBuf::from(runtime).join("bgctl"),
        None => PathBuf::from(format!("/tmp/bgctl-{uid}")),
    };
    // It may be there already.
    let _made = DirBuilder::new().mode(0o700).create(&folder);
    let about = std::fs::symlink_metadata(&folder).ok()?;
    (about.is_dir() && about.uid() == uid && about.mode() & 0o077 == 0).then_some(folder)
}

/// What ssh and the program at its other end write on standard error.
struct Words {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Words {
    fn keep(mut from: ChildStderr) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                let room = WORDS.saturating_sub(all.len());
                all.extend(buffer[..count].iter().take(room));
            }
        });
        Self { kept, reader }
    }
}

/// Bytes to and from an engine through an ssh of its own; an end before the first byte is an error in ssh's words.
pub(super) struct SshStream {
    input: ChildStdin,
    output: ChildStdout,
    ending: Ending,
    has_answered: bool,
}

enum Ending {
    NotYet(Option<(Child, Words)>),
    Waiting(Pin<Box<dyn Future<Output = String> + Send>>),
}

async fn last_words((mut child, words): (Child, Words)) -> String {
    let status = child.wait().await;
    let Words { kept, mut reader } = words;
    let _held = tokio::time::timeout(LAST_WORDS, &mut reader).await;
    reader.abort();
    let text = String::from_utf8_lossy(&kept.lock().unwrap_or_else(PoisonError::into_inner)).trim().to_owned();
    match (text.is_empty(), status) {
        (false, _) => text,
        (true, Ok(status)) => format!("ssh ended without a word ({status})"),
        (true, Err(error)) => error.to_string(),
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Ending::Waiting(ending) = &mut self.ending {
            return Poll::Ready(Err(io::Error::other(ready!(ending.as_mut().poll(cx)))));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.has_answered = true;
            return Poll::Ready(Ok(()));
        }
        let Ending::NotYet(child) = &mut self.ending else { return Poll::Ready(Ok(())) };
        match child.take().filter(|_| !self.has_answered) {
            Some(child) => {
                self.ending = Ending::Waiting(Box::pin(last_words(child)));
                self.poll_read(cx, buf)
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.input).poll_write(cx, bytes)) {
            // Why it has gone is said by the next read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.has_answered => {
                Poll::Ready(Ok(bytes.len()))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_read_as_ssh_reads_it_and_never_as_an_option() {
        let read = |text: &str| Destination::parse(text).unwrap();
        let whole = read("me@shop.example:2222/run/user/1000/docker.sock");
        assert_eq!((whole.user.as_deref(), whole.host.as_str(), whole.port), (Some("me"), "shop.example", Some(2222)));
        assert_eq!(whole.socket.as_deref(), Some("/run/user/1000/docker.sock"));
        assert_eq!(whole.to_string(), "me@shop.example:2222");
        assert_eq!((read("[2001:db8::1]:22").host.as_str(), read("shop/").socket), ("2001:db8::1", None));
        for text in ["", "-oProxyCommand=touch", "-l@shop", "@shop", "a b", "shop:ssh"] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_ssh_says_is_passed_on_with_what_helps() {
        let shop = Destination::parse("shop").unwrap();
        let cases = [
            ("Host key verification failed.", "fingerprint"),
            ("me@shop: Permission denied (publickey).", "ssh-copy-id"),
            ("ssh: Could not resolve hostname shop: Name or service not known", "spelt"),
            ("bash: line 1: docker: command not found", "PATH"),
            ("something else", "docker version"),
        ];
        for (words, hint) in cases {
            let text = shop.explain(words);
            assert!(text.contains(words) && text.split("hint: ").nth(1).unwrap().contains(hint), "{text}");
        }
    }
}
