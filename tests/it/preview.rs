//! A version that waits for its flip, looked at through the service's own domain by whoever has a link.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Proxy, Response, Site, client, eventually, proxy, proxy_program, upstream};

use crate::programs::PROGRAMS;

async fn get(proxy: &Proxy, target: &str, cookie: Option<&str>) -> Response {
    let mut visitor = client(proxy.address()).await.unwrap();
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    visitor.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n")).await.unwrap();
    visitor.answer().await.unwrap().unwrap()
}

async fn preview(proxy: &Proxy, lasts: &str) -> Value {
    let answer = proxy.call("POST", "/v1/services/shop/preview", json!({ "lasts": lasts })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.lines[0].clone()
}

/// Follows a link and returns the cookie.
async fn enter(proxy: &Proxy, token: &str) -> String {
    let entered = get(proxy, &format!("/page?a=1&bg_preview={token}"), None).await;
    assert_eq!((entered.status, entered.field("location")), (302, Some("/page?a=1")), "{entered:?}");
    entered.field("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_link_sees_the_version_that_waits_until_it_is_flipped_to() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let nothing = proxy.call("POST", "/v1/services/shop/preview", json!({})).await;
    assert_eq!((nothing.status, &nothing.lines[0]["code"]), (409, &json!("empty_slot")), "{nothing:?}");
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    let forever = proxy.call("POST", "/v1/services/shop/preview", json!({ "lasts": "9000h" })).await;
    assert_eq!((forever.status, &forever.lines[0]["code"]), (400, &json!("bad_request")), "{forever:?}");
    let link = preview(&proxy, "1h").await;
    assert_eq!(link["slot"], "green");
    let cookie = enter(&proxy, link["token"].as_str().unwrap()).await;
    let shown = get(&proxy, "/page?a=1", Some(&format!("x=y; {cookie}"))).await;
    assert_eq!((shown.text().as_str(), shown.field("set-cookie")), ("green", None));
    assert_eq!(shown.field("cache-control"), Some("no-store"), "no cache may take it for the live version");
    // Its probes go on meanwhile.
    let seen = green.seen().into_iter().rfind(|seen| seen.first_line.contains("/page")).unwrap();
    assert!(
        seen.head.contains("x=y") && !seen.head.contains("bg-preview") && !seen.head.contains("bg_preview"),
        "{seen:?}"
    );
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
    assert_eq!(status.lines[0]["preview"]["slot"], "green", "{status:?}");

    let twice = get(&proxy, "/page", Some(&format!("{cookie}\r\nCookie: {cookie}"))).await;
    assert_eq!((twice.text().as_str(), green.seen().pop().unwrap().head.contains("ookie")), ("green", false));

    // Nobody else is shown it, and what was made up is no link.
    assert_eq!(get(&proxy, "/", None).await.text(), "blue");
    let made_up = get(&proxy, "/", Some("bg-preview-shop=ffffffff.00000000000000000000000000000000; x=y")).await;
    assert_eq!(made_up.text(), "blue");
    let seen = blue.seen().pop().unwrap();
    assert!(seen.head.contains("x=y") && !seen.head.contains("bg-preview"), "{seen:?}");
    let refused = get(&proxy, "/?bg_preview=ffffffff.00000000000000000000000000000000", None).await;
    assert_eq!((refused.status, refused.text().contains("holds no more")), (400, true), "{refused:?}");

    // It goes beside a canary, and outlives that.
    for (percent, version) in [(100, "green"), (0, "blue")] {
        let canary = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": percent })).await;
        assert_eq!(canary.status, 200, "{canary:?}");
        assert_eq!(get(&proxy, "/", None).await.text(), version);
        assert_eq!(get(&proxy, "/", Some(&cookie)).await.text(), "green");
    }
    assert_eq!(proxy.flip("shop").await.status, 200);
    assert_eq!(get(&proxy, "/", Some(&cookie)).await.text(), "green");
    assert_eq!(proxy.flip("shop").await.status, 200);
    assert_eq!(get(&proxy, "/", Some(&cookie)).await.text(), "blue", "it was live, and is shown to nobody any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_ends_with_its_time_and_with_another_staging() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    let short = enter(&proxy, preview(&proxy, "3s").await["token"].as_str().unwrap()).await;
    assert_eq!(get(&proxy, "/", Some(&short)).await.text(), "green");
    let long = enter(&proxy, preview(&proxy, "1h").await["token"].as_str().unwrap()).await;
    eventually("the short link ends", async || (get(&proxy, "/", Some(&short)).await.text() == "blue").then_some(()))
        .await;
    assert_eq!(get(&proxy, "/", Some(&long)).await.text(), "green");
    // The same address again is another version all the same.
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    assert_eq!(get(&proxy, "/", Some(&long)).await.text(), "blue");
    drop(preview(&proxy, "1s").await);
    eventually("the preview ends by itself", async || {
        let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
        status.lines[0]["preview"].is_null().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_without_a_flip_prints_the_link_and_so_does_the_command() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let quick = Duration::from_millis(100);
    assert_eq!(site.switch(&site.version("v1", quick), &[]).end().await.code, Some(0));
    let none = site.bgctl(&["preview", "shop"]).await;
    assert_eq!(none.code, Some(4), "{}", none.talk);
    assert!(none.talk.contains("no version that waits for its flip"), "{}", none.talk);
    let staged = site.switch(&site.version("v2", quick), &["--no-flip"]).end().await;
    assert_eq!(staged.code, Some(0), "{}", staged.talk);
    let port = site.address().port();
    let printed = staged.report()["preview"]["url"].as_str().unwrap().to_owned();
    assert!(staged.talk.contains(&printed), "{}", staged.talk);
    for way in [
        "some visitors: bgctl canary shop 10 --engine process",
        "all of them: bgctl switch shop --continue --engine process",
    ] {
        assert!(staged.talk.contains(way), "{}", staged.talk);
    }
    let status = site.bgctl_plain(&["status", "shop"]).await;
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("whoever has a link sees GREEN of shop, for 3"), "{status}");
    let made = site.bgctl(&["preview", "shop", "--for", "10m", "--path", "/basket"]).await;
    assert_eq!(made.code, Some(0), "{}", made.talk);
    let made = made.events[0]["url"].as_str().unwrap().to_owned();
    for (url, path) in [(printed, "/"), (made, "/basket")] {
        let target = url.strip_prefix(&format!("http://shop.test:{port}")).unwrap_or_else(|| panic!("{url}"));
        let mut visitor = client(site.address()).await.unwrap();
        let entered = visitor.get("shop.test", target).await.unwrap().unwrap();
        assert_eq!((entered.status, entered.field("location")), (302, Some(path)), "{url}");
    }
    let history = site.bgctl(&["history", "shop"]).await;
    assert!(!history.events[0].to_string().contains("bg_preview"), "a link is no one's history");
    let on = site.start(&["switch", "shop", "--continue", "--bake", "0s"]).end().await;
    assert_eq!(on.code, Some(0), "{}", on.talk);
    assert!(on.talk.contains("LIVE: shop on GREEN"), "{}", on.talk);
}

/// The link and its cookie lead to the version that waits after a kill of the proxy, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_holds_after_a_kill_of_the_proxy_and_one_whose_time_is_over_does_not() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    let link = preview(&proxy, "1h").await;
    let token = link["token"].as_str().unwrap().to_owned();
    let seen_by =
        async |proxy: &Proxy, cookie: &str| get(proxy, "/", Some(cookie)).await.field("x-version").map(str::to_owned);
    let cookie = enter(&proxy, &token).await;
    assert_eq!(seen_by(&proxy, &cookie).await.as_deref(), Some("green"));
    proxy.kill();
    proxy.start().await;
    eventually("it is shown again", async || {
        (seen_by(&proxy, &cookie).await.as_deref() == Some("green")).then_some(())
    })
    .await;
    assert_eq!(enter(&proxy, &token).await, cookie);
    assert_eq!(get(&proxy, "/", None).await.field("x-version"), Some("blue"));
    // It can still be flipped to, and then nothing is shown to anybody any more: what is left of the link is nothing to the application.
    assert_eq!(proxy.flip("shop").await.status, 200);
    for _ in 0..2 {
        let left = get(&proxy, &format!("/left?a=1&bg_preview={token}"), Some(&format!("x=y; {cookie}"))).await;
        assert_eq!((left.status, left.field("x-version")), (200, Some("green")));
        let seen = green.seen().into_iter().rfind(|seen| seen.first_line.contains("/left")).unwrap();
        assert_eq!(seen.first_line, "GET /left?a=1 HTTP/1.1");
        assert!(seen.head.contains("x=y") && !seen.head.contains("bg-preview"), "{seen:?}");
        proxy.kill();
        proxy.start().await;
    }
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    assert_eq!((&status["live"], &status["preview"]), (&json!("green"), &Value::Null), "{status}");

    // Another staging is another version, though it has no deployment's id and the same address: the link is not for that.
    assert_eq!(proxy.stage("shop", blue.address()).await["event"], "healthy");
    let first = preview(&proxy, "1h").await["token"].as_str().unwrap().to_owned();
    let old = enter(&proxy, &first).await;
    assert_eq!(proxy.stage("shop", blue.address()).await["event"], "healthy");
    preview(&proxy, "1s").await;
    assert_eq!(get(&proxy, &format!("/?bg_preview={first}"), None).await.status, 400);
    assert_eq!(seen_by(&proxy, &old).await.as_deref(), Some("green"), "the live one");
    proxy.kill();
    proxy.start().await;
    eventually("its time is over", async || {
        let status = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
        status["preview"].is_null().then_some(())
    })
    .await;
}
