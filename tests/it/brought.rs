//! Own certificates of the project, brought to the proxy by the admin protocol and by `bgctl apply`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use tests::{Authority, Issued, Proxy, authority, connect_tls, proxy_program};

use crate::programs::PROGRAMS;

const HOST: &str = "shop.test";

async fn is_shown(proxy: &Proxy, authority: &Authority, host: &str) -> bool {
    connect_tls(proxy.tls_address().await, host, &authority.trusted(&[])).await.is_ok()
}

async fn put(proxy: &Proxy, name: &str, Issued { cert, key }: &Issued) -> (u16, String) {
    let body = json!({ "chain": cert, "key": key });
    let answer = proxy.call("PUT", &format!("/v1/certificates/{name}"), body).await;
    (answer.status, answer.lines[0].to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_brought_shown_at_once_kept_for_itself_and_taken_away() {
    let authority = authority();
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config("listen_tls = [\"127.0.0.1:0\"]\n");
    proxy.start().await;
    assert!(!is_shown(&proxy, &authority, HOST).await);
    let own = authority.issue(&[HOST]);
    let (status, body) = put(&proxy, HOST, &own).await;
    assert!(status == 200 && body.contains(HOST) && body.contains("not_after"), "{body}");
    assert!(is_shown(&proxy, &authority, HOST).await);
    let told = proxy.call("GET", "/v1/status", json!({})).await.lines[0]["certificates"].clone();
    assert_eq!(told[0]["names"], json!([HOST]));

    // What is wrong changes nothing, and nothing of a key is repeated.
    let other = authority.issue(&["other.test"]);
    let mixed = Issued { cert: own.cert.clone(), key: other.key.clone() };
    let (status, body) = put(&proxy, HOST, &mixed).await;
    assert!(status == 400 && !body.contains("PRIVATE") && !body.contains(&other.key[40..80]), "{body}");
    assert_eq!(put(&proxy, "..%2fx", &own).await.0, 400);
    let file = proxy.state().join("certificates").join(format!("{HOST}.pem"));
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains(own.key.trim()) && kept.contains(own.cert.trim()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

    // It outlives a kill; one that was garbled meanwhile takes no other along.
    assert_eq!(put(&proxy, "other.test", &other).await.0, 200);
    proxy.kill();
    fs::write(file.with_file_name("garbled.test.pem"), "no pem").unwrap();
    proxy.start().await;
    assert!(is_shown(&proxy, &authority, HOST).await && is_shown(&proxy, &authority, "other.test").await);
    assert_eq!(proxy.call("DELETE", &format!("/v1/certificates/{HOST}"), json!({})).await.status, 204);
    assert!(!is_shown(&proxy, &authority, HOST).await && !file.exists());
    assert!(is_shown(&proxy, &authority, "other.test").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_brings_the_certificates_of_the_project_and_says_what_is_wrong_before_it_sends_one() {
    let authority = authority();
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config("listen_tls = [\"127.0.0.1:0\"]\n");
    proxy.start().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let Issued { cert, key } = authority.issue(&["*.shop.test", HOST]);
    write("cert.pem", &cert);
    write("key.pem", &key);
    let table = |cert: &str| format!("[[certificates]]\ncert = \"{cert}\"\nkey = \"key.pem\"\n");
    let apply = async || {
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.arg("--admin").arg(proxy.admin()).args(["apply"]).current_dir(folder.path());
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    write("bluegreen.toml", &format!("{}{}", table("cert.pem"), table("missing.pem")));
    let (code, talk) = apply().await;
    assert!(code == Some(1) && talk.contains("missing.pem: No such file"), "{talk}");
    assert!(!is_shown(&proxy, &authority, HOST).await);

    write("bluegreen.toml", &table("cert.pem"));
    let (code, talk) = apply().await;
    assert!(code == Some(0) && talk.contains("certificate for *.shop.test, shop.test, until "), "{talk}");
    assert!(is_shown(&proxy, &authority, HOST).await && is_shown(&proxy, &authority, "a.shop.test").await);
    assert!(proxy.state().join("certificates/wildcard.shop.test.pem").exists());

    // A wrong key in the file is told at its place.
    write("bluegreen.toml", "[[certificates]]\ncert = \"cert.pem\"\nkeys = \"key.pem\"\n");
    let (code, talk) = apply().await;
    assert!(code == Some(1) && talk.contains("keys"), "{talk}");
}
