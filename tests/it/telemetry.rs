//! What one sees of requests: a line for each, at its end, whichever way it ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Behaviour, Load, Proxy, client, eventually, load, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn logged(file: &Path, format: &str) -> Proxy {
    let config = format!("[log]\naccess = \"{format}\"\naccess_file = \"{}\"\n", file.display());
    proxy_program(PROGRAMS.bgproxy).with_config(&config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_logged_once_under_load_and_flips() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let mut proxy = logged(&file, "json");
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    // The start asked once, before there was a service.
    let running = load(proxy.address(), Load { slow: 1, streams: 1, ..Load::default() });
    for flip in 1..=4 {
        let done = running.so_far().total;
        eventually("traffic", async || (running.so_far().total >= done + 500).then_some(())).await;
        proxy.serve("shop", if flip % 2 == 1 { green.address() } else { blue.address() }).await;
    }
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await, Some(0));
    let lines = lines(&file);
    let mut slots: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["service"] == "shop") {
        assert_eq!((&line["status"], &line["cause"]), (&json!(200), &Value::Null), "{line}");
        assert!(line["bytes"].as_u64().unwrap() > 0 && line["seconds"].as_f64().unwrap() > 0.0, "{line}");
        *slots.entry(line["slot"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(slots["blue"] + slots["green"], verdict.total);
    assert_eq!(slots["blue"], verdict.versions["blue"]);
    let ids: std::collections::BTreeSet<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len(), "each request has an id of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_logged_with_its_cause_and_what_a_client_sends_stays_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let app = upstream("v1").await;
    let mut proxy = logged(&file, "json");
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let ask = async |request: &str| {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send(request).await.unwrap();
        drop(visitor.answer().await);
    };
    ask("GET /a?b=\"c HTTP/1.1\r\nHost: nobody.test\r\nUser-Agent: x\\\"y\u{e9}\r\n\r\n").await;
    ask("GET /nobody HTTP/1.1\r\nHost: nobody.test\r\nUser-Agent: x\"}\\y\u{e9}\r\n\r\n").await;
    app.behave(Behaviour::Raw("nonsense\r\n\r\n"));
    ask("GET /nonsense HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    app.behave(Behaviour::Cut);
    ask("GET /cut HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    app.behave(Behaviour::Answer);
    let mut leaver = client(proxy.address()).await.unwrap();
    leaver.send("GET /slow/60000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (app.unanswered() == 1).then_some(())).await;
    drop(leaver);
    let found = async |target: &str| {
        eventually(&format!("{target} is logged"), async || {
            lines(&file).into_iter().find(|line| line["target"] == target)
        })
        .await
    };
    let nobody = found("/nobody").await;
    assert_eq!(
        (&nobody["status"], &nobody["service"], &nobody["user_agent"]),
        (&json!(404), &Value::Null, &json!("x\"}\\y\u{e9}"))
    );
    let nonsense = found("/nonsense").await;
    assert_eq!((&nonsense["status"], &nonsense["service"]), (&json!(502), &json!("shop")));
    assert!(nonsense["cause"].as_str().unwrap().contains("malformed"), "{nonsense}");
    let cut = found("/cut").await;
    assert_eq!(cut["status"], 200);
    assert!(cut["cause"].as_str().unwrap().contains("broke"), "{cut}");
    found("/slow/60000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_combined_line_reads_as_apaches_and_the_file_is_opened_anew_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (file, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let app = upstream("v1").await;
    let mut proxy = logged(&file, "combined");
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    let request = "GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\nReferer: http://x/\"\r\nUser-Agent: Mozilla/5.0\r\n\r\n";
    visitor.send(request).await.unwrap();
    visitor.answer().await.unwrap().unwrap();
    let has = async |file: &Path, words: &str| {
        eventually(&format!("`{words}` is logged"), async || {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines().find(|line| line.contains(words)).map(str::to_owned)
        })
        .await
    };
    let line = has(&file, "GET /a?b=c").await;
    let (front, back) = line.split_once(']').unwrap();
    assert!(front.starts_with("127.0.0.1 - - [") && front.ends_with(" +0000"), "{line}");
    assert_eq!(back, r#" "GET /a?b=c HTTP/1.1" 200 2 "http://x/\x22" "Mozilla/5.0""#);
    std::fs::rename(&file, &moved).unwrap();
    proxy.signal(Signal::USR1);
    eventually("the file is there again", async || file.exists().then_some(())).await;
    visitor.get("shop.test", "/again").await.unwrap().unwrap();
    has(&file, "GET /again").await;
    assert!(!std::fs::read_to_string(&moved).unwrap().contains("/again"));
}

/// Reads the text form strictly: each family once with its HELP and TYPE, each sample below its family.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut families, mut family) = (BTreeMap::new(), BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone(), String::new()).is_none(), "{family} comes twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            families.insert(family.clone(), kind.to_owned());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let name = sample.split('{').next().unwrap();
        let is_histogram = families[&family] == "histogram";
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix).filter(|_| is_histogram));
        assert_eq!(base.unwrap_or(name), family, "{line}");
        if families[&family] == "counter" {
            assert!(name.ends_with("_total"), "{line}");
        }
        assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{sample} comes twice");
    }
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_are_what_clients_counted_over_flips() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let running = load(proxy.address(), Load { slow: 1, streams: 1, ..Load::default() });
    for flip in 1..=4 {
        let done = running.so_far().total;
        eventually("traffic", async || (running.so_far().total >= done + 300).then_some(())).await;
        proxy.serve("shop", if flip % 2 == 1 { green.address() } else { blue.address() }).await;
    }
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    green.behave(Behaviour::Status(500));
    blue.behave(Behaviour::Status(500));
    let mut visitor = client(proxy.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 500);
    assert_eq!(visitor.get("nobody.test", "/").await.unwrap().unwrap().status, 404);
    let metrics = parse(&proxy.text("/metrics").await);
    let of = |name: &str, slot: &str, more: &str| metrics[&format!("{name}{{service=\"shop\",slot=\"{slot}\"{more}}}")];
    for slot in ["blue", "green"] {
        let good = of("bgproxy_requests_total", slot, ",class=\"2xx\"");
        assert_eq!(good, verdict.versions[slot] as f64, "{slot}");
        let count = of("bgproxy_request_duration_seconds_count", slot, "");
        assert_eq!(of("bgproxy_request_duration_seconds_bucket", slot, ",le=\"+Inf\""), count);
        assert_eq!(count, good + of("bgproxy_requests_total", slot, ",class=\"5xx\""));
        let buckets = metrics.iter().filter(|(name, _)| name.contains("_bucket") && name.contains(slot));
        assert!(buckets.map(|(_, count)| *count).all(|bucket| bucket <= count));
        assert_eq!(of("bgproxy_upstream_duration_seconds_count", slot, ""), count);
        assert!(
            of("bgproxy_upstream_duration_seconds_sum", slot, "")
                <= of("bgproxy_request_duration_seconds_sum", slot, "")
        );
        assert_eq!(of("bgproxy_in_flight", slot, ""), 0.0);
        assert!(of("bgproxy_response_bytes_total", slot, "") > 0.0);
    }
    let bad: f64 = ["blue", "green"].map(|slot| of("bgproxy_requests_total", slot, ",class=\"5xx\"")).iter().sum();
    assert_eq!(bad, 1.0);
    assert_eq!(of("bgproxy_slot_live", "blue", "") + of("bgproxy_slot_live", "green", ""), 1.0);
    assert_eq!(metrics["bgproxy_flips_total{service=\"shop\"}"], 5.0);
    eventually("every old slot has drained", async || {
        let metrics = parse(&proxy.text("/metrics").await);
        (metrics["bgproxy_drains_total{service=\"shop\"}"] == 4.0).then_some(())
    })
    .await;
    assert_eq!(metrics["bgproxy_requests_received_total"], (verdict.total + 2) as f64);
}

/// Nobody reads the log, and no request waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_takes_drops_lines_and_counts_them_and_no_request_waits() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // Held open for reading, or opening it would wait; and never read.
    let _reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let app = upstream("v1").await;
    let mut proxy = logged(&pipe, "json");
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let running = load(proxy.address(), Load { slow: 0, ..Load::default() });
    let dropped = async || {
        let metrics = proxy.text("/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("bgproxy_access_log_dropped_total "));
        line.unwrap().parse::<u64>().ok().filter(|dropped| *dropped > 0)
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while dropped().await.is_none() {
        assert!(std::time::Instant::now() < until, "nothing was dropped of {:?}", running.so_far().total);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    assert!(verdict.slowest < Duration::from_secs(1), "{:?}", verdict.slowest);
    // Nor does the end.
    let told = std::time::Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_changes_while_it_runs_and_keeps_secrets_and_noise_out() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.log"), folder.path().join("second.log"));
    let app = upstream("v1").await;
    let mut proxy = logged(&first, "off");
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let ask = async |target: &str| {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.get("shop.test", target).await.unwrap().unwrap().status
    };
    let config =
        |file: &Path, more: &str| format!("[log]\naccess = \"json\"\naccess_file = \"{}\"\n{more}", file.display());
    ask("/unlogged").await;
    proxy.rewrite_config(&config(&second, "access_redact = [\"token\"]\naccess_exclude = [\"/static\"]\n"));
    eventually("the log is on", async || {
        ask("/knock").await;
        std::fs::read_to_string(&second).ok().filter(|text| text.contains("/knock")).map(drop)
    })
    .await;
    for target in ["/static/a.css", "/login?token=s3cret&x=1", "/staticx"] {
        ask(target).await;
    }
    // Each worker writes its own lines when it gets to it.
    let text = eventually("both are logged", async || {
        let has_both = |text: &String| text.contains("\"/staticx\"") && text.contains("\"/login");
        std::fs::read_to_string(&second).ok().filter(has_both)
    })
    .await;
    assert!(text.contains("/login?token=REDACTED&x=1") && !text.contains("s3cret"), "{text}");
    assert!(!text.contains("/static/") && !text.contains("/unlogged"), "{text}");
    assert!(!first.exists() || std::fs::read_to_string(&first).unwrap().is_empty());
    // A file that can't be opened is told, and the log goes on where it was.
    proxy.rewrite_config(&config(&folder.path().join("no/such.log"), ""));
    eventually("the bad file is told", async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await.lines[0]["warnings"].to_string();
        status.contains("no/such.log can't be opened").then_some(())
    })
    .await;
    ask("/still").await;
    let in_second = async |word: &str| {
        eventually(&format!("{word} is logged"), async || {
            std::fs::read_to_string(&second).unwrap().contains(word).then_some(())
        })
        .await;
    };
    in_second("\"/still\"").await;
    // One of so many, and all that fail. One connection is one worker, whose lines come in order.
    proxy.rewrite_config(&config(&second, "access_one_in = 1000000\n"));
    let mut visitor = client(proxy.address()).await.unwrap();
    let mut round = 0;
    let mut logged_of = async |target: &str| {
        round += 1;
        for _ in 0..3 {
            visitor.get("shop.test", &format!("{target}/{round}")).await.unwrap().unwrap();
        }
        assert_eq!(visitor.get("nobody.test", &format!("/failed/{round}")).await.unwrap().unwrap().status, 404);
        in_second(&format!("\"/failed/{round}\"")).await;
        std::fs::read_to_string(&second).unwrap().matches(&format!("{target}/{round}\"")).count()
    };
    let until = Instant::now() + Duration::from_secs(10);
    while logged_of("/sampled").await > 1 {
        assert!(Instant::now() < until, "every request is still logged");
    }
    // A service that wants no lines has none.
    proxy.rewrite_config(&config(&second, ""));
    let until = Instant::now() + Duration::from_secs(10);
    while logged_of("/all").await < 3 {
        assert!(Instant::now() < until, "not every request is logged again");
    }
    let options = json!({ "domains": ["shop.test"], "options": { "access_log": false } });
    assert_eq!(proxy.call("PUT", "/v1/services/shop", options).await.status, 200);
    assert_eq!(logged_of("/unwanted").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_have_a_port_of_their_own_where_one_is_named_and_nothing_else_is_there() {
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&format!("metrics = \"{metrics}\"\n"));
    proxy.start().await;
    let ask = async |path: &str| client(metrics).await.unwrap().get("proxy", path).await.unwrap().unwrap();
    let answer = ask("/metrics").await;
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/plain; version=0.0.4")));
    assert_eq!(parse(&answer.text())[&format!("bgproxy_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    for other in ["/v1/status", "/", "/v1/services"] {
        assert_eq!(ask(other).await.status, 404);
    }
}

/// W3C Trace Context: a trace goes on through the proxy as it is, in both versions of HTTP, and none is begun here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_passes_as_it_is_is_told_in_the_log_and_none_is_made() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let app = upstream("v1").await;
    let mut proxy = logged(&file, "json");
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let fields = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\ntracestate: rojo=00f067aa0ba902b7\r\n");
    let mut visitor = client(proxy.address()).await.unwrap();
    for (target, more) in [("/traced", fields.as_str()), ("/untraced", ""), ("/nonsense", "traceparent: nonsense\r\n")]
    {
        visitor.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n")).await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    }
    let socket = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let _connection = tokio::spawn(connection);
    let request = http::Request::get("http://shop.test/second")
        .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
        .header("tracestate", "rojo=00f067aa0ba902b7");
    let mut sender = sender.ready().await.unwrap();
    let answer = sender.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = app.seen();
    for (target, wanted) in [("/traced", 1), ("/untraced", 0), ("/second", 1)] {
        let head =
            seen.iter().find(|seen| seen.head.starts_with(&format!("GET {target} "))).unwrap().head.to_lowercase();
        assert_eq!(head.matches("\r\ntrace").count(), 2 * wanted, "{head}");
        assert_eq!(head.matches(&format!("\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n")).count(), wanted);
        assert_eq!(head.matches("\r\ntracestate: rojo=00f067aa0ba902b7\r\n").count(), wanted, "{head}");
    }
    let lines = eventually("all are logged", async || {
        Some(lines(&file)).filter(|lines| lines.iter().filter(|line| line["service"] == "shop").count() == 4)
    })
    .await;
    for (target, wanted) in
        [("/traced", json!(TRACE)), ("/untraced", Value::Null), ("/nonsense", Value::Null), ("/second", json!(TRACE))]
    {
        let line = lines.iter().find(|line| line["target"] == target).unwrap();
        assert_eq!(line["trace_id"], wanted, "{line}");
    }
}
