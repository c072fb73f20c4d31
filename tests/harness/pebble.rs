//! A real authority that speaks ACME, and the DNS that it believes: pebble and its companion, each a program of its own on free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{client, client_tls};
use crate::eventually::eventually;
use crate::tls::{Authority, authority};

/// What an authority is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Where it looks on "port 80".
    pub http: u16,
    /// Where it looks on "port 443".
    pub tls: u16,
    /// It wants accounts to be bound: `kid-1` with [`Pebble::EAB`].
    pub bound: bool,
}

/// An authority; it ends when dropped.
pub struct Pebble {
    rules: Rules,
    folder: TempDir,
    site: Authority,
    address: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    dns_management: SocketAddr,
    running: Option<Child>,
    companion: Child,
}

/// What tells which certificates an authority has revoked.
#[derive(Debug)]
pub struct Revocations {
    management: SocketAddr,
    trusted: Arc<ClientConfig>,
}

impl Revocations {
    /// Tells whether it has revoked one, by its serial number in hexadecimal.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn has(&self, serial: &str) -> bool {
        let mut asking = client_tls(self.management, "localhost", &self.trusted).await.unwrap();
        let path = format!("/cert-status-by-serial/{serial}");
        asking.get("localhost", &path).await.unwrap().unwrap().text().contains("Revoked")
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Starts an authority; `None` where pebble is not installed.
///
/// # Panics
/// Where it is wanted by `BG_REQUIRE_CLIENTS=1` and is not there.
pub async fn pebble(rules: Rules) -> Option<Pebble> {
    let is_there = |program: &str| Command::new(program).arg("-h").stderr(Stdio::null()).stdout(Stdio::null()).status();
    if is_there("pebble").is_err() || is_there("pebble-challtestsrv").is_err() {
        let required = std::env::var_os("BG_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
        assert!(!required, "pebble is wanted by BG_REQUIRE_CLIENTS");
        return None;
    }
    let (dns, dns_management, site) = (free(), free(), authority());
    let companion = Command::new("pebble-challtestsrv")
        .args(["-dns01", &dns.to_string(), "-management", &dns_management.to_string(), "-defaultIPv6", ""])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (folder, address, management) = (tempfile::tempdir().unwrap(), free(), free());
    let mut pebble = Pebble { rules, folder, site, address, management, dns, dns_management, running: None, companion };
    pebble.start().await;
    let answers = async || pebble.dns("/clear-a", json!({ "host": "none.test." })).await;
    eventually("the DNS answers", answers).await;
    Some(pebble)
}

impl Pebble {
    /// The key of accounts that are bound.
    pub const EAB: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

    /// Returns its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// Returns where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what tells which certificates it has revoked, for as long as it runs.
    pub fn revocations(&self) -> Revocations {
        Revocations { management: self.management, trusted: self.site.trusted(&[]) }
    }

    /// Returns the authority of its own site.
    pub fn site(&self) -> &Authority {
        &self.site
    }

    /// Returns the file of who issued its own site's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("site-ca.pem")
    }

    /// Returns a folder that lives as long as it does.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the settings of a proxy that asks it.
    pub fn settings(&self) -> Value {
        json!({ "directory": self.directory(), "ca": self.ca() })
    }

    /// Starts it; it remembers nothing of before.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn start(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        let issued = self.site.issue(&["localhost", "127.0.0.1"]);
        std::fs::write(path("cert.pem"), issued.cert).unwrap();
        std::fs::write(path("key.pem"), issued.key).unwrap();
        std::fs::write(self.ca(), self.site.pem()).unwrap();
        let config = json!({ "pebble": {
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": self.rules.http,
            "tlsPort": self.rules.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.rules.bound,
            "externalAccountMACKeys": { "kid-1": Self::EAB },
        } });
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        let log = std::fs::File::create(path("pebble.log")).unwrap();
        let child = Command::new("pebble")
            .args(["-strict=false", "-dnsserver", &self.dns.to_string(), "-config"])
            .arg(path("config.json"))
            // Waits would be its own, and a proof of before is no proof that the next one works.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        let trusted = self.site.trusted(&[]);
        let is_up = async || client_tls(self.management, "localhost", &trusted).await.ok().map(drop);
        eventually("pebble answers", is_up).await;
    }

    /// Ends it: an outage.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Returns what it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pebble.log")).unwrap()
    }

    /// Returns what a client needs that trusts what it issues.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn trusted(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut asking = client_tls(self.management, "localhost", &self.site.trusted(&[])).await.unwrap();
        let root = asking.get("localhost", "/roots/0").await.unwrap().unwrap().text();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Tells its DNS something; `None` where that does not answer.
    pub async fn dns(&self, call: &str, body: Value) -> Option<()> {
        let body = body.to_string();
        let mut asking = client(self.dns_management).await.ok()?;
        let request = format!("POST {call} HTTP/1.1\r\nHost: dns\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        asking.send(request).await.ok()?;
        (asking.answer().await.ok()??.status == 200).then_some(())
    }

    /// Writes a hook that tells its DNS, and returns its file.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn hook(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join("hook");
        let script = format!(
            "#!/bin/sh\nset -e\necho \"$1 $2\" >> '{}'\ncase $1 in add) call=set-txt;; *) call=clear-txt;; esac\n\
             curl -sSf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{}/$call\n",
            self.folder.path().join("hook.log").display(),
            self.dns_management
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        _ = self.companion.kill();
        _ = self.companion.wait();
    }
}
