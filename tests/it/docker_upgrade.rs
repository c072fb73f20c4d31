//! `up --upgrade` on a real engine, under load: the new proxy takes over from the old one in the other container.

use std::time::Duration;

use tests::{Load, load, measured};

use crate::docker_host::{Uptimer, docker, gateway};
use crate::docker_switch::judge;

const TEST: &str = "another_build_takes_over";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_build_of_the_proxy_takes_over_under_load_without_a_failed_request() {
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(image) = gateway.build(TEST, &Uptimer { version: 1, loading: 0, fail: "" }) else { return };
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let done = async |words: &[&str]| {
        let ended = gateway.bgctl(words).await;
        assert_eq!(ended.code, Some(0), "{}", ended.talk);
        ended.talk
    };
    done(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    done(&["switch", "uptimer", "--image", &image, "--domain", "uptimer.test", "--bake", "0s"]).await;
    // Bytes behind the program change the build and nothing that runs.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("bgproxy");
    let mut program = std::fs::read(&gateway.proxy_binary).unwrap();
    let host = "uptimer.test".to_owned();
    let pause = Duration::from_millis(10);
    let running = load(
        gateway.address(),
        Load { host, keep_alive: 6, fresh: 3, posts: 0, slow: 0, pause, judge, ..Load::default() },
    );
    let mut ids = vec![gateway.inspect("reverse-proxy")["Id"].clone()];
    for _ in 0..3 {
        program.push(0);
        std::fs::write(&other, &program).unwrap();
        let talk = done(&["up", "--upgrade", "--proxy-binary", other.to_str().unwrap()]).await;
        assert!(talk.contains("handed over"), "{talk}");
        let proxy = gateway.inspect("reverse-proxy");
        assert!(!ids.contains(&proxy["Id"]), "{ids:?}");
        assert_eq!(proxy["HostConfig"]["RestartPolicy"]["Name"], "always");
        ids.push(proxy["Id"].clone());
        assert!(gateway.inspect("reverse-proxy_replaced").is_null());
    }
    // It is the proxy from now on: killed, it comes back by itself and has what it took over.
    let verdict = running.stop().await;
    verdict.assert_none_failed();
    measured(
        TEST,
        &format!("3 upgrades, {} requests, 0 failed, the slowest took {:?}", verdict.total, verdict.slowest),
    );
    docker(&["restart", "-t", "0", &gateway.named("reverse-proxy")]).unwrap();
    done(&["up"]).await;
    let running = load(
        gateway.address(),
        Load {
            host: "uptimer.test".to_owned(),
            keep_alive: 1,
            fresh: 0,
            posts: 0,
            slow: 0,
            pause,
            judge,
            ..Load::default()
        },
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop().await.assert_none_failed();
    done(&["down", "--volumes"]).await;
}
