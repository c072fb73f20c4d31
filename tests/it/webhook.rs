//! The webhook: a real receiver is told when the proxy acted alone, and no receiver holds anything up.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::Sha256;
use tests::{Issued, Proxy, Site, authority, eventually, proxy, proxy_program, upstream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::programs::PROGRAMS;

/// What a receiver does with a POST.
#[derive(Clone, Copy)]
enum Does {
    Answer(u16),
    /// Leads elsewhere, to its own other path.
    Redirect,
    Hang,
}

/// A POST that arrived whole: its head in lower case, and its body.
type Post = (String, String);

/// A receiver on a free port; it ends when dropped.
struct Receiver {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    _tasks: JoinSet<()>,
}

/// Starts one that does these things one after the other, and then answers 200; with a certificate it speaks TLS.
async fn receiver(does: &[Does], issued: Option<&Issued>) -> Receiver {
    let tls = issued.map(|Issued { cert, key }| {
        let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, posts) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Post>>>::default());
    let (mut does, seen) = (does.iter().copied().collect::<VecDeque<_>>(), Arc::clone(&posts));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that believes no certificate of ours breaks off.
            let taken = match &tls {
                None => take(stream, &mut does, &seen).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => take(stream, &mut does, &seen).await,
                    Err(error) => Err(error),
                },
            };
            drop(taken);
        }
    });
    Receiver { address, posts, _tasks: tasks }
}

