//! The proxy's own settings: by the admin API beside its file, and by the `[proxy]` table of `bluegreen.toml`.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Proxy, Site, client, eventually, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

async fn put(proxy: &Proxy, settings: Value) -> (u16, Value) {
    let answer = proxy.call("PUT", "/v1/proxy", settings).await;
    (answer.status, answer.lines[0].clone())
}

async fn warnings(proxy: &Proxy) -> String {
    proxy.call("GET", "/v1/status", json!({})).await.lines[0]["warnings"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_in_force_at_once_for_connections_that_are_open_too() {
    let app = upstream("v1").await;
    let proxy = proxy();
    proxy.serve("shop", app.address()).await;
    let mut open = client(proxy.address()).await.unwrap();
    assert_eq!(open.get("shop.test", "/").await.unwrap().unwrap().status, 200);
    let (status, answer) =
        put(&proxy, json!({ "trusted_proxies": ["127.0.0.0/8"], "limits": { "idle_timeout": "300ms" } })).await;
    assert_eq!((status, &answer["generation"]), (200, &json!(1)), "{answer}");
    // Under the default it would stay for 75 s.
    let told = Instant::now();
    assert_eq!(open.rest().await.unwrap(), b"");
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    let forwarded = async || {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n").await.unwrap();
        assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
        app.seen().pop().unwrap().head.to_lowercase()
    };
    assert!(forwarded().await.contains("\r\nx-real-ip: 192.0.2.1\r\n"));
    // As a whole: what is left out goes back to its default.
    assert_eq!(put(&proxy, json!({})).await.0, 200);
    assert!(forwarded().await.contains("\r\nx-real-ip: 127.0.0.1\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_is_its_makers_and_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config("[limits]\nidle_timeout = \"50s\"\n");
    proxy.start().await;
    // What the file says otherwise is the file's; what it says too is no quarrel.
    let (status, refused) =
        put(&proxy, json!({ "limits": { "idle_timeout": "9s" }, "log": { "access": "json" } })).await;
    assert_eq!((status, &refused["code"]), (409, &json!("other_origin")), "{refused}");
    assert!(
        refused["message"].as_str().unwrap().starts_with("limits.idle_timeout belongs to bgproxy.toml"),
        "{refused}"
    );
    assert!(refused["hint"].as_str().unwrap().contains("change it there"), "{refused}");
    let unchanged = proxy.call("GET", "/v1/proxy", json!({})).await.lines[0].clone();
    assert_eq!((&unchanged["generation"], &unchanged["in_force"]["log"]["access"]), (&json!(0), &json!("off")));
    let table = json!({ "limits": { "idle_timeout": "50s" }, "log": { "access": "json", "access_file": log } });
    let (status, set) = put(&proxy, table.clone()).await;
    assert_eq!((status, &set["settings"], &set["file"]), (200, &table, &json!(["limits.idle_timeout"])), "{set}");
    let logged = async |proxy: &Proxy, target: &str| {
        eventually(&format!("{target} is logged"), async || {
            let mut visitor = client(proxy.address()).await.unwrap();
            visitor.get("nobody.test", target).await.unwrap().unwrap();
            fs::read_to_string(&log).unwrap_or_default().contains(target).then_some(())
        })
        .await;
    };
    logged(&proxy, "/before").await;
    proxy.kill();
    proxy.start().await;
    assert_eq!(proxy.call("GET", "/v1/proxy", json!({})).await.lines[0], set);
    logged(&proxy, "/after").await;
    // What the file comes to say is in force, and told.
    proxy.rewrite_config("[limits]\nidle_timeout = \"7s\"\n[log]\naccess = \"off\"\n");
    eventually("the file's word is in force", async || {
        let proxy = proxy.call("GET", "/v1/proxy", json!({})).await.lines[0].clone();
        let both = (&proxy["in_force"]["log"]["access"], &proxy["in_force"]["limits"]["idle_timeout"]);
        (both == (&json!("off"), &json!("7s"))).then_some(())
    })
    .await;
    let told = warnings(&proxy).await;
    assert!(told.contains("log.access was set by the admin API") && told.contains("limits.idle_timeout"), "{told}");
    proxy.rewrite_config("");
    logged(&proxy, "/again").await;
    assert_eq!(warnings(&proxy).await, "[]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_or_can_not_be_saved_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_state(folder.path().join("state"));
    proxy.start().await;
    let good = json!({ "log": { "access": "json", "access_file": folder.path().join("access.log") } });
    assert_eq!(put(&proxy, good.clone()).await.0, 200);
    for (wrong, words) in [
        (json!({ "listen": ["0.0.0.0:80"] }), "unknown field `listen`"),
        (json!({ "limits": { "header_bytes": 9000 } }), "unknown field `header_bytes`"),
        (json!({ "trusted_proxies": ["10.0.0.0/33"] }), "is not a network"),
        (json!({ "limits": { "idle_timeout": "2days" } }), "longer than a day"),
        (json!({ "log": { "access_file": "/no/such/folder/access.log" } }), "can't be opened"),
    ] {
        let (status, refused) = put(&proxy, wrong.clone()).await;
        assert_eq!((status, &refused["code"]), (400, &json!("bad_request")), "{wrong}");
        assert!(refused["message"].as_str().unwrap().contains(words), "{refused}");
    }
    let hint = put(&proxy, json!({ "listen": [] })).await.1["hint"].to_string();
    assert!(hint.contains("needs a restart"), "{hint}");
    // A folder in the place of the file that is written first: as if the disk refused.
    fs::create_dir(proxy.state().join("proxy.next")).unwrap();
    let (status, refused) = put(&proxy, json!({ "log": { "access": "off" } })).await;
    assert_eq!((status, &refused["code"]), (507, &json!("not_saved")), "{refused}");
    let now = proxy.call("GET", "/v1/proxy", json!({})).await.lines[0].clone();
    assert_eq!((&now["generation"], &now["settings"]), (&json!(1), &good));
    fs::remove_dir(proxy.state().join("proxy.next")).unwrap();
    assert_eq!(put(&proxy, json!({})).await.0, 200);
    // An access log that can't be opened any more keeps no proxy from starting.
    let gone = folder.path().join("gone");
    fs::create_dir(&gone).unwrap();
    assert_eq!(put(&proxy, json!({ "log": { "access": "json", "access_file": gone.join("a.log") } })).await.0, 200);
    proxy.kill();
    fs::remove_dir_all(&gone).unwrap();
    proxy.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_log_that_is_not_there_at_the_start_is_opened_when_told_and_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let log = gone.join("a.log");
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    fs::create_dir(&gone).unwrap();
    assert_eq!(put(&proxy, json!({ "log": { "access": "json", "access_file": log } })).await.0, 200);
    for told in [Some(Signal::HUP), Some(Signal::USR1), None] {
        proxy.kill();
        fs::remove_dir_all(&gone).unwrap();
        proxy.start().await;
        fs::create_dir(&gone).unwrap();
        let began = Instant::now();
        told.into_iter().for_each(|signal| proxy.signal(signal));
        eventually("a line is in the file", async || {
            let mut visitor = client(proxy.address()).await.unwrap();
            visitor.get("nobody.test", "/late").await.unwrap().unwrap();
            fs::read_to_string(&log).unwrap_or_default().contains("/late").then_some(())
        })
        .await;
        // By itself it would be tried after five seconds.
        assert!(told.is_none() || began.elapsed() < Duration::from_secs(4), "{told:?}: {:?}", began.elapsed());
    }
}

/// By the real programs: `apply` sends the table, a deployment sends it when it has gone well, and `plan` tells it before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_the_project_is_planned_applied_and_deployed() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bluegreen.toml");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shop = |image: &str| {
        format!("[services.shop]\nimage = \"{image}\"\nport = {port}\ndomains = [\"shop.test\"]\nbake = \"0s\"\n")
    };
    let write = |proxy: &str, services: &str| fs::write(&path, format!("{proxy}{services}")).unwrap();
    let run = async |words: &[&str]| site.start_in(folder.path(), words).end().await;
    let changed = async || {
        let plan = run(&["plan"]).await;
        assert_eq!(plan.code, Some(0), "{}", plan.talk);
        plan.events[0]["proxy"]["changed"].clone()
    };

    write("[proxy.limits]\nidle_timeout = \"9s\"\n", "");
    assert_eq!(changed().await, json!({ "limits.idle_timeout": ["1m 15s", "9s"] }));
    let applied = run(&["apply"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.talk);
    let wanted = json!([{ "service": null, "changed": { "limits.idle_timeout": ["1m 15s", "9s"] } }]);
    assert_eq!(applied.events[0], wanted);
    assert_eq!(changed().await, json!({}));
    let words = site.bgctl_plain(&["--file", path.to_str().unwrap(), "plan"]).await;
    assert_eq!(String::from_utf8(words.stdout).unwrap(), "the proxy: nothing to change\n");

    // A deployment that fails leaves the proxy as it is; one that goes well takes the table with it.
    write("[proxy.limits]\nidle_timeout = \"8s\"\n", &shop(&site.script("broken", "exit 3")));
    assert_eq!(run(&["deploy"]).await.code, Some(5));
    assert_eq!(changed().await, json!({ "limits.idle_timeout": ["9s", "8s"] }));
    write("[proxy.limits]\nidle_timeout = \"8s\"\n", &shop(&site.version("v1", Duration::ZERO)));
    let deployed = run(&["deploy"]).await;
    assert_eq!(deployed.code, Some(0), "{}", deployed.talk);
    assert!(deployed.talk.contains("proxy: limits.idle_timeout: 9s -> 8s"), "{}", deployed.talk);
    assert_eq!(changed().await, json!({}));

    // Without the table it stays; a service by itself leaves it alone; what is wrong is told at its place.
    write("", &shop("v1"));
    assert_eq!(changed().await, Value::Null);
    write("[proxy]\n", &shop("v1"));
    assert_eq!(run(&["apply", "shop"]).await.events[0].as_array().unwrap().len(), 1);
    assert_eq!(changed().await, json!({ "limits.idle_timeout": ["8s", "1m 15s"] }));
    write("[proxy]\nlisten = [\"0.0.0.0:80\"]\n", &shop("v1"));
    let check = run(&["check"]).await;
    let problem = &check.events[0]["problems"][0];
    assert_eq!((check.code, &problem["line"], &problem["column"]), (Some(1), &json!(2), &json!(1)));
    assert!(problem["what"].as_str().unwrap().contains("needs a restart"), "{problem}");
    let schema = run(&["schema"]).await;
    assert!(schema.events[0]["properties"]["proxy"]["properties"]["log"]["properties"]["access"].is_object());
}

/// The access log of a proxy that bgctl runs: switched on by the table, shown whole or a service's own, followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_is_switched_on_by_the_table_and_shown_by_service() {
    let (site, app) = (Site::new(PROGRAMS), upstream("v1").await);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bluegreen.toml");
    for name in ["shop", "blog"] {
        let (host, to) = (format!("{name}.test"), app.address().to_string());
        let routed = site.bgctl(&["route", name, "--to", &to, "--domain", &host, "--bake", "0s"]).await;
        assert_eq!(routed.code, Some(0), "{}", routed.talk);
    }
    let off = site.bgctl(&["logs", "--access"]).await;
    assert_eq!(off.code, Some(1));
    assert!(off.talk.contains("the access log is off") && off.talk.contains("access = \"json\""), "{}", off.talk);

    let apply = async |form: &str| {
        fs::write(&path, format!("[proxy.log]\naccess = \"{form}\"\n")).unwrap();
        let applied = site.bgctl(&["--file", path.to_str().unwrap(), "apply"]).await;
        assert_eq!(applied.code, Some(0), "{}", applied.talk);
    };
    apply("json").await;
    let ask = async |host: &str, target: &str| {
        client(site.address()).await.unwrap().get(host, target).await.unwrap().unwrap();
    };
    let shown = async |words: &[&str]| {
        let ended = site.bgctl(&[&["logs", "--access"], words].concat()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.talk);
        ended.events.iter().map(|event| event["line"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The workers learn of it soon.
    eventually("the log is on", async || {
        ask("shop.test", "/knock").await;
        shown(&[]).await.iter().any(|line| line.contains("/knock")).then_some(())
    })
    .await;
    for target in ["/1", "/2"] {
        ask("shop.test", target).await;
    }
    ask("blog.test", "/3").await;
    eventually("all are logged", async || {
        let lines = shown(&[]).await.concat();
        ["/1\"", "/2\"", "/3\""].iter().all(|target| lines.contains(target)).then_some(())
    })
    .await;
    let of_shop = shown(&["shop"]).await;
    assert!(of_shop.iter().all(|line| line.contains("\"service\":\"shop\"")), "{of_shop:?}");
    let last = shown(&["blog", "-n", "1"]).await;
    assert!(last.len() == 1 && last[0].contains("\"/3\""), "what is not the service's doesn't count: {last:?}");
    let mut following = site.start(&["logs", "blog", "--access", "-f", "-n", "1"]);
    following.until_line("/3").await;
    ask("shop.test", "/4").await;
    ask("blog.test", "/5").await;
    following.until_line("/5").await;
    following.signal(rustix::process::Signal::INT);
    let events = following.end().await.events;
    assert_eq!(events.len(), 2, "{events:?}");
    // The proxy's own log is another.
    let own = site.bgctl(&["logs", "--proxy"]).await;
    assert!(own.events.iter().all(|event| !event["line"].as_str().unwrap().contains("/3")), "{own:?}");

    apply("combined").await;
    let combined = site.bgctl(&["logs", "shop", "--access"]).await;
    assert_eq!(combined.code, Some(1));
    assert!(combined.talk.contains("don't say whose they are"), "{}", combined.talk);
    assert_eq!(site.bgctl(&["logs", "nobody", "--access"]).await.code, Some(1));
}
