//! Own certificates with containers: `up` brings them, `deploy` those that are new, and the proxy in its container answers with them.

use std::fs;

use rustls::pki_types::CertificateDer;
use tests::{Authority, Issued, authority, connect_tls, eventually};

use crate::docker_host::{TestGateway, Uptimer, free_port, gateway};

const HOST: &str = "shop.test";

/// Returns the certificate that whoever listens on a port shows for a host.
async fn shown(port: u16, authority: &Authority) -> Option<CertificateDer<'static>> {
    let address = ([127, 0, 0, 1], port).into();
    let stream = connect_tls(address, HOST, &authority.trusted(&[])).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
}

async fn answered(port: u16, authority: &Authority) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = connect_tls(([127, 0, 0, 1], port).into(), HOST, &authority.trusted(&[])).await.ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    // A server that ends without a word is none of this test's business.
    _ = stream.read_to_string(&mut answer).await;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_up_brings_the_certificates_and_deploy_those_that_are_new() {
    const TEST: &str = "docker_up_brings_the_certificates";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let issue = || {
        let Issued { cert, key } = authority.issue(&[HOST]);
        write("cert.pem", &cert);
        write("key.pem", &key);
    };
    issue();
    let file = "[[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[services.shop]\n";
    write("bluegreen.toml", &format!("{file}image = \"{image}\"\ndomains = [\"{HOST}\"]\nbake = \"0s\"\n"));
    let tls = free_port();
    let publish = [format!("127.0.0.1:{}:80", gateway.port), format!("127.0.0.1:{tls}:443")];
    let binary = gateway.proxy_binary.to_str().unwrap();
    let up = ["up", "--publish", &publish[0], "--publish", &publish[1], "--proxy-binary", binary];
    let bgctl = async |words: &[&str]| {
        let ended = gateway.start_in(folder.path(), words).end().await;
        assert_eq!(ended.code, Some(0), "{words:?}: {}", ended.talk);
        ended
    };
    let is_sent = |talk: &str| talk.contains("certificate for shop.test, until ");
    assert!(is_sent(&bgctl(&up).await.talk));
    let first = eventually("the certificate is shown", async || shown(tls, &authority).await).await;

    // What is there is not sent again, by whichever command; the application is reached behind it.
    assert!(!is_sent(&bgctl(&up).await.talk));
    assert!(!is_sent(&bgctl(&["deploy"]).await.talk));
    let answer = answered(tls, &authority).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Uptimer"), "{answer}");
    assert_eq!(shown(tls, &authority).await, Some(first.clone()));
    assert_eq!(bgctl(&["plan"]).await.events[0]["certificates"], serde_json::json!([]));

    // A renewed one is in the plan, and goes along with the next deployment.
    issue();
    let planned = bgctl(&["plan"]).await.events[0]["certificates"].clone();
    assert_eq!(planned[0]["names"][0], HOST, "{planned}");
    assert!(is_sent(&bgctl(&["switch", "shop"]).await.talk));
    let second = shown(tls, &authority).await.unwrap();
    assert_ne!(first, second);

    // One that can't be served keeps everything as it is, before anything is done.
    write("key.pem", &authority.issue(&[HOST]).key);
    let wrong = gateway.start_in(folder.path(), &["deploy"]).end().await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.talk);
    assert!(wrong.talk.contains("the key is not that of the certificate"), "{}", wrong.talk);
    assert_eq!(shown(tls, &authority).await, Some(second));
    assert_eq!(live(&gateway).await, "green");
}

async fn live(gateway: &TestGateway) -> String {
    let status = gateway.bgctl(&["status", "shop"]).await;
    status.events[0]["services"][0]["live"].as_str().unwrap().to_owned()
}
