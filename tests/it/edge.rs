//! What stands before an application: redirects, rules, passwords and changed fields, by the admin API and by both files.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Proxy, Response, Seen, Site, Upstream, client, eventually, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

/// The hash of `secret`.
const SECRET: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

async fn site(options: Value) -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    set(&proxy, options).await;
    (proxy, app)
}

async fn set(proxy: &Proxy, options: Value) {
    proxy.set_options(&["shop.test", "*.shop.test"], options).await;
}

async fn ask(proxy: &Proxy, host: &str, target: &str, fields: &str) -> Response {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await.unwrap();
    visitor.answer().await.unwrap().unwrap()
}

/// What the application was asked by visitors, and not by probes.
fn asked(app: &Upstream) -> Vec<Seen> {
    app.seen().into_iter().filter(|seen| seen.head.to_lowercase().contains("x-request-id")).collect()
}

/// What a request with a name and a password says.
fn basic(words: &str) -> String {
    use base64::Engine as _;
    format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_redirected_before_the_application_is_asked() {
    let (proxy, app) = site(json!({
        "canonical_host": "shop.test",
        "redirects": [{ "from": "/old/*", "to": "/new/$1", "status": 301 }],
        "response_headers": { "set": { "X-By": "$service" } },
    }))
    .await;
    let answer = ask(&proxy, "www.shop.test", "/a?b=c", "").await;
    assert_eq!((answer.status, answer.field("location")), (308, Some("http://shop.test/a?b=c")));
    assert_eq!((answer.field("x-by"), answer.field("x-request-id").is_some()), (Some("shop"), true));
    let answer = ask(&proxy, "shop.test", "/old/1?q", "").await;
    assert_eq!((answer.status, answer.field("location")), (301, Some("/new/1?q")));
    assert_eq!(asked(&app).len(), 0);
    // A body that nobody reads spoils nothing: the next request of the connection is answered.
    let mut visitor = client(proxy.address()).await.unwrap();
    let post = "POST /old/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello";
    visitor.send(post).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 301);
    let answer = ask(&proxy, "shop.test", "/", "").await;
    assert_eq!((answer.status, answer.field("x-by")), (200, Some("shop")));
    // A container asks for it by its name within the network.
    assert_eq!(ask(&proxy, "shop.internal", "/", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_a_guess_keeps_no_visitor_waiting() {
    let (proxy, app) = site(json!({
        "basic_auth": [{ "realm": "stage", "users": { "alice": SECRET }, "except": ["/health"] }],
        "request_headers": { "set": { "X-User": "$remote_user" }, "remove": ["Authorization"] },
    }))
    .await;
    let answer = ask(&proxy, "shop.test", "/", "").await;
    let challenge = "Basic realm=\"stage\", charset=\"UTF-8\"";
    assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some(challenge)));
    assert_eq!(ask(&proxy, "shop.test", "/", &basic("alice:wrong")).await.status, 401);
    assert_eq!(asked(&app).len(), 0);
    assert_eq!(ask(&proxy, "shop.test", "/health", "").await.status, 200);
    assert_eq!(ask(&proxy, "shop.test", "/", &basic("alice:secret")).await.status, 200);
    let head = asked(&app).pop().unwrap().head.to_lowercase();
    assert!(head.contains("\r\nx-user: alice\r\n") && !head.contains("authorization"), "{head}");
    // While hashes are computed that take long, others are served: those who are known, and those of other services.
    let slow = SECRET.replacen("$05$", "$12$", 1);
    set(&proxy, json!({ "basic_auth": [{ "users": { "alice": SECRET, "slow": slow } }] })).await;
    assert_eq!(ask(&proxy, "shop.test", "/", &basic("alice:secret")).await.status, 200);
    let mut guesses = Vec::new();
    for _ in 0..4 {
        let mut guess = client(proxy.address()).await.unwrap();
        guess.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{}\r\n", basic("slow:guess"))).await.unwrap();
        guesses.push(guess);
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&proxy, "shop.test", "/", &basic("alice:secret")).await.status, 200);
    }
    let took = began.elapsed();
    for mut guess in guesses {
        assert_eq!(guess.answer().await.unwrap().unwrap().status, 401);
    }
    let all = began.elapsed();
    assert!(took < all / 2, "those who are known took {took:?} of {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_may_not_come_is_told_so_and_the_admin_api_refuses_what_is_wrong() {
    let (proxy, app) = site(json!({ "access": [{ "path": "/admin", "deny": ["127.0.0.0/8"] }] })).await;
    assert_eq!(ask(&proxy, "shop.test", "/", "").await.status, 200);
    for path in ["/admin", "/%61dmin/x", "//admin"] {
        assert_eq!(ask(&proxy, "shop.test", path, "X-Forwarded-For: 192.0.2.1\r\n").await.status, 403, "{path}");
    }
    assert_eq!(asked(&app).len(), 1);
    let wrong = json!({ "options": { "request_headers": { "set": { "Content-Length": "0" } } } });
    let answer = proxy.call("PUT", "/v1/services/shop", wrong).await;
    let told = answer.lines[0]["message"].as_str().unwrap();
    assert!(answer.status == 400 && told.contains("`content-length` frames the message"), "{answer:?}");
    assert_eq!(ask(&proxy, "shop.test", "/admin", "").await.status, 403);
    // What is taken out is no longer asked.
    set(&proxy, json!({})).await;
    assert_eq!(ask(&proxy, "shop.test", "/admin", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_has_its_path_and_key_and_tells_when_to_come_back() {
    let (proxy, _app) = site(json!({ "rate_limits": [
        { "requests": 2, "per": "1m", "path": "/login" },
        { "requests": 1, "per": "1m", "by": "header:X-Key", "path": "/api" },
    ] }))
    .await;
    let statuses = async |target: &str, fields: &str| {
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(ask(&proxy, "shop.test", target, fields).await.status);
        }
        statuses
    };
    assert_eq!(statuses("/login", "").await, [200, 200, 429]);
    assert_eq!(statuses("/", "").await, [200, 200, 200]);
    assert_eq!(statuses("/api", "X-Key: a\r\n").await, [200, 429, 429]);
    assert_eq!(statuses("/api", "X-Key: b\r\n").await, [200, 429, 429]);
    let wait: u64 = ask(&proxy, "shop.test", "/login", "").await.field("retry-after").unwrap().parse().unwrap();
    assert!((20..=31).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_requests_of_a_client_are_under_way_at_once_and_no_more() {
    let (proxy, app) = site(json!({ "rate_limits": [{ "connections": 1 }] })).await;
    let mut slow = client(proxy.address()).await.unwrap();
    slow.send("GET /slow/600000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("the slow one is under way", async || (asked(&app).len() == 1).then_some(())).await;
    assert_eq!(ask(&proxy, "shop.test", "/", "").await.status, 429);
    drop(slow);
    eventually("its place is free", async || (ask(&proxy, "shop.test", "/", "").await.status == 200).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_and_paths_are_changed_whatever_the_client_says_of_them() {
    let (proxy, app) = site(json!({
        "rewrite": [{ "prefix": "/api", "to": "/v1" }],
        "request_headers": {
            "set": { "X-Role": "guest", "Host": "app.local", "X-Slot": "$slot", "X-Forwarded-Proto": "https" },
            "remove": ["X-Debug"],
        },
        "response_headers": { "set": { "X-Slot": "$slot" } },
        "security_headers": true,
    }))
    .await;
    // Who lists a field in `Connection` asks for it to be taken out: not of what the operator sets.
    let fields = "Connection: X-Role\r\nX-Role: admin\r\nX-Debug: 1\r\n";
    let answer = ask(&proxy, "shop.test", "/api/x?q=1", fields).await;
    assert_eq!((answer.status, answer.field("x-content-type-options")), (200, Some("nosniff")));
    let seen = asked(&app).pop().unwrap();
    assert!(seen.first_line.starts_with("GET /v1/x?q=1 "), "{}", seen.first_line);
    let head = seen.head.to_lowercase();
    let slot = answer.field("x-slot").unwrap().to_owned();
    for line in ["x-role: guest", "host: app.local", &format!("x-slot: {slot}"), "x-forwarded-host: shop.test"] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
    }
    assert_eq!(head.matches("x-forwarded-proto: ").count(), 1);
    assert!(
        head.contains("x-forwarded-proto: https") && !head.contains("x-debug") && !head.contains("admin"),
        "{head}"
    );
    // An answer of our own has them too.
    proxy.call("POST", "/v1/services/shop/maintenance", json!({ "on": true })).await;
    let answer = ask(&proxy, "shop.test", "/", "").await;
    assert_eq!((answer.status, answer.field("x-frame-options")), (503, Some("SAMEORIGIN")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http2_is_judged_as_any_other() {
    let (proxy, _app) = site(json!({
        "canonical_host": "shop.test",
        "basic_auth": [{ "users": { "alice": SECRET }, "path": "/in" }],
        "response_headers": { "set": { "X-By": "edge" } },
    }))
    .await;
    let url = |path: &str| format!("http://{}{path}", proxy.address());
    let curl = async |words: &[&str], path: &str| {
        let all = [
            &["-s", "-o", "/dev/null", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code} %header{x-by}"],
            words,
        ];
        let output = tokio::process::Command::new("curl").args(all.concat()).arg(url(path)).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&["-H", "Host: shop.test"], "/").await, "2 200 edge");
    assert_eq!(curl(&["-H", "Host: www.shop.test"], "/").await, "2 308 edge");
    assert_eq!(curl(&["-H", "Host: shop.test"], "/in").await, "2 401 edge");
    assert_eq!(curl(&["-H", "Host: shop.test", "-u", "alice:secret"], "/in").await, "2 200 edge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxys_file_sets_them_and_a_file_of_users_is_watched() {
    let app = upstream("v1").await;
    let config = |options: &str| {
        format!(
            "[services.shop]\ndomains = [\"shop.test\"]\nendpoints = [\"{}\"]\n[services.shop.options]\n{options}",
            app.address()
        )
    };
    let mut proxy =
        proxy_program(PROGRAMS.bgproxy).with_config(&config("basic_auth = { users_file = \"htpasswd\" }\n"));
    proxy.write_beside("htpasswd", &format!("alice:{SECRET}\n"));
    proxy.start().await;
    let status = async |fields: &str| ask(&proxy, "shop.test", "/", fields).await.status;
    assert_eq!((status("").await, status(&basic("alice:secret")).await), (401, 200));
    proxy.write_beside("htpasswd", &format!("bob:{SECRET}\n"));
    eventually("another user is known", async || (status(&basic("bob:secret")).await == 200).then_some(())).await;
    assert_eq!(status(&basic("alice:secret")).await, 401);
    // What is wrong changes nothing, and is told with its place.
    proxy.rewrite_config(&config(
        "access = { deny = [\"127.0.0.1\"] }\nredirects = [{ from = \"old\", to = \"/new\" }]\n",
    ));
    eventually("it is told", async || {
        let warnings = proxy.call("GET", "/v1/status", json!({})).await.lines[0]["warnings"].to_string();
        warnings.contains("`old` does not begin with `/`").then_some(())
    })
    .await;
    assert_eq!(status(&basic("bob:secret")).await, 200);
    proxy.rewrite_config(&config("access = { deny = [\"127.0.0.1\"] }\n"));
    eventually("the network is refused", async || (status("").await == 403).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bgctl_brings_them_from_its_file_and_tells_what_is_wrong_with_it() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let ended = site.switch(&site.version("v1", Duration::ZERO), &["--domain", "shop.test"]).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.talk);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    fs::write(folder.path().join("htpasswd"), format!("alice:{SECRET}\n")).unwrap();
    let apply = async |options: &str| {
        fs::write(&file, format!("[services.shop]\ndomains = [\"shop.test\"]\n[services.shop.options]\n{options}"))
            .unwrap();
        site.bgctl_plain(&["--file", file.to_str().unwrap(), "apply"]).await
    };
    let output =
        apply("redirects = [{ from = \"/old\", to = \"/new\" }]\nbasic_auth = { users_file = \"htpasswd\" }\n").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("options.redirects") && !said.contains("$2"), "{said}");
    let get = async |target: &str, fields: &str| {
        let mut visitor = client(site.address()).await.unwrap();
        visitor.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")).await.unwrap();
        visitor.answer().await.unwrap().unwrap().status
    };
    assert_eq!((get("/old", "").await, get("/", "").await), (308, 401));
    assert_eq!(get("/", &basic("alice:secret")).await, 200);
    let output = apply("rate_limits = [{ burst = 3 }]\nrequest_headers = { set = { X = \"$hots\" } }\n").await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for words in
        ["the limit has no number", "there is no variable `$hots`", "the variables are $host", "bluegreen.toml:4"]
    {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    assert_eq!(get("/", "").await, 401);
}
