//! A second host for a test: a real engine in a network namespace of its own, behind a real sshd, known to ssh as
//! `production-server`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::{Ended, Started, eventually};

use crate::docker_host::{free_port, skip};
use crate::programs::PROGRAMS;

/// The host; dropping it removes everything.
pub(crate) struct RemoteHost {
    folder: TempDir,
    namespace: String,
    link: String,
    address: Ipv4Addr,
    engine: Option<Child>,
    sshd: Option<Child>,
    ssh_port: u16,
}

/// Returns a host whose engine has a disk of its own of so many megabytes, or the machine's; `None`, with a word on why, where none
/// can be made.
pub(crate) async fn remote_host(test: &str, disk: Option<u32>) -> Option<RemoteHost> {
    if !rustix::process::getuid().is_root() {
        return skip(test, "only root can make another host");
    }
    for program in ["ip", "nsenter", "dockerd", "/usr/sbin/sshd", "ssh-keygen", "openssl"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
        if !found.status.success() {
            return skip(test, &format!("there is no {program} to make another host with"));
        }
    }
    let number = std::process::id();
    let mut host = RemoteHost {
        folder: tempfile::tempdir().unwrap(),
        namespace: format!("bg-test-{number}"),
        link: format!("bgt{number}"),
        address: Ipv4Addr::new(10, 213, u8::try_from(1 + number % 250).unwrap(), 2),
        engine: None,
        sshd: None,
        ssh_port: free_port(),
    };
    host.join_network();
    host.start_engine(disk).await;
    host.start_sshd().await;
    Some(host)
}

impl RemoteHost {
    /// Starts `bgctl` on this machine, with the ssh that knows the host.
    pub(crate) fn start(&self, words: &[&str]) -> Started {
        let mut command = self.command();
        command.args(["--json", "--yes"]).args(words);
        Started::spawn(command)
    }

    /// As [`RemoteHost::bgctl`], with more variables in its environment.
    pub(crate) async fn bgctl_with(&self, variables: &[(&str, &str)], words: &[&str]) -> Ended {
        let mut command = self.command();
        command.args(["--json", "--yes"]).args(words).envs(variables.iter().copied());
        Started::spawn(command).end().await
    }

    /// Returns the URL of its port that wants certificates.
    pub(crate) fn tls_url(&self) -> String {
        format!("tcp://{}:2376", self.address)
    }

    /// Returns its URL for an ssh that knows nothing of it, and what such a one must know: the line of `known_hosts`.
    pub(crate) fn ssh_url(&self) -> (String, String) {
        let known = fs::read_to_string(self.path("known_hosts")).unwrap();
        (format!("ssh://root@127.0.0.1:{}", self.ssh_port), known)
    }

    /// Makes a folder with an authority and what it signed: `ca.pem`, `cert.pem`, `key.pem`, and `server.pem` for the engine.
    pub(crate) fn certificates(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir(&folder).unwrap();
        let openssl = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let output = Command::new("openssl").args(&words).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem"));
        let purposes = [
            (
                "server.pem",
                "server-key.pem",
                format!("subjectAltName=IP:{}\nextendedKeyUsage=serverAuth\n", self.address),
            ),
            ("cert.pem", "key.pem", "extendedKeyUsage=clientAuth\n".to_owned()),
        ];
        for (certificate, own_key, purpose) in purposes {
            fs::write(folder.join("purpose"), purpose).unwrap();
            openssl(&format!("req {key} -subj /CN=somebody -keyout {own_key} -out request.pem"));
            let signs = "-CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile purpose";
            openssl(&format!("x509 -req -in request.pem {signs} -out {certificate}"));
        }
        folder
    }

    fn command(&self) -> tokio::process::Command {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.env("PATH", path).env("XDG_RUNTIME_DIR", self.folder.path()).env("XDG_CACHE_HOME", self.folder.path());
        command.env_remove("BG_GATEWAY").env_remove("BGCTL_HOST");
        command
    }

