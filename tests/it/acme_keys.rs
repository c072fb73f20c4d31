//! Keys that are no good any more: a certificate that was revoked is replaced, and an account goes on with another key.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, HttpClient, Identifier, NewOrder, RevocationReason,
    RevocationRequest,
};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tests::{client_tls, eventually};

use crate::acme::{HOST, Place, place};

/// Asks an authority of this host in the proxy's place.
struct Asker(Arc<ClientConfig>);

impl HttpClient for Asker {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let trusted = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, head.uri.port_u16().unwrap()));
            // What an account's address begins with is the name that the authority is asked by.
            let authority = head.uri.authority().unwrap();
            let mut text = format!("{} {} HTTP/1.1\r\nHost: {authority}\r\n", head.method, head.uri.path());
            for (name, value) in &head.headers {
                text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
            text.push_str(&format!("Content-Length: {}\r\n\r\n{}", body.len(), str::from_utf8(&body).unwrap()));
            let mut asking = client_tls(address, "localhost", &trusted).await.unwrap();
            asking.send(text).await.unwrap();
            let answer = match head.method {
                Method::HEAD => asking.head_answer().await.unwrap(),
                _ => asking.answer().await.unwrap().unwrap(),
            };
            let mut made = http::Response::builder().status(answer.status);
            for name in ["replay-nonce", "location", "content-type"] {
                if let Some(value) = answer.field(name) {
                    made = made.header(name, value);
                }
            }
            let (parts, ()) = made.body(()).unwrap().into_parts();
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(answer.body)) })
        })
    }
}

/// The account that the proxy has, and its file.
async fn account(place: &Place) -> (Account, std::path::PathBuf) {
    let folder = fs::read_dir(place.proxy.state().join("acme")).unwrap().next().unwrap().unwrap().path();
    let file = folder.join("account.json");
    let kept: AccountCredentials = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let asker = Asker(place.pebble.site().trusted(&[]));
    (Account::builder_with_http(Box::new(asker)).from_credentials(kept).await.unwrap(), file)
}

/// The key of a certificate on P-256, which is all that the proxy makes.
fn key(certificate: &[u8]) -> &[u8] {
    // Its kind and its curve (RFC 5480), before the point.
    let kind = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    let at = certificate.windows(kind.len()).position(|bytes| bytes == kind).unwrap() + kind.len();
    &certificate[at..at + 65]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_was_revoked_is_replaced_by_one_with_another_key() {
    let test = "a_certificate_that_was_revoked_is_replaced_by_one_with_another_key";
    let Some(place) = place(test).await else { return };
    let (front, first) = place.to_be_renewed_late().await;
    let asked = async |times: usize| {
        eventually("it asks when to renew", async || (front.change(|added| added.asked) >= times).then_some(())).await;
    };
    asked(1).await;
    // Nothing was revoked: nothing is replaced.
    place.clock.advance(Duration::from_secs(6 * 3600));
    asked(2).await;
    assert_eq!(place.shown(HOST).await.unwrap(), first);
    let revoked = CertificateDer::from(first.clone());
    let request = RevocationRequest { certificate: &revoked, reason: Some(RevocationReason::KeyCompromise) };
    account(&place).await.0.revoke(&request).await.unwrap();
    place.clock.advance(Duration::from_secs(6 * 3600));
    let replaced = async || place.shown(HOST).await.filter(|shown| *shown != first);
    let second = eventually("it is replaced", replaced).await;
    assert_ne!(key(&second), key(&first), "the key that was compromised is used again");
    // And that one stays.
    place.certified().await;
    asked(4).await;
    assert_eq!(place.shown(HOST).await.unwrap(), second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_goes_on_with_another_key_without_a_restart() {
    let Some(place) = place("an_account_goes_on_with_another_key_without_a_restart").await else { return };
    place.ask(serde_json::json!({})).await;
    place.want(&[HOST]).await;
    place.certified().await;
    let ((old, _), (mut account, file)) = (account(&place).await, account(&place).await);
    let changed = serde_json::to_string(&account.update_key().await.unwrap()).unwrap();
    // Nobody is let in by the old key any more.
    let names = [Identifier::Dns("other.test".to_owned())];
    assert!(old.new_order(&NewOrder::new(&names)).await.is_err(), "the key was not changed");
    let new = file.with_extension("new");
    fs::write(&new, &changed).unwrap();
    fs::rename(&new, &file).unwrap();
    place.want(&[HOST, "www.shop.test"]).await;
    eventually("another domain is ordered by it", async || place.shown("www.shop.test").await).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), changed, "it is the same account");
}
