//! What stands before the authority, and adds what pebble has not: limits, and when to renew.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tests::{Pebble, client_tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What stands before the authority and adds what pebble has not: limits, and when to renew.
#[derive(Default)]
pub(crate) struct Added {
    pub(crate) is_limited: bool,
    pub(crate) window: Option<[&'static str; 2]>,
    pub(crate) orders: usize,
    pub(crate) asked: usize,
}

pub(crate) struct Front {
    address: SocketAddr,
    added: Arc<Mutex<Added>>,
    _tasks: JoinSet<()>,
}

pub(crate) async fn front(pebble: &Pebble) -> Front {
    let mut asking = client_tls(pebble.address(), "localhost", &pebble.site().trusted(&[])).await.unwrap();
    let host = format!("localhost:{}", pebble.address().port());
    let directory = asking.get(&host, "/dir").await.unwrap().unwrap().text();
    let directory: Value = serde_json::from_str(&directory).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, added) = (listener.local_addr().unwrap(), Arc::<Mutex<Added>>::default());
    let tests::Issued { cert, key } = pebble.site().issue(&["localhost"]);
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let (mut tasks, seen, revocations) = (JoinSet::new(), Arc::clone(&added), pebble.revocations());
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let mut head = vec![0; 16 * 1024];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let is_revoked = match head.strip_prefix("GET /renewal/").and_then(|rest| rest.split([' ', '.']).nth(1)) {
                Some(serial) => {
                    let serial = BASE64_URL_SAFE_NO_PAD.decode(serial).unwrap();
                    revocations.has(&serial.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).await
                }
                None => false,
            };
            let answer = answer(&head, &directory, address, is_revoked, &mut seen.lock().unwrap());
            drop(stream.write_all(answer.as_bytes()).await);
            drop(stream.shutdown().await);
        }
    });
    Front { address, added, _tasks: tasks }
}

fn answer(head: &str, directory: &Value, address: SocketAddr, is_revoked: bool, added: &mut Added) -> String {
    let own = |path: &str| json!(format!("https://localhost:{}{path}", address.port()));
    let (status, fields, body) = if head.starts_with("GET /dir ") {
        let mut directory = directory.clone();
        if added.is_limited {
            directory["newOrder"] = own("/limited");
        }
        if added.window.is_some() {
            directory["renewalInfo"] = own("/renewal");
        }
        (200, "", directory)
    } else if head.starts_with("GET /renewal/") {
        added.asked += 1;
        let over = ["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"];
        let [start, end] = if is_revoked { over } else { added.window.unwrap() };
        (200, "Retry-After: 21600\r\n", json!({ "suggestedWindow": { "start": start, "end": end } }))
    } else {
        added.orders += 1;
        let kind = "urn:ietf:params:acme:error:rateLimited";
        (429, "Retry-After: 7200\r\n", json!({ "type": kind, "detail": "too many certificates already" }))
    };
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} x\r\n{fields}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Front {
    pub(crate) fn directory(&self) -> Value {
        json!({ "directory": format!("https://localhost:{}/dir", self.address.port()) })
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Added) -> T) -> T {
        change(&mut self.added.lock().unwrap())
    }
}