    /// Runs `bgctl` to its end, in words instead of JSON, and returns its data.
    pub(crate) async fn bgctl_plain(&self, words: &[&str]) -> String {
        let output = self.command().args(words).stdin(Stdio::null()).output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `bgctl` to its end.
    pub(crate) async fn bgctl(&self, words: &[&str]) -> Ended {
        self.start(words).end().await
    }

    /// Returns where a port that the host publishes is reached.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// Runs docker's own command on the host, past bgctl.
    pub(crate) fn docker(&self, words: &[&str]) -> Result<String, String> {
        crate::docker_host::docker(&[&["--host", &self.socket()], words].concat())
    }

    /// Ends every connection of sshd, as a network that fails would; returns how many.
    pub(crate) fn cut_connections(&self) -> usize {
        self.sshd.as_ref().map_or(0, cut_connections)
    }

    /// Puts another line into ssh's configuration of the host, before those that are there.
    pub(crate) fn configure_ssh(&self, line: &str) {
        let path = self.path("ssh_config");
        let text = fs::read_to_string(&path).unwrap();
        let rest = text.strip_prefix("Host production-server\n").unwrap();
        fs::write(path, format!("Host production-server\n{line}\n{rest}")).unwrap();
    }

    /// Returns the words of a shell that run a command there.
    pub(crate) fn ssh_command(&self) -> String {
        format!("'{}' production-server", self.path("bin/ssh").display())
    }

    /// Returns the key that sshd takes.
    pub(crate) fn user_key(&self) -> PathBuf {
        self.path("user_key")
    }

    /// Returns the folder of the certificates that its engine takes.
    pub(crate) fn own_certificates(&self) -> PathBuf {
        self.path("certificates")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn join_network(&self) {
        let Self { namespace, link, address, .. } = self;
        let ours = Ipv4Addr::from(u32::from(*address) - 1);
        run("ip", &["netns", "add", namespace]);
        run("ip", &["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace]);
        run("ip", &["addr", "add", &format!("{ours}/24"), "dev", link]);
        run("ip", &["link", "set", link, "up"]);
        run("ip", &["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        run("ip", &["-n", namespace, "link", "set", "eth0", "up"]);
        run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        run("ip", &["-n", namespace, "route", "add", "default", "via", &ours.to_string()]);
    }

    async fn start_engine(&mut self, disk: Option<u32>) {
        let data = self.path("data");
        fs::create_dir(&data).unwrap();
        if let Some(megabytes) = disk {
            let size = format!("size={megabytes}m");
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", data.to_str().unwrap()]);
        }
        // The machine's own engine may have settings that are not for a second one.
        fs::write(self.path("daemon.json"), "{}").unwrap();
        let log = fs::File::create(self.path("dockerd.log")).unwrap();
        // `ip netns exec` would hide the mounts of cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("dockerd");
        command.arg("--config-file").arg(self.path("daemon.json")).arg("--data-root").arg(&data);
        command.arg("--exec-root").arg(self.path("exec")).arg("--pidfile").arg(self.path("pid"));
        command.arg("--host").arg(self.socket());
        let certificates = self.certificates("certificates");
        command.args(["--tlsverify", "--host", "tcp://0.0.0.0:2376", "--tlscacert"]).arg(certificates.join("ca.pem"));
        command.arg("--tlscert").arg(certificates.join("server.pem"));
        command.arg("--tlskey").arg(certificates.join("server-key.pem"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.engine = Some(command.spawn().unwrap());
        let answers = async || self.docker(&["version"]).is_ok().then_some(());
        eventually("the second engine answers (its dockerd.log is in the test's folder)", answers).await;
    }

    async fn start_sshd(&mut self) {
        let port = self.ssh_port;
        let path = |name: &str| self.path(name).display().to_string();
        for key in ["host_key", "user_key"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
        }
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPidFile none\nMaxStartups 100\nSetEnv DOCKER_HOST={}\n",
            path("host_key"),
            path("user_key.pub"),
            self.socket()
        );
        fs::write(self.path("sshd_config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &path("sshd_config")]);
        let log = fs::File::create(self.path("sshd.log")).unwrap();
        let sshd = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let host_key = fs::read_to_string(self.path("host_key.pub")).unwrap();
        fs::write(self.path("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let config = format!(
            "Host production-server\nHostName 127.0.0.1\nPort {port}\nUser root\nIdentityFile {}\nIdentitiesOnly yes\n\
             UserKnownHostsFile {}\n",
            path("user_key"),
            path("known_hosts")
        );
        fs::write(self.path("ssh_config"), config).unwrap();
        // ssh reads the configuration of the user's account, whatever HOME says.
        fs::create_dir(self.path("bin")).unwrap();
        let ssh = which("ssh");
        fs::write(self.path("bin/ssh"), format!("#!/bin/sh\nexec {ssh} -F '{}' \"$@\"\n", path("ssh_config"))).unwrap();
        fs::set_permissions(self.path("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        self.sshd = Some(sshd);
        let listens = async || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(());
        eventually("sshd listens", listens).await;
    }
}

impl Drop for RemoteHost {
    fn drop(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            cut_connections(&sshd);
            let _gone = sshd.kill().and_then(|()| sshd.wait());
        }
        let containers = self.docker(&["ps", "-aq"]).unwrap_or_default();
        let containers: Vec<&str> = containers.lines().collect();
        if !containers.is_empty() {
            let _gone = self.docker(&[&["rm", "-f"], &containers[..]].concat());
        }
        if let Some(mut engine) = self.engine.take() {
            let id = Pid::from_raw(i32::try_from(engine.id()).unwrap()).unwrap();
            let _gone = kill_process(id, Signal::TERM);
            let _gone = engine.wait();
        }
        for mount in mounts_below(self.folder.path()).iter().rev() {
            let _gone = Command::new("umount").arg(mount).status();
        }
        let _gone = Command::new("ip").args(["netns", "del", &self.namespace]).status();
        // With its namespace the other end goes too, sooner or later.
        let _gone = Command::new("ip").args(["link", "del", &self.link]).stderr(Stdio::null()).status();
    }
}

fn cut_connections(sshd: &Child) -> usize {
    let children = Command::new("pgrep").args(["-P", &sshd.id().to_string()]).output().unwrap();
    let children = String::from_utf8(children.stdout).unwrap();
    let pids = children.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    // One may have ended by itself.
    pids.filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count()
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    places.filter(|place| Path::new(place).starts_with(folder)).map(str::to_owned).collect()
}

fn which(program: &str) -> String {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
}
