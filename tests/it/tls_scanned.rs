//! What scanners of TLS find at the proxy's port: no old protocol, no weak cipher, nothing to look at.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use tests::{Authority, Proxy, Upstream, authority, is_soak, measured, proxy_program, skipped, upstream};

use crate::programs::PROGRAMS;

const HOST: &str = "shop.test";
const CONFIG: &str = "listen_tls = [\"127.0.0.1:0\"]\n[[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
/// What is told and is no fault of the server's.
const KNOWN: [(&str, &str); 3] = [
    ("engine_problem", "it is of the scanner's own openssl"),
    ("cert_revocation", "the authority of a test says nowhere what it revoked"),
    (
        "cipher_order",
        "every cipher is strong, so that the client chooses what it is quick at: ChaCha20 where it has no AES",
    ),
];

/// The openssl that the scanner is given: it stays until the ticket that it was asked to keep has come, as TLS 1.3 brings one
/// only after the handshake, and a client that hangs up at once finds on a busy machine that there is none.
const PATIENT_OPENSSL: &str = r#"#!/bin/bash
kept=
for ((at = 1; at <= $#; at++)); do
  [ "${!at}" != -sess_out ] || { next=$((at + 1)); kept=${!next}; }
done
[ -n "$kept" ] || exec openssl "$@"
# Where no ticket comes, as none does for who asked for none, ten seconds have told so.
for ((try = 0; try < 200; try++)); do [ ! -s "$kept" ] || break; sleep 0.05; done | openssl "$@"
"#;

async fn site() -> (Proxy, Upstream, Authority) {
    let (authority, app) = (authority(), upstream("v1").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(CONFIG);
    // Browsers take none that lives longer than this, and a scanner says so.
    let issued = authority.issue_for_days(&[HOST], 90);
    proxy.write_beside("cert.pem", &issued.cert);
    proxy.write_beside("key.pem", &issued.key);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    (proxy, app, authority)
}

/// Runs a scanner to its end; `None` where it is not installed.
async fn scan(test: &str, program: &str, args: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    // It asks about terminals, and looks for newer versions of itself where it may.
    command.args(args).env("TERM", "dumb").stdin(std::process::Stdio::null());
    match command.output().await {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{program}: {}\n{said}", output.status);
            Some(said)
        }
        Err(_) => {
            let required = std::env::var_os("BG_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
            assert!(!required, "{program} is wanted by BG_REQUIRE_CLIENTS");
            skipped(test, &format!("{program} is not installed"));
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslscan_finds_two_protocols_and_strong_ciphers_alone() {
    let test = "sslscan_finds_two_protocols_and_strong_ciphers_alone";
    let (proxy, _app, _authority) = site().await;
    let address = proxy.tls_address().await.to_string();
    let sni = format!("--sni-name={HOST}");
    let Some(said) = scan(test, "sslscan", &["--no-colour", &sni, &address]).await else { return };
    let words: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let protocols: Vec<(&str, &str)> = words
        .iter()
        .filter_map(|line| match line.as_slice() {
            [name, state @ ("enabled" | "disabled")] => Some((*name, *state)),
            _ => None,
        })
        .collect();
    let old = ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"].map(|name| (name, "disabled"));
    assert_eq!(protocols, [&old[..], &[("TLSv1.2", "enabled"), ("TLSv1.3", "enabled")]].concat(), "{said}");
    let ciphers: Vec<&str> = words
        .iter()
        .filter(|line| matches!(line.first(), Some(&("Preferred" | "Accepted"))))
        .filter_map(|line| line.get(4).copied())
        .collect();
    let is_strong = |cipher: &&str| {
        let is_forward = cipher.starts_with("TLS_") || cipher.starts_with("ECDHE-");
        is_forward && (cipher.contains("GCM") || cipher.contains("CHACHA20"))
    };
    assert!(ciphers.len() == 6 && ciphers.iter().all(is_strong), "{ciphers:?}\n{said}");
    assert!(said.contains("Session renegotiation not supported"), "{said}");
    let mut bled = said.lines().filter(|line| line.contains("heartbleed"));
    assert!(bled.all(|line| line.contains("not vulnerable")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn testssl_finds_nothing_to_look_at() {
    let test = "testssl_finds_nothing_to_look_at";
    let (proxy, _app, authority) = site().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (roots, found) = (path("roots.pem"), path("found.json"));
    std::fs::write(&roots, authority.pem()).unwrap();
    let openssl = path("openssl");
    std::fs::write(&openssl, PATIENT_OPENSSL).unwrap();
    std::fs::set_permissions(&openssl, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Debian's name of it is another than its own.
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let program = ["testssl", "testssl.sh"].into_iter().find(is_there).unwrap_or("testssl");
    let target = format!("{HOST}:{}", proxy.tls_address().await.port());
    let usual = ["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "min"];
    let output = ["--openssl", &openssl, "--add-ca", &roots, "--jsonfile", &found, "--severity", "LOW"];
    // Protocols and categories of ciphers; in the long form also forward secrecy, the certificate, and each known attack.
    let what: &[&str] = if is_soak() { &["-p", "-s", "-f", "-P", "-S", "-U"] } else { &["-p", "-s"] };
    let began = Instant::now();
    let Some(said) = scan(test, program, &[&usual[..], &output, what, &[&target]].concat()).await else { return };
    // It has scanned, and not given up: what it says stands on this.
    assert!(said.contains("TLS 1.3    offered"), "{said}");
    let found = std::fs::read_to_string(&found).unwrap();
    let found: Vec<Value> = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}\n{said}"));
    let is_known = |one: &&Value| KNOWN.iter().any(|(id, _)| one["id"] == *id);
    let new: Vec<&Value> = found.iter().filter(|one| !is_known(one)).collect();
    assert!(new.is_empty(), "{new:#?}\n{said}");
    measured(
        "testssl",
        &format!("{} in {:?}, nothing but {:?}", what.join(" "), began.elapsed(), KNOWN.map(|(id, _)| id)),
    );
}
