//! The page of metrics against `/metrics`: each is there, of its kind and with its labels, and moves by what it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tests::{
    Authority, Behaviour, Client, Proxy, authority, client, client_tls, eventually, proxy_program, upstream,
    upstream_at,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::programs::PROGRAMS;
use crate::telemetry::parse;

/// No request can be made to cause one: `app::a_panic_ends_its_request_alone_and_is_counted` does, from within.
const ELSEWHERE: [&str; 1] = ["bgproxy_panics_total"];

/// What the page says: of each metric its kind and its labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `bgproxy_"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            let labels = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (format!("bgproxy_{}", cells[0].trim_end_matches('`')), (cells[1].to_owned(), labels))
        })
        .collect();
    assert!(documented.len() > 20, "docs/metrics.md was not understood: {documented:?}");
    documented
}

/// What the text says: the same, of metrics that have a value.
fn exported(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut exported: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for sample in parse(text).into_keys() {
        let (name, labels) = sample.trim_end_matches('}').split_once('{').unwrap_or((&sample, ""));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let entry = exported.entry(family.to_owned()).or_insert_with(|| (kinds[family].to_owned(), BTreeSet::new()));
        entry.1.extend(labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned())));
    }
    exported
}

/// The sum of a metric's samples whose labels have these words.
async fn sum(proxy: &Proxy, name: &str, labels: &str) -> f64 {
    let samples = parse(&proxy.text("/metrics").await);
    let is_it = |sample: &str| sample.split('{').next() == Some(name) && sample.contains(labels);
    samples.iter().filter(|(sample, _)| is_it(sample)).map(|(_, value)| value).sum()
}

/// Waits until a metric is that.
async fn reaches(proxy: &Proxy, name: &str, labels: &str, wanted: f64) {
    let is_that = async || (sum(proxy, name, labels).await == wanted).then_some(());
    eventually(&format!("{name} of {labels} is {wanted}"), is_that).await;
}

async fn ask(proxy: &Proxy, host: &str) -> Client {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(format!("GET / HTTP/1.1\r\nHost: {host}.test\r\n\r\n")).await.unwrap();
    visitor
}

async fn status(proxy: &Proxy, host: &str) -> u16 {
    ask(proxy, host).await.answer().await.unwrap().unwrap().status
}

/// Makes unprobed endpoints live.
async fn serve(proxy: &Proxy, service: &str, endpoints: &[SocketAddr], flip: serde_json::Value) {
    let body = json!({
        "endpoints": endpoints, "health": { "enabled": false }, "settings": { "domains": [format!("{service}.test")] },
    });
    proxy.call("POST", &format!("/v1/services/{service}/stage"), body).await;
    assert_eq!(proxy.call("POST", &format!("/v1/services/{service}/flip"), flip).await.status, 200);
}