async fn take(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    does: &mut VecDeque<Does>,
    seen: &Mutex<Vec<Post>>,
) -> io::Result<()> {
    let mut text = String::new();
    let (head, body) = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => text.push_str(std::str::from_utf8(&buffer[..read]).unwrap()),
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse::<usize>().unwrap();
        if body.len() >= length {
            break (head, body.to_owned());
        }
    };
    seen.lock().unwrap().push((head, body));
    let answer = match does.pop_front().unwrap_or(Does::Answer(200)) {
        Does::Answer(status) => format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"),
        Does::Redirect => "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_owned(),
        // Until the other side has had enough.
        Does::Hang => return stream.read(&mut [0; 1]).await.map(drop),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

impl Receiver {
    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/services/T0", self.address)
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    async fn told(&self, count: usize) -> Vec<Post> {
        let what = format!("{count} posts");
        eventually(&what, async || Some(self.posts()).filter(|posts| posts.len() >= count)).await
    }
}

async fn counted(proxy: &Proxy, outcome: &str) -> u64 {
    let metrics = proxy.text("/metrics").await;
    let line = format!("bgproxy_webhooks_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|known| known.strip_prefix(&line)).unwrap().parse().unwrap()
}

async fn configure(proxy: &Proxy, webhook: Value) {
    let put = proxy.call("PUT", "/v1/proxy", json!({ "webhook": webhook })).await;
    assert_eq!(put.status, 200, "{put:?}");
}

/// Makes the proxy flip back once: a new version that ends in its bake. Returns the event, and how long it took.
async fn flip_back(proxy: &Proxy) -> (Value, Duration) {
    let green = upstream("green").await;
    let staged = proxy.stage("shop", green.address()).await;
    assert_eq!(staged["event"], "healthy", "{staged}");
    let flipped = proxy.call("POST", "/v1/services/shop/flip", json!({ "bake": "20s" })).await;
    assert_eq!(flipped.status, 200, "{flipped:?}");
    let back = flipped.lines[0]["old"].clone();
    drop(green);
    let died = Instant::now();
    let drain = json!({ "slot": back, "bake": true });
    let end = proxy.call("POST", "/v1/services/shop/drain", drain).await.lines.pop().unwrap();
    assert_eq!(end["event"], "flipped_back", "{end}");
    (end, died.elapsed())
}

/// By the real programs: the new version is killed with SIGKILL in its bake, and one POST tells it, signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_back_after_a_kill_is_told_once_and_signed() {
    let hook = receiver(&[], None).await;
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bluegreen.toml");
    let table = format!("[proxy.webhook]\nurl = \"{}\"\nsecret = \"${{HOOK_SECRET}}\"\n", hook.url("http"));
    fs::write(&path, table).unwrap();
    let words = ["--file", path.to_str().unwrap(), "apply"];
    let applied = site.start_with(&[("HOOK_SECRET", "hunter2")], &words).end().await;
    assert_eq!(applied.code, Some(0), "{}", applied.talk);
    let said = format!("{applied:?}");
    assert!(!said.contains("hunter2") && !said.contains("services/T0") && said.contains("***"), "{said}");
    let first = site.switch(&site.version("v1", Duration::ZERO), &[]).end().await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    let mut switch = site.switch(&site.version("v2", Duration::ZERO), &["--bake", "30s"]);
    switch.until("flipped").await;
    site.kill(" v2 ");
    let back = switch.until("flipped_back").await;
    assert_eq!(switch.end().await.code, Some(4));
    let posts = hook.told(1).await;
    let (head, body) = &posts[0];
    assert!(head.starts_with("post /services/t0 http/1.1\r\n") && head.contains("content-type: application/json"));
    let told: Value = serde_json::from_str(body).unwrap();
    for (key, value) in back.as_object().unwrap() {
        assert_eq!(told[key], *value, "the event's own `{key}`");
    }
    let words = |key: &str| told[key].as_str().unwrap().to_owned();
    let what = words("what");
    assert!(what.starts_with("shop left GREEN (") && what.contains("nothing answers there any more"), "{what}");
    assert!(words("holds").starts_with("BLUE (") && words("holds").ends_with("takes every request"), "{told}");
    assert!(words("time").ends_with('Z') && head.contains(&format!("x-bluegreen-id: {}", words("id"))), "{head}");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"hunter2").unwrap();
    mac.update(body.as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(head.contains(&format!("x-bluegreen-signature: sha256={digits}")), "{head}");
    // A second flip back is a second notice: had there been another of the first, it would stand between.
    let mut switch = site.switch(&site.version("v3", Duration::ZERO), &["--bake", "30s"]);
    switch.until("flipped").await;
    site.kill(" v3 ");
    assert_eq!(switch.end().await.code, Some(4));
    let posts = hook.told(2).await;
    assert_eq!(posts.len(), 2, "{posts:?}");
    assert!(posts[1].1.contains("v3"), "{posts:?}");
    // What an operator does is told nobody.
    let ended = site.switch(&site.version("v4", Duration::ZERO), &[]).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.talk);
    assert_eq!(hook.posts().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_twice_is_told_at_the_third_try_and_the_tries_are_one_notice() {
    let hook = receiver(&[Does::Answer(503), Does::Answer(429)], None).await;
    let (proxy, blue) = (proxy(), upstream("blue").await);
    proxy.serve("shop", blue.address()).await;
    configure(&proxy, json!({ "url": hook.url("http") })).await;
    flip_back(&proxy).await;
    let posts = hook.told(3).await;
    eventually("it is counted", async || (counted(&proxy, "sent").await == 1).then_some(())).await;
    assert!(posts.len() == 3 && posts.iter().all(|post| *post == posts[0]), "{posts:?}");
    assert!(!posts[0].0.contains("x-bluegreen-signature"), "there is no secret");
    assert_eq!((counted(&proxy, "failed").await, counted(&proxy, "dropped").await), (0, 0));
}

/// Neither by a redirect, which is not followed, nor by a receiver that says no.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_receiver_refuses_is_not_sent_again() {
    let hook = receiver(&[Does::Redirect, Does::Answer(404)], None).await;
    let (proxy, blue) = (proxy(), upstream("blue").await);
    proxy.serve("shop", blue.address()).await;
    configure(&proxy, json!({ "url": hook.url("http") })).await;
    for failed in 1..=2 {
        flip_back(&proxy).await;
        eventually("it is counted", async || (counted(&proxy, "failed").await == failed).then_some(())).await;
        assert_eq!(hook.posts().len() as u64, failed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_delays_no_flip_back() {
    let hook = receiver(&[Does::Hang, Does::Hang, Does::Hang], None).await;
    let (proxy, blue) = (proxy(), upstream("blue").await);
    proxy.serve("shop", blue.address()).await;
    configure(&proxy, json!({ "url": hook.url("http") })).await;
    let (_, first) = flip_back(&proxy).await;
    hook.told(1).await;
    // While that one hangs.
    let (_, second) = flip_back(&proxy).await;
    assert_eq!(hook.posts().len(), 1);
    assert!(first.max(second) < Duration::from_secs(2), "{first:?}, {second:?}");
    // Given up after three tries of 5 s each, and then the other is told.
    for tries in [2, 3] {
        hook.told(tries).await;
    }
    eventually("both are counted", async || {
        (counted(&proxy, "failed").await == 1 && counted(&proxy, "sent").await == 1).then_some(())
    })
    .await;
    assert_eq!(hook.posts().len(), 4);
}

/// Killed while it sends the one and another waits, and ended in good order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_told_before_the_proxy_ended_is_told_by_the_next_one_under_the_same_ids() {
    for signal in [Signal::KILL, Signal::TERM] {
        let hook = receiver(&[Does::Hang], None).await;
        let (mut proxy, blue) = (proxy_program(PROGRAMS.bgproxy), upstream("blue").await);
        proxy.start().await;
        proxy.serve("shop", blue.address()).await;
        configure(&proxy, json!({ "url": hook.url("http"), "secret": "hunter2" })).await;
        flip_back(&proxy).await;
        hook.told(1).await;
        flip_back(&proxy).await;
        proxy.signal(signal);
        proxy.ended().await;
        // It was a day old, or torn: nobody wants to know.
        let folder = proxy.state().join("webhook");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::write(folder.join("000001700000000-ab"), "{\"id\":\"ab\"}").unwrap();
        fs::write(folder.join("999999999999999-cd"), "{\"id\":\"c").unwrap();
        proxy.start().await;
        let posts = hook.told(3).await;
        eventually("both are counted", async || (counted(&proxy, "sent").await == 2).then_some(())).await;
        assert_eq!((counted(&proxy, "dropped").await, counted(&proxy, "failed").await), (2, 0));
        let id = |post: &Post| {
            let head = post.0.split("x-bluegreen-id: ").nth(1).unwrap();
            head.lines().next().unwrap().to_owned()
        };
        assert_eq!(posts[0], posts[1], "the same, signed alike");
        assert_ne!(id(&posts[1]), id(&posts[2]));
        // And never again.
        eventually("nothing is kept", async || (fs::read_dir(&folder).unwrap().count() == 0).then_some(())).await;
        proxy.kill();
        proxy.start().await;
        flip_back(&proxy).await;
        let posts = hook.told(4).await;
        assert!(posts.len() == 4 && posts[..3].iter().all(|post| id(post) != id(&posts[3])), "{posts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_receiver_is_told_whose_authority_is_believed_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let hook = receiver(&[], Some(&authority.issue(&["127.0.0.1"]))).await;
    let (proxy, blue) = (proxy(), upstream("blue").await);
    proxy.serve("shop", blue.address()).await;
    configure(&proxy, json!({ "url": hook.url("https") })).await;
    flip_back(&proxy).await;
    eventually("it is counted", async || (counted(&proxy, "failed").await == 1).then_some(())).await;
    assert_eq!(hook.posts().len(), 0, "it is nobody whom we know");
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    configure(&proxy, json!({ "url": hook.url("https"), "ca": ca })).await;
    flip_back(&proxy).await;
    hook.told(1).await;
    eventually("it is counted", async || (counted(&proxy, "sent").await == 1).then_some(())).await;
}
