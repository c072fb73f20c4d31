//! Clients that have to show certificates: in the handshake of a host, and for no other.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tests::{Authority, Proxy, Response, Upstream, authority, client, client_tls, eventually, proxy_program, upstream};

use crate::programs::PROGRAMS;

const CONFIG: &str = "listen_tls = [\"127.0.0.1:0\"]\n[[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";

/// A proxy with two services, of which `inner` asks for certificates of the second authority.
async fn site() -> (Proxy, Upstream, Authority, Authority) {
    let (servers, clients, app) = (authority(), authority(), upstream("v1").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(CONFIG);
    let issued = servers.issue(&["inner.test", "outer.test"]);
    proxy.write_beside("cert.pem", &issued.cert);
    proxy.write_beside("key.pem", &issued.key);
    proxy.start().await;
    proxy.serve("outer", app.address()).await;
    proxy.serve("inner", app.address()).await;
    guard(&proxy, json!({ "client_ca": clients.pem() })).await;
    (proxy, app, servers, clients)
}

async fn guard(proxy: &Proxy, options: serde_json::Value) {
    let settings = json!({ "domains": ["inner.test"], "options": options });
    assert_eq!(proxy.call("PUT", "/v1/services/inner", settings).await.status, 200);
}

/// A client that has a certificate of an authority.
fn with_certificate(servers: &Authority, clients: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(servers.pem().as_bytes()).unwrap()).unwrap();
    let issued = clients.issue(&["someone"]);
    let chain = CertificateDer::pem_slice_iter(issued.cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
}

/// What is answered to a request for a host by a connection for another one.
async fn asked(proxy: &Proxy, name: &str, config: &Arc<ClientConfig>, host: &str) -> Option<Response> {
    let mut visitor = client_tls(proxy.tls_address().await, name, config).await.ok()?;
    // With TLS 1.3 a client learns of the refusal after its own end of the handshake.
    visitor.get(host, "/").await.ok()?
}

async fn status(proxy: &Proxy, name: &str, config: &Arc<ClientConfig>, host: &str) -> Option<u16> {
    asked(proxy, name, config, host).await.map(|answer| answer.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_no_certificate_is_served_elsewhere_and_not_here() {
    let (proxy, _app, servers, clients) = site().await;
    let (without, with) = (servers.trusted(&[]), with_certificate(&servers, &clients));
    let foreign = with_certificate(&servers, &authority());
    assert_eq!(status(&proxy, "inner.test", &with, "inner.test").await, Some(200));
    for config in [&without, &foreign] {
        assert_eq!(status(&proxy, "inner.test", config, "inner.test").await, None);
        assert_eq!(status(&proxy, "outer.test", config, "outer.test").await, Some(200));
    }
    assert_eq!(status(&proxy, "outer.test", &with, "outer.test").await, Some(200));
    // Neither another name in the handshake nor none of TLS leads around it.
    for config in [&without, &with] {
        assert_eq!(status(&proxy, "outer.test", config, "inner.test").await, Some(421));
    }
    assert_eq!(status(&proxy, "inner.test", &with, "outer.test").await, Some(421));
    for host in ["inner.test", "inner.internal"] {
        let mut plain = client(proxy.address()).await.unwrap();
        assert_eq!(plain.get(host, "/").await.unwrap().unwrap().status, 421, "{host}");
    }
    assert_eq!(status(&proxy, "outer.test", &without, "inner.internal").await, Some(421));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_before_is_no_way_around_and_one_of_the_same_authority_goes_on() {
    let (proxy, _app, servers, clients) = site().await;
    let with = with_certificate(&servers, &clients);
    guard(&proxy, json!({})).await;
    // One configuration keeps the sessions that it was given.
    let without = servers.trusted(&[]);
    for _ in 0..2 {
        assert_eq!(status(&proxy, "inner.test", &without, "inner.test").await, Some(200));
    }
    guard(&proxy, json!({ "client_ca": clients.pem() })).await;
    assert_eq!(status(&proxy, "inner.test", &without, "inner.test").await, None);
    let mut visitor = client_tls(proxy.tls_address().await, "inner.test", &with).await.unwrap();
    assert_eq!(visitor.get("inner.test", "/").await.unwrap().unwrap().status, 200);
    // Another option changes nothing of that, and another authority all.
    guard(&proxy, json!({ "client_ca": clients.pem(), "hsts": "1d" })).await;
    let answer = visitor.get("inner.test", "/").await.unwrap().unwrap();
    assert_eq!((answer.status, answer.field("strict-transport-security")), (200, Some("max-age=86400")));
    guard(&proxy, json!({ "client_ca": authority().pem() })).await;
    assert_eq!(visitor.get("inner.test", "/").await.unwrap().unwrap().status, 421);
    assert_eq!(status(&proxy, "inner.test", &with, "inner.test").await, None);
    let wrong = json!({ "domains": ["inner.test"], "options": { "client_ca": "no certificate" } });
    assert_eq!(proxy.call("PUT", "/v1/services/inner", wrong).await.status, 400);
    guard(&proxy, json!({})).await;
    let open = async || (status(&proxy, "inner.test", &without, "inner.test").await == Some(200)).then_some(());
    eventually("everybody is served again", open).await;
}
