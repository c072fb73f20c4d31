//! What is live and not there: told with the command that mends it, and mended by that.

use std::time::Duration;

use serde_json::json;
use tests::{Ended, Site, client, eventually};

use crate::docker_host::{TestGateway, Uptimer, docker, gateway};
use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);

fn assert_done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.talk);
}

async fn answered(site: &Site) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

/// What `status` warns of.
async fn warnings(site: &Site) -> String {
    site.bgctl(&["status"]).await.events[0]["warnings"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_version_that_died_is_told_and_the_warm_one_is_gone_back_to() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    assert_done(&site.switch(&site.version("v1", QUICK), &[]).end().await);
    assert_done(&site.switch(&site.version("v2", QUICK), &["--keep", "warm"]).end().await);
    assert_eq!(warnings(&site).await, "[]");
    site.kill(" v2 ");
    // With the way to the place in which it was asked, so that it can be run as it stands.
    let command = "scale shop 1 --engine process";
    let told = format!("GREEN of shop is live and shop_GREEN does not run: `bgctl {command}` starts what is missing");
    eventually("it is told", async || warnings(&site).await.contains(&told).then_some(())).await;
    let doctor = site.bgctl(&["doctor"]).await;
    assert_eq!((doctor.code, &doctor.events[0]["verdict"]), (Some(1), &json!("bad")), "{doctor:?}");
    assert!(doctor.events[0]["findings"].to_string().contains("shop_GREEN does not run"), "{doctor:?}");
    // One way: what serves is the same version again.
    assert_done(&site.bgctl(&command.split(' ').collect::<Vec<_>>()).await);
    assert_eq!((answered(&site).await.as_str(), warnings(&site).await.as_str()), ("v2", "[]"));
    // The other way: the one before is still warm.
    site.kill(" v2 ");
    assert_done(&site.bgctl(&["rollback", "shop"]).await);
    assert_eq!((answered(&site).await.as_str(), warnings(&site).await.as_str()), ("v1", "[]"));
    assert_done(&site.switch(&site.version("v3", QUICK), &[]).end().await);
    assert_eq!(answered(&site).await, "v3");
}

/// A gateway on which v1 and then v2 of the uptimer were switched to.
async fn two_versions(test: &str, keep: &str) -> Option<TestGateway> {
    let gateway = gateway(test).await?;
    let image = |version| gateway.build(test, &Uptimer { version, loading: 0, fail: "" });
    let images = [image(1)?, image(2)?];
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let binary = gateway.proxy_binary.to_str().unwrap();
    assert_done(&gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", binary]).await);
    for image in &images {
        let words = ["switch", "shop", "--image", image, "--domain", "shop.test", "--keep", keep, "--bake", "0s"];
        assert_done(&gateway.bgctl(&words).await);
    }
    Some(gateway)
}

async fn serves(gateway: &TestGateway, version: u32) {
    let expected = format!("Uptimer v{version}.0 is running");
    eventually(&expected, async || {
        let mut visitor = client(gateway.address()).await.ok()?;
        let answer = visitor.get("shop.test", "/").await.ok()??;
        answer.text().starts_with(&expected).then_some(())
    })
    .await;
}

/// F10: what is gone for good is not what is asked for again; what is warm is one command away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_a_live_container_that_is_gone_for_good_is_told_and_left() {
    for (keep, hint) in [("warm", "makes BLUE live, which is warm"), ("stopped", "starts the version before it")] {
        let Some(gateway) = two_versions("a_live_container_that_is_gone", keep).await else { return };
        let status = async || gateway.bgctl(&["status"]).await.events[0]["warnings"].to_string();
        docker(&["rm", "-f", &gateway.named("shop_GREEN")]).unwrap();
        let told = status().await;
        assert!(told.contains("GREEN of shop is live and its instance is gone") && told.contains(hint), "{told}");
        let doctor = gateway.bgctl(&["doctor"]).await;
        assert!(doctor.events[0]["findings"].to_string().contains(hint), "{doctor:?}");
        // The proxy alone says what is live: nothing was changed for that.
        let shop = gateway.bgctl(&["status", "shop"]).await;
        assert_eq!(shop.events[0]["services"][0]["live"], "green", "{shop:?}");
        assert_done(&gateway.bgctl(&["rollback", "shop"]).await);
        serves(&gateway, 1).await;
        let told = status().await;
        assert!(!told.contains("of shop is live and"), "{told}");
        // And on from there.
        let second = gateway.named("uptimer:v2");
        assert_done(&gateway.bgctl(&["switch", "shop", "--image", &second, "--bake", "0s"]).await);
        serves(&gateway, 2).await;
    }
}

/// F10: its name is what the proxy knows, not its address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_a_live_container_that_comes_back_with_another_address_is_found() {
    let Some(gateway) = two_versions("a_live_container_with_another_address", "stopped").await else { return };
    let (live, network) = (gateway.named("shop_GREEN"), gateway.named("web-gateway"));
    let address = |name: &str| {
        let container = gateway.inspect(name);
        container["NetworkSettings"]["Networks"][&network]["IPAddress"].as_str().unwrap().to_owned()
    };
    let before = address("shop_GREEN");
    docker(&["stop", "-t", "1", &live]).unwrap();
    // Others come until one of them has its address.
    let image = gateway.named("uptimer:v1");
    let has_it = (0..8).any(|number| {
        let squatter = format!("squatter{number}");
        docker(&["run", "-d", "--name", &gateway.named(&squatter), "--network", &network, &image]).unwrap();
        address(&squatter) == before
    });
    assert!(has_it, "nobody was given {before}");
    docker(&["start", &live]).unwrap();
    assert_ne!(address("shop_GREEN"), before);
    serves(&gateway, 2).await;
    let told = gateway.bgctl(&["status"]).await.events[0]["warnings"].to_string();
    assert!(!told.contains("of shop is live and"), "{told}");
}
