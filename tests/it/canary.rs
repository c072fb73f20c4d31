//! A share of visitors on the idle slot: as told, each where it was, and back where that slot does badly.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Behaviour, Load, Proxy, Site, client, eventually, load, proxy, proxy_program, upstream, upstream_at};

use crate::programs::PROGRAMS;

/// A visit with or without a cookie: who answered, and the cookie that was set.
async fn visit(proxy: &Proxy, cookie: Option<&str>) -> (String, Option<String>) {
    let mut visitor = client(proxy.address()).await.unwrap();
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    visitor.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n")).await.unwrap();
    let answer = visitor.answer().await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let set = answer.field("set-cookie").map(|set| set.split(';').next().unwrap().to_owned());
    (answer.text(), set)
}

async fn canary(proxy: &Proxy, percent: u8) -> Value {
    let answer = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": percent })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.lines[0]["canary"].clone()
}

async fn is_over(proxy: &Proxy) -> Option<()> {
    let status = proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    status["canary"].is_null().then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_shared_as_told_and_stay_where_they_were() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let empty = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": 10 })).await;
    assert_eq!((empty.status, &empty.lines[0]["code"]), (409, &json!("empty_slot")), "{empty:?}");
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    assert_eq!(canary(&proxy, 30).await, json!({ "slot": "green", "percent": 30 }));
    let mut shares = BTreeMap::new();
    let mut visitors = Vec::new();
    for _ in 0..300 {
        let (version, cookie) = visit(&proxy, None).await;
        *shares.entry(version.clone()).or_insert(0) += 1;
        visitors.push((version, cookie.unwrap()));
    }
    assert!((50..130).contains(&shares["green"]), "{shares:?}");
    for (version, cookie) in &visitors {
        assert_eq!(visit(&proxy, Some(cookie)).await, (version.clone(), None));
    }
    // A greater share takes in the smaller.
    canary(&proxy, 60).await;
    for (_, cookie) in visitors.iter().filter(|(version, _)| version == "green") {
        assert_eq!(visit(&proxy, Some(cookie)).await.0, "green");
    }
    assert_eq!(canary(&proxy, 0).await, Value::Null);
    for (_, cookie) in &visitors[..20] {
        assert_eq!(visit(&proxy, Some(cookie)).await, ("blue".to_owned(), None));
    }
    // It may still be flipped to, and the version that was left may be a canary in its turn.
    assert_eq!(proxy.flip("shop").await.status, 200);
    assert_eq!(visit(&proxy, None).await, ("green".to_owned(), None));
    eventually("blue may be a canary", async || {
        let answer = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": 100 })).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(visit(&proxy, None).await.0, "blue");
    assert_eq!(proxy.flip("shop").await.status, 200);
    assert_eq!(visit(&proxy, None).await, ("blue".to_owned(), None));
    assert_eq!(proxy.drain("shop").await["event"], "drained");
}

/// The cookies are signed with a key that lasts; one that was made up puts nobody anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_are_where_they_were_after_a_restart_and_nobody_chooses() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    // There and back again: green is warm, and outlives the restart.
    for _ in 0..2 {
        assert_eq!(proxy.flip("shop").await.status, 200);
    }
    canary(&proxy, 50).await;
    let mut visitors = Vec::new();
    for _ in 0..40 {
        let (version, cookie) = visit(&proxy, None).await;
        visitors.push((version, cookie.unwrap()));
    }
    for version in ["blue", "green"] {
        assert!(visitors.iter().any(|(of, _)| of == version), "{visitors:?}");
    }
    proxy.kill();
    proxy.start().await;
    eventually("green is healthy again", async || {
        let answer = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": 50 })).await;
        (answer.status == 200).then_some(())
    })
    .await;
    for (version, cookie) in &visitors {
        assert_eq!(visit(&proxy, Some(cookie)).await, (version.clone(), None), "{cookie}");
    }
    let (_, cookie) = &visitors[0];
    let (front, signature) = cookie.split_once('.').unwrap();
    for made_up in [front.to_owned(), format!("{front}0.{signature}"), "bg-canary-shop=any.thing".to_owned()] {
        let (_, set) = visit(&proxy, Some(&made_up)).await;
        assert!(set.is_some_and(|set| set != *cookie), "{made_up} is ignored");
    }
    let text = std::fs::read_dir(proxy.state().join("services")).unwrap();
    assert!(text.flatten().any(|file| file.file_name() == "shop.key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_does_badly_or_dies_is_ended_and_nobody_notices_its_death() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    assert_eq!(proxy.stage("shop", green.address()).await["event"], "healthy");
    let visitors =
        Load { keep_alive: 8, fresh: 2, posts: 0, slow: 0, pause: Duration::from_millis(2), ..Load::default() };
    let running = load(proxy.address(), visitors.clone());
    canary(&proxy, 50).await;
    let answers = async || (running.so_far().versions.get("green") > Some(&100)).then_some(());
    eventually("the canary answers", answers).await;
    green.behave(Behaviour::Sometimes { status: 500, one_in: 2 });
    eventually("it is ended", async || is_over(&proxy).await).await;
    running.stop().await;
    green.behave(Behaviour::Answer);
    let running = load(proxy.address(), visitors);
    eventually("it is healthy again", async || {
        let answer = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": 50 })).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let answers = async || (running.so_far().versions.get("green") > Some(&100)).then_some(());
    eventually("the canary answers again", answers).await;
    drop(green);
    eventually("it is ended", async || is_over(&proxy).await).await;
    running.stop().await.assert_none_failed();
}

/// The command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_can_be_given_a_share_of_the_visitors() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    for version in ["v1", "v2"] {
        let image = site.version(version, Duration::from_millis(100));
        let switched = site.switch(&image, &["--keep", "warm"]).end().await;
        assert_eq!(switched.code, Some(0), "{}", switched.talk);
    }
    let began = site.bgctl(&["canary", "shop", "25"]).await;
    assert_eq!(began.code, Some(0), "{}", began.talk);
    assert!(began.talk.contains("CANARY: 25 of 100 visitors of shop on BLUE"), "{}", began.talk);
    assert_eq!(site.shop().await["canary"]["percent"], 25);
    let ended = site.bgctl(&["canary", "shop", "0"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.talk);
    let wrong = site.bgctl(&["canary", "shop", "101"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.talk);
}

/// It goes on by itself over a kill of the proxy, with a version that was never live: once that is found healthy again, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_goes_on_after_a_kill_of_the_proxy_once_its_version_is_healthy_again() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", blue.address()).await;
    let body = json!({
        "endpoints": [green.address()], "deadline": "5s", "health": { "interval": "10ms" }, "deployment": "d2",
        "settings": { "domains": ["shop.test", "new.test"] },
    });
    let staged = proxy.call("POST", "/v1/services/shop/stage", body).await;
    assert_eq!(staged.lines.last().unwrap()["event"], "healthy", "{staged:?}");
    canary(&proxy, 50).await;
    let mut visitors = Vec::new();
    for _ in 0..40 {
        let (version, cookie) = visit(&proxy, None).await;
        visitors.push((version, cookie.unwrap()));
    }
    let status = async |proxy: &Proxy| proxy.call("GET", "/v1/services/shop", json!({})).await.lines.remove(0);
    let goes_on = async |proxy: &Proxy| {
        eventually("it goes on", async || {
            let canary = status(proxy).await["canary"].clone();
            (canary == json!({ "slot": "green", "percent": 50 })).then_some(())
        })
        .await;
        for (version, cookie) in &visitors {
            assert_eq!(visit(proxy, Some(cookie)).await, (version.clone(), None), "{cookie}");
        }
    };
    proxy.kill();
    proxy.start().await;
    goes_on(&proxy).await;
    // Its version is gone for a while: nobody is sent there.
    proxy.kill();
    let address = green.address();
    drop(green);
    proxy.start().await;
    assert_eq!(status(&proxy).await["canary"], json!({ "slot": "green", "percent": 50, "waiting": true }));
    for (_, cookie) in &visitors {
        assert_eq!(visit(&proxy, Some(cookie)).await, ("blue".to_owned(), None));
    }
    let green = upstream_at(address, "green").await;
    goes_on(&proxy).await;
    // What was staged with it takes effect with its flip, and that ends it for good.
    assert_eq!(proxy.flip("shop").await.status, 200);
    let mut other = client(proxy.address()).await.unwrap();
    assert_eq!(other.get("new.test", "/").await.unwrap().unwrap().field("x-version"), Some("green"));
    proxy.kill();
    proxy.start().await;
    assert_eq!(status(&proxy).await["canary"], Value::Null);
    assert!(!proxy.state().join("services/shop.shown").exists());
    // So does its end, and another version in its place.
    for ends in ["canary", "stage"] {
        eventually("blue is healthy", async || {
            let answer = proxy.call("POST", "/v1/services/shop/canary", json!({ "percent": 100 })).await;
            (answer.status == 200).then_some(())
        })
        .await;
        match ends {
            "canary" => assert_eq!(canary(&proxy, 0).await, Value::Null),
            _ => assert_eq!(proxy.stage("shop", blue.address()).await["event"], "healthy"),
        }
        proxy.kill();
        proxy.start().await;
        assert_eq!(status(&proxy).await["canary"], Value::Null, "{ends}");
    }
    drop(green);
}
