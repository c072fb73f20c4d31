//! Certificates that come by themselves: a real authority issues, looks, is out of reach and refuses, and visitors notice nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use proxy::acme::Clock;
use serde_json::{Value, json};
use tests::{
    Load, Pebble, Proxy, Rules, Site, Upstream, client, client_tls, connect_tls, eventually, load, pebble, proxy_at,
    proxy_program, skipped, upstream,
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::acme_front::{Front, front};
use crate::programs::PROGRAMS;

pub(crate) const HOST: &str = "shop.test";

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A proxy with a service, its clock, and an authority that looks at it.
pub(crate) struct Place {
    pub(crate) proxy: Proxy,
    app: Upstream,
    pub(crate) pebble: Pebble,
    pub(crate) clock: Clock,
}

pub(crate) async fn place(test: &str) -> Option<Place> {
    place_of(test, false).await
}

async fn place_of(test: &str, bound: bool) -> Option<Place> {
    let clock = Clock::default();
    let (proxy, app) = (proxy_at(&clock), upstream("v1").await);
    // Whoever binds accounts looks at no file here, so that a handshake is all that can prove a domain to it.
    let http = if bound { 1 } else { proxy.address().port() };
    let rules = Rules { http, tls: proxy.tls_address().await.port(), bound };
    let Some(pebble) = pebble(rules).await else {
        skipped(test, "pebble is not installed");
        return None;
    };
    proxy.serve("shop", app.address()).await;
    Some(Place { proxy, app, pebble, clock })
}

impl Place {
    /// Lets the proxy ask the authority, with more settings.
    pub(crate) async fn ask(&self, more: Value) {
        let mut acme = self.pebble.settings();
        acme.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.proxy.call("PUT", "/v1/proxy", json!({ "acme": acme })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Lets the service have certificates for these domains.
    pub(crate) async fn want(&self, domains: &[&str]) {
        self.put(json!({ "domains": domains, "tls": "auto" })).await;
    }

    pub(crate) async fn put(&self, settings: Value) {
        let answer = self.proxy.call("PUT", "/v1/services/shop", settings).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn domain(&self, at: usize) -> Value {
        self.proxy.call("GET", "/v1/services/shop", json!({})).await.lines[0]["tls"][at].clone()
    }

    /// Waits until the first domain has a certificate without a problem.
    pub(crate) async fn certified(&self) -> String {
        let what = "the certificate came";
        eventually(what, async || {
            let domain = self.domain(0).await;
            domain["problem"].is_null().then(|| domain["not_after"].as_str().map(str::to_owned)).flatten()
        })
        .await
    }

    /// Gets a certificate from an authority that wants it renewed long after two thirds of its life; returns that authority, and
    /// what a visitor is shown.
    pub(crate) async fn to_be_renewed_late(&self) -> (Front, Vec<u8>) {
        let front = front(&self.pebble).await;
        front.change(|added| added.window = Some(["2090-01-01T00:00:00Z", "2090-01-02T00:00:00Z"]));
        self.ask(front.directory()).await;
        self.want(&[HOST]).await;
        self.certified().await;
        (front, self.shown(HOST).await.unwrap())
    }

    /// Waits until something is wrong with the first domain in these words.
    async fn problem(&self, words: &str) -> Value {
        eventually(words, async || {
            let domain = self.domain(0).await;
            domain["problem"].as_str().is_some_and(|problem| problem.contains(words)).then_some(domain)
        })
        .await
    }

    /// What a new visitor is shown.
    pub(crate) async fn shown(&self, host: &str) -> Option<Vec<u8>> {
        let trusted = self.pebble.trusted(&[]).await;
        let stream = connect_tls(self.proxy.tls_address().await, host, &trusted).await.ok()?;
        stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
    }

    /// The status of a visitor of plain HTTP.
    pub(crate) async fn plain_of(&self, host: &str) -> u16 {
        client(self.proxy.address()).await.unwrap().get(host, "/").await.unwrap().unwrap().status
    }

    async fn plain(&self, path: &str) -> tests::Response {
        client(self.proxy.address()).await.unwrap().get(HOST, path).await.unwrap().unwrap()
    }

    pub(crate) async fn metric(&self, outcome: &str) -> u64 {
        let metrics = self.proxy.text("/metrics").await;
        let begin = format!("bgproxy_acme_orders_total{{outcome=\"{outcome}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&begin)).unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_comes_by_itself_and_then_visitors_are_led_to_https() {
    let test = "a_certificate_comes_by_itself_and_then_visitors_are_led_to_https";
    let Some(place) = place(test).await else { return };
    // Until then plain HTTP serves, and the status says why.
    place.ask(json!({ "directory": "https://127.0.0.1:1/dir", "email": "me@shop.test" })).await;
    place.want(&[HOST]).await;
    place.problem("127.0.0.1 can't be reached").await;
    assert_eq!(place.plain("/").await.text(), "v1");
    // Other settings are tried at once.
    place.ask(json!({ "email": "me@shop.test" })).await;
    let ends = place.certified().await;
    let trusted = place.pebble.trusted(&[]).await;
    let tls = place.proxy.tls_address().await;
    let mut visitor = client_tls(tls, HOST, &trusted).await.unwrap();
    let answer = visitor.get(HOST, "/").await.unwrap().unwrap();
    assert_eq!((answer.text().as_str(), answer.field("strict-transport-security")), ("v1", None));
    // Who came by the usual port goes to the usual one, and who came by another to the one that is listened on.
    let with_port = format!("{HOST}:8080");
    for (host, wanted) in [(HOST, HOST.to_owned()), (&with_port, format!("{HOST}:{}", tls.port()))] {
        let led = client(place.proxy.address()).await.unwrap().get(host, "/one?two=3").await.unwrap().unwrap();
        assert_eq!(led.status, 308);
        assert_eq!(led.field("location"), Some(format!("https://{wanted}/one?two=3").as_str()));
    }
    let status = place.proxy.call("GET", "/v1/status", json!({})).await.lines.remove(0);
    let shown = &status["certificates"][0];
    assert_eq!((&shown["names"], &shown["not_after"]), (&json!([HOST]), &json!(ends)), "{status}");
    assert_eq!(status["certificates"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!((place.metric("issued").await, place.metric("failed").await > 0), (1, true));
    // An authority that looks for something else, and a load balancer, are not led away.
    assert_eq!(place.plain("/.well-known/acme-challenge/other").await.status, 200);
    // Hosts without a certificate go on as they were: the service's name within the network.
    let mut inside = client(place.proxy.address()).await.unwrap();
    assert_eq!(inside.get("shop.internal", "/").await.unwrap().unwrap().status, 200);
    // What a service says of itself wins.
    let options = json!({ "https_redirect": false, "hsts": "365d", "hsts_subdomains": true });
    place.put(json!({ "domains": [HOST], "options": options })).await;
    assert_eq!(place.plain("/").await.text(), "v1");
    let answer = visitor.get(HOST, "/").await.unwrap().unwrap();
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
    assert_eq!(place.plain("/").await.field("strict-transport-security"), None);
    // And a service that wants none any more is told of none.
    place.put(json!({ "domains": [HOST], "tls": "off" })).await;
    eventually("it is shown no more", async || place.shown(HOST).await.is_none().then_some(())).await;
    drop(place.app);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_is_proved_by_a_handshake() {
    let Some(place) = place_of("a_domain_is_proved_by_a_handshake", true).await else { return };
    let eab = json!({ "challenges": ["tls-alpn-01"], "eab_key_id": "kid-1", "eab_hmac": Pebble::EAB });
    place.ask(eab).await;
    place.want(&[HOST]).await;
    place.certified().await;
    assert!(place.shown(HOST).await.is_some());
    // The key is told nobody.
    let files =
        std::process::Command::new("grep").arg("-rl").arg(Pebble::EAB).arg(place.proxy.state()).output().unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    assert!(files.lines().all(|file| file.contains("/proxy.") || file.contains("/proxy")), "{files}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wildcard_is_proved_by_the_hook() {
    let Some(place) = place("a_wildcard_is_proved_by_the_hook").await else { return };
    place.ask(json!({})).await;
    place.want(&["*.shop.test", HOST]).await;
    place.problem("there is no `dns_hook`").await;
    place.ask(json!({ "dns_hook": [place.pebble.hook()] })).await;
    place.certified().await;
    for host in ["a.shop.test", "b.shop.test"] {
        assert!(place.shown(host).await.is_some(), "{host}");
    }
    let told = std::fs::read_to_string(place.pebble.folder().join("hook.log")).unwrap();
    assert_eq!(told, "add _acme-challenge.shop.test\nremove _acme-challenge.shop.test\n");
    eventually("the other one came too", async || place.shown(HOST).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_in_time_though_the_authority_was_away_for_days() {
    let test = "a_certificate_is_renewed_in_time_though_the_authority_was_away_for_days";
    let Some(mut place) = place(test).await else { return };
    place.ask(json!({})).await;
    place.want(&[HOST]).await;
    place.certified().await;
    let first = place.shown(HOST).await.unwrap();
    // Pebble's certificates live five years. The authority goes away before two thirds of that.
    place.clock.advance(DAY * 1000);
    assert_eq!(place.shown(HOST).await.unwrap(), first);
    let trusted = place.pebble.trusted(&[]).await;
    place.pebble.stop();
    place.clock.advance(DAY * 300);
    place.problem("can't be reached").await;
    let failed = place.metric("failed").await;
    for day in 1..=5 {
        place.clock.advance(DAY);
        eventually("it is tried again", async || (place.metric("failed").await > failed + day - 1).then_some(())).await;
        // What is there goes on.
        let mut visitor = client_tls(place.proxy.tls_address().await, HOST, &trusted).await.unwrap();
        assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
        assert_eq!(place.plain("/").await.status, 308);
    }
    // It comes back without a memory of accounts, as authorities for trials do.
    place.pebble.start().await;
    place.clock.advance(DAY);
    let renewed = async || place.shown(HOST).await.filter(|shown| *shown != first).map(drop);
    eventually("it is renewed", renewed).await;
    place.certified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_leads_elsewhere_is_told_and_tried_again_when_something_changes() {
    let test = "a_domain_that_leads_elsewhere_is_told_and_tried_again_when_something_changes";
    let Some(place) = place(test).await else { return };
    // Nobody listens there.
    let elsewhere = json!({ "host": "shop.test.", "addresses": ["127.0.0.99"] });
    place.pebble.dns("/add-a", elsewhere).await.unwrap();
    place.ask(json!({ "challenges": ["http-01"] })).await;
    place.want(&[HOST]).await;
    let domain = place.problem("http-01: ").await;
    assert!(domain["next"].is_string() && domain["not_after"].is_null(), "{domain}");
    assert_eq!(place.plain("/").await.text(), "v1");
    place.pebble.dns("/clear-a", json!({ "host": "shop.test." })).await.unwrap();
    place.want(&[HOST]).await;
    place.certified().await;
}

/// One connection of HTTP/2 that asks until it is told to stop; returns how many answers of each version there were.
async fn visit_by_http2(stream: TlsStream<TcpStream>, ends: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> [usize; 2] {
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut versions = [0, 0];
    while !ends.load(Ordering::Relaxed) {
        let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
        let sent = sender.clone().ready().await.unwrap().send_request(request, true).unwrap().0;
        let answer = sent.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            text.extend_from_slice(&piece);
        }
        versions[usize::from(text == b"v2")] += 1;
        asked.fetch_add(1, Ordering::Relaxed);
    }
    drop(sender);
    // It was never told to go away.
    connection.await.unwrap().unwrap();
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_flips_under_load_over_tls_while_certificates_are_renewed_fail_no_request() {
    let test = "twenty_flips_under_load_over_tls_while_certificates_are_renewed_fail_no_request";
    let Some(place) = place(test).await else { return };
    let green = upstream("v2").await;
    place.ask(json!({})).await;
    place.want(&[HOST]).await;
    place.certified().await;
    let first = place.shown(HOST).await.unwrap();
    let tls = Some(place.pebble.trusted(&["http/1.1"]).await);
    let visitors = Load { keep_alive: 4, fresh: 2, posts: 2, slow: 2, streams: 2, tls, ..Load::default() };
    let running = load(place.proxy.tls_address().await, visitors);
    let (ends, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (trusted, mut by_http2) = (place.pebble.trusted(&["h2"]).await, Vec::new());
    for _ in 0..4 {
        let stream = connect_tls(place.proxy.tls_address().await, HOST, &trusted).await.unwrap();
        by_http2.push(tokio::spawn(visit_by_http2(stream, Arc::clone(&ends), Arc::clone(&asked))));
    }
    for flip in 1..=20 {
        let (done, done_2) = (running.so_far().total, asked.load(Ordering::Relaxed));
        let enough = || running.so_far().total >= done + 50 && asked.load(Ordering::Relaxed) >= done_2 + 50;
        eventually("traffic", async || enough().then_some(())).await;
        if flip % 5 == 0 {
            place.clock.advance(DAY * 1300);
        }
        place.proxy.serve("shop", if flip % 2 == 1 { green.address() } else { place.app.address() }).await;
    }
    let renewed = async || place.shown(HOST).await.filter(|shown| *shown != first).map(drop);
    eventually("it is renewed", renewed).await;
    ends.store(true, Ordering::Relaxed);
    let mut versions = [0, 0];
    for visitor in by_http2 {
        let seen = visitor.await.unwrap();
        versions = [versions[0] + seen[0], versions[1] + seen[1]];
    }
    assert!(versions.iter().all(|seen| *seen > 100), "{versions:?}");
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert!(verdict.versions["v1"] > 100 && verdict.versions["v2"] > 100, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_says_too_often_is_left_alone_for_as_long_as_it_says() {
    let test = "an_authority_that_says_too_often_is_left_alone_for_as_long_as_it_says";
    let Some(place) = place(test).await else { return };
    let front = front(&place.pebble).await;
    front.change(|added| added.is_limited = true);
    place.ask(front.directory()).await;
    place.want(&[HOST]).await;
    place.problem("too many certificates already (rateLimited)").await;
    let next = place.domain(0).await["next"].clone();
    front.change(|added| added.is_limited = false);
    // Neither a change nor half of the time makes it ask again.
    place.clock.advance(Duration::from_secs(3600));
    for _ in 0..3 {
        place.put(json!({ "domains": [HOST] })).await;
        assert_eq!(place.domain(0).await["next"], next);
    }
    assert_eq!(front.change(|added| added.orders), 1);
    assert_eq!(place.plain("/").await.text(), "v1");
    place.clock.advance(Duration::from_secs(3600));
    place.certified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_the_authority_wants_replaced_is_replaced() {
    let test = "a_certificate_that_the_authority_wants_replaced_is_replaced";
    let Some(place) = place(test).await else { return };
    let (front, first) = place.to_be_renewed_late().await;
    eventually("it asks when to renew", async || (front.change(|added| added.asked) > 0).then_some(())).await;
    // It says later than two thirds of the life, and is believed.
    let next = async || place.domain(0).await["next"].as_str().filter(|next| next.starts_with("2090-")).map(drop);
    eventually("it is renewed when the authority says", next).await;
    // It is to be replaced at once: the window is over.
    front.change(|added| added.window = Some(["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"]));
    place.clock.advance(Duration::from_secs(6 * 3600));
    let renewed = async || place.shown(HOST).await.filter(|shown| *shown != first).map(drop);
    eventually("it is replaced", renewed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_account_and_the_certificate() {
    let port = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (mut proxy, app, tls) = (proxy_program(PROGRAMS.bgproxy), upstream("v1").await, port());
    let rules = Rules { http: proxy.address().port(), tls, bound: false };
    let Some(pebble) = pebble(rules).await else {
        return skipped("a_restart_keeps_the_account_and_the_certificate", "pebble is not installed");
    };
    let config = format!(
        "listen_tls = [\"127.0.0.1:{tls}\"]\n[acme]\ndirectory = \"{}\"\nca = \"{}\"\n\
         [services.shop]\ndomains = [\"{HOST}\"]\ntls = \"auto\"\nendpoints = [\"{}\"]\n",
        pebble.directory(),
        pebble.ca().display(),
        app.address()
    );
    proxy = proxy.with_config(&config);
    proxy.start().await;
    let (trusted, address) = (pebble.trusted(&[]).await, SocketAddr::from((Ipv4Addr::LOCALHOST, tls)));
    let shown = async || {
        let stream = connect_tls(address, HOST, &trusted).await.ok()?;
        stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
    };
    let first = eventually("a certificate came", async || shown().await).await;
    let folder = std::fs::read_dir(proxy.state().join("acme")).unwrap().next().unwrap().unwrap().path();
    let account = std::fs::read_to_string(folder.join("account.json")).unwrap();
    proxy.kill();
    proxy.start().await;
    assert_eq!(eventually("it is shown again", async || shown().await).await, first);
    assert_eq!(std::fs::read_to_string(folder.join("account.json")).unwrap(), account);
    let metrics = proxy.text("/metrics").await;
    assert!(metrics.contains("bgproxy_acme_orders_total{outcome=\"issued\"} 0"), "{metrics}");
    // A second domain is asked for by the same account.
    proxy.rewrite_config(&config.replace(HOST, "shop.test\", \"www.shop.test"));
    let second = async || connect_tls(address, "www.shop.test", &trusted).await.ok().map(drop);
    eventually("the second one came", second).await;
    assert_eq!(std::fs::read_to_string(folder.join("account.json")).unwrap(), account);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_flag_of_a_switch_is_https() {
    let site = Site::new(PROGRAMS);
    let tls = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let Some(pebble) = pebble(Rules { http: site.address().port(), tls: tls.port(), bound: false }).await else {
        return skipped("one_flag_of_a_switch_is_https", "pebble is not installed");
    };
    let (http, https) = (format!("{}:80", site.address()), format!("{tls}:443"));
    let up = ["up", "--publish", &http, "--publish", &https, "--proxy-binary", PROGRAMS.bgproxy];
    let up = site.bgctl(&up).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    // Which authority stands in the file; without it, it is Let's Encrypt.
    let file = pebble.folder().join("bluegreen.toml");
    let acme = format!("[proxy.acme]\ndirectory = \"{}\"\nca = \"{}\"\n", pebble.directory(), pebble.ca().display());
    std::fs::write(&file, acme + "[services.shop]\n").unwrap();
    let (file, port) = (file.to_str().unwrap(), site.port().to_string());
    let (one, two) = (site.version("v1", Duration::ZERO), site.version("v2", Duration::ZERO));
    let without = site.bgctl(&["switch", "shop", "--image", &one, "--port", &port, "--tls"]).await;
    assert!(without.code == Some(1) && without.talk.contains("--tls has no domain"), "{without:?}");
    let first = ["--file", file, "switch", "shop", "--image", &one, "--port", &port, "--domain", HOST, "--bake", "0s"];
    let switched = site.bgctl(&[&first[..], &["--tls"]].concat()).await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    let came = async || site.shop().await["tls"][0]["not_after"].as_str().map(str::to_owned);
    eventually("the certificate came", came).await;
    let trusted = pebble.trusted(&[]).await;
    let mut visitor = client_tls(tls, HOST, &trusted).await.unwrap();
    assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
    let mut plain = client(site.address()).await.unwrap();
    assert_eq!(plain.get(HOST, "/").await.unwrap().unwrap().status, 308);
    // The next switch remembers it.
    let switched = site.switch(&two, &[]).end().await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    assert_eq!(visitor.get(HOST, "/").await.unwrap().unwrap().status, 200);
    assert_eq!(site.shop().await["settings"]["tls"], "auto");
    let doctor = String::from_utf8(site.bgctl_plain(&["doctor"]).await.stdout).unwrap();
    assert!(doctor.contains("certificate"), "{doctor}");
    let off = site.bgctl(&["route", "shop", "--tls=off"]).await;
    assert_eq!(off.code, Some(0), "{}", off.talk);
    let served = async || {
        let mut plain = client(site.address()).await.ok()?;
        (plain.get(HOST, "/").await.ok()??.status == 200).then_some(())
    };
    eventually("plain HTTP serves again", served).await;
}