async fn site(authority: &Authority) -> Proxy {
    // A disk that is always full takes no line.
    let config = "listen_tls = [\"127.0.0.1:0\"]\n[log]\naccess = \"json\"\naccess_file = \"/dev/full\"\n\
        [[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(config);
    let issued = authority.issue(&["shop.test"]);
    proxy.write_beside("cert.pem", &issued.cert);
    proxy.write_beside("key.pem", &issued.key);
    proxy.start().await;
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_page_is_there_and_moves_by_what_it_counts_and_there_is_no_other() {
    let authority = authority();
    let proxy = site(&authority).await;
    let app = upstream("v1").await;
    let address = app.address();
    proxy.serve("shop", address).await;
    let of_blue = "service=\"shop\",slot=\"blue\"";

    // The proxy as a whole.
    let received = sum(&proxy, "bgproxy_requests_received_total", "").await;
    let mut visitor = ask(&proxy, "shop").await;
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    reaches(&proxy, "bgproxy_requests_received_total", "", received + 1.0).await;
    reaches(&proxy, "bgproxy_connections", "", 1.0).await;
    eventually("the full disk's lines are counted", async || {
        (sum(&proxy, "bgproxy_access_log_dropped_total", "").await > 0.0).then_some(())
    })
    .await;
    let limits = json!({ "limits": { "connections_per_address": 1 } });
    assert_eq!(proxy.call("PUT", "/v1/proxy", limits).await.status, 200);
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    eventually("a connection is refused", async || {
        let (mut one, mut other) = (ask(&proxy, "shop").await, ask(&proxy, "shop").await);
        let (one, other) = tokio::join!(one.answer(), other.answer());
        let served = [one, other].map(|answer| answer.is_ok_and(|answer| answer.is_some()));
        served.contains(&false).then_some(())
    })
    .await;
    assert!(sum(&proxy, "bgproxy_connections_refused_total", "").await >= 1.0);
    assert_eq!(proxy.call("PUT", "/v1/proxy", json!({})).await.status, 200);
    let tls = proxy.tls_address().await;
    let mut secure = client_tls(tls, "shop.test", &authority.trusted(&[])).await.unwrap();
    assert_eq!(secure.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    reaches(&proxy, "bgproxy_tls_handshakes_total", "", 1.0).await;
    assert!(client_tls(tls, "shop.test", &tests::authority().trusted(&[])).await.is_err());
    reaches(&proxy, "bgproxy_tls_handshakes_failed_total", "", 1.0).await;

    // A request under way, and one that the application fails.
    assert_eq!(sum(&proxy, "bgproxy_in_flight", of_blue).await, 0.0);
    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    reaches(&proxy, "bgproxy_in_flight", of_blue, 1.0).await;
    drop(slow);
    reaches(&proxy, "bgproxy_in_flight", of_blue, 0.0).await;
    app.behave(Behaviour::Raw("nonsense\r\n\r\n"));
    let failed = sum(&proxy, "bgproxy_requests_failed_total", of_blue).await;
    assert_eq!(status(&proxy, "shop").await, 502);
    reaches(&proxy, "bgproxy_requests_failed_total", of_blue, failed + 1.0).await;

    // One that meets a connection that the application has just closed, and is sent again.
    app.behave(Behaviour::Once);
    let mut visitor = client(proxy.address()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    }
    reaches(&proxy, "bgproxy_requests_retried_total", of_blue, 1.0).await;

    // One that waits for an application that is gone for a moment.
    drop(app);
    eventually("nobody listens", async || client(address).await.err()).await;
    let mut waiting = ask(&proxy, "shop").await;
    reaches(&proxy, "bgproxy_requests_held_total", of_blue, 1.0).await;
    reaches(&proxy, "bgproxy_endpoints_healthy", of_blue, 0.0).await;
    let app = upstream_at(address, "v1").await;
    assert_eq!(waiting.answer().await.unwrap().unwrap().status, 200);
    reaches(&proxy, "bgproxy_endpoints_healthy", of_blue, 1.0).await;

    // A drain deadline cuts an answer and closes an event stream.
    app.behave(Behaviour::Slow { pieces: 100, pause: Duration::from_millis(100) });
    let mut download = ask(&proxy, "shop").await;
    reaches(&proxy, "bgproxy_in_flight", of_blue, 1.0).await;
    let green = upstream("v2").await;
    serve(&proxy, "shop", &[green.address()], json!({ "drain": "100ms" })).await;
    assert!(download.answer().await.is_err());
    reaches(&proxy, "bgproxy_requests_cut_total", of_blue, 1.0).await;
    reaches(&proxy, "bgproxy_drains_total", "shop", 1.0).await;
    reaches(&proxy, "bgproxy_flips_total", "shop", 2.0).await;
    reaches(&proxy, "bgproxy_slot_live", of_blue, 0.0).await;
    reaches(&proxy, "bgproxy_slot_live", "service=\"shop\",slot=\"green\"", 1.0).await;
    let events = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve(&proxy, "events", &[events.local_addr().unwrap()], json!({})).await;
    let mut listener = ask(&proxy, "events").await;
    let (mut source, _) = events.accept().await.unwrap();
    source.read_buf(&mut Vec::new()).await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    source.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).await.unwrap();
    let deadlines = json!({ "drain": "100ms", "drain_tunnels": "200ms" });
    serve(&proxy, "events", &[green.address()], deadlines).await;
    assert_eq!(listener.answer().await.unwrap().unwrap().text(), "data: 1\n\n");
    reaches(&proxy, "bgproxy_requests_closed_total", "service=\"events\",slot=\"blue\"", 1.0).await;

    // A file, and an asset that the version before still has.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.css"), "body {}").unwrap();
    let without = upstream("without").await;
    without.behave(Behaviour::Status(404));
    serve(&proxy, "files", &[green.address()], json!({})).await;
    let options = json!({
        "static": [{ "path": "/static", "folder": folder.path() }], "old_assets": { "paths": ["/assets/*"] },
    });
    let settings = json!({ "domains": ["files.test"], "options": options });
    assert_eq!(proxy.call("PUT", "/v1/services/files", settings).await.status, 200);
    let body = json!({ "endpoints": [without.address()], "health": { "enabled": false } });
    proxy.call("POST", "/v1/services/files/stage", body).await;
    assert_eq!(proxy.call("POST", "/v1/services/files/flip", json!({})).await.status, 200);
    let mut visitor = client(proxy.address()).await.unwrap();
    for path in ["/static/a.css", "/assets/old.js"] {
        assert_eq!(visitor.get("files.test", path).await.unwrap().unwrap().status, 200, "{path}");
    }
    reaches(&proxy, "bgproxy_files_total", "files", 1.0).await;
    reaches(&proxy, "bgproxy_old_assets_total", "service=\"files\",slot=\"blue\"", 1.0).await;

    // Of two endpoints one refuses, and is left aside.
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    serve(&proxy, "pair", &[refusing, green.address()], json!({})).await;
    for _ in 0..8 {
        assert_eq!(status(&proxy, "pair").await, 200);
    }
    assert!(sum(&proxy, "bgproxy_ejections_total", "service=\"pair\"").await >= 1.0);
    reaches(&proxy, "bgproxy_endpoints", "service=\"pair\",slot=\"blue\"", 2.0).await;

    // One that dies in its bake is left, and the webhook tells it.
    let receiver = upstream("hook").await;
    let webhook = json!({ "webhook": { "url": format!("http://{}/", receiver.address()) } });
    assert_eq!(proxy.call("PUT", "/v1/proxy", webhook).await.status, 200);
    let dying = upstream("v3").await;
    let address = dying.address();
    serve(&proxy, "shop", &[address], json!({ "bake": "20s" })).await;
    drop(dying);
    eventually("nobody listens", async || client(address).await.err()).await;
    assert_eq!(status(&proxy, "shop").await, 200);
    reaches(&proxy, "bgproxy_slot_live", "service=\"shop\",slot=\"green\"", 1.0).await;
    reaches(&proxy, "bgproxy_webhooks_total", "outcome=\"sent\"", 1.0).await;

    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    reaches(&proxy, "bgproxy_in_flight", "service=\"shop\",slot=\"green\"", 1.0).await;

    // A certificate is asked for where nobody answers.
    let nowhere = json!({ "acme": { "directory": "https://127.0.0.1:1/directory" } });
    assert_eq!(proxy.call("PUT", "/v1/proxy", nowhere).await.status, 200);
    let settings = json!({ "domains": ["new.test"], "tls": "auto" });
    assert_eq!(proxy.call("PUT", "/v1/services/new", settings).await.status, 200);
    reaches(&proxy, "bgproxy_acme_orders_total", "outcome=\"failed\"", 1.0).await;

    // And the page: no other, none that stands still, each of the kind and with the labels that it says.
    let text = proxy.text("/metrics").await;
    let mut documented = documented();
    assert_eq!(exported(&text), documented);
    let samples = parse(&text);
    documented.retain(|name, _| !ELSEWHERE.contains(&name.as_str()));
    for name in documented.into_keys() {
        let moved = samples.iter().any(|(sample, value)| {
            let end = sample.strip_prefix(&name).map(|end| end.split('{').next().unwrap());
            end.is_some_and(|end| ["", "_count"].contains(&end)) && *value > 0.0
        });
        assert!(moved, "{name} counted nothing");
    }
}

/// The whole of a service's requests is the sum over its slots and `none`, and its bake is judged by what its versions answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_before_a_slot_has_a_part_in_it_is_counted_to_its_service_and_to_no_slot() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.css"), "body {}").unwrap();
    let log = folder.path().join("access.log");
    let issued = authority().issue(&["shop.test"]);
    let config = format!(
        "listen_tls = [\"127.0.0.1:0\"]\n[log]\naccess = \"json\"\naccess_file = \"{}\"\n\
         [[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n",
        log.display()
    );
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&config);
    proxy.write_beside("cert.pem", &issued.cert);
    proxy.write_beside("key.pem", &issued.key);
    proxy.start().await;
    let app = upstream("v1").await;
    let health = json!({ "interval": "10ms", "path": "/up" });
    let staged = json!({ "endpoints": [app.address()], "settings": { "domains": ["shop.test"] }, "health": health });
    assert_eq!(proxy.call("POST", "/v1/services/shop/stage", staged).await.status, 200);
    assert_eq!(proxy.flip("shop").await.status, 200);
    let rules = json!({
        "redirects": [{ "from": "/old", "to": "/new" }],
        "access": [{ "path": "/denied", "deny": ["127.0.0.0/8"] }],
        "rate_limits": [{ "path": "/rare", "requests": 1, "per": "1m" }],
        "basic_auth": [{ "path": "/staff", "users": { "alice": "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a" } }],
        "static": [{ "path": "/static", "folder": folder.path() }],
    });
    proxy.set_options(&["shop.test"], rules).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    let mut get = async |path: &str| visitor.get("shop.test", path).await.unwrap().unwrap().status;
    let counts = async || {
        let mut counts = Vec::new();
        for slot in ["none", "blue"] {
            for class in ["2xx", "3xx", "4xx", "5xx"] {
                let labels = format!("service=\"shop\",slot=\"{slot}\",class=\"{class}\"");
                counts.push(sum(&proxy, "bgproxy_requests_total", &labels).await);
            }
        }
        counts
    };
    let mut wanted = [0.0; 8];
    for (path, status, at) in [
        ("/", 200, 4),
        ("/old", 308, 1),
        ("/denied", 403, 2),
        ("/rare", 200, 4),
        ("/rare", 429, 2),
        ("/staff", 401, 2),
        ("/static/a.css", 200, 0),
        ("/static/none.css", 404, 2),
    ] {
        assert_eq!(get(path).await, status, "{path}");
        wanted[at] += 1.0;
        assert_eq!(counts().await, wanted, "{path}");
    }
    // One that is closed on purpose, but for its health check.
    proxy.call("POST", "/v1/services/shop/maintenance", json!({ "on": true })).await;
    assert_eq!((get("/").await, get("/up").await), (503, 200));
    proxy.call("POST", "/v1/services/shop/maintenance", json!({ "on": false })).await;
    proxy.set_options(&["shop.test"], json!({ "https_redirect": true })).await;
    eventually("visitors are led to https", async || (get("/x").await == 308).then_some(())).await;
    let now = counts().await;
    assert_eq!((now[0], now[2], now[3]), (wanted[0] + 1.0, wanted[2], 1.0), "{now:?}");
    assert!(now[1] == wanted[1] + 1.0, "{now:?}");
    // The log says whose they were.
    let lines = eventually("the lines are written", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("/denied").then_some(text)
    })
    .await;
    let denied = lines.lines().find(|line| line.contains("/denied")).unwrap();
    assert!(denied.contains("\"service\":\"shop\"") && denied.contains("\"slot\":null"), "{denied}");
}
