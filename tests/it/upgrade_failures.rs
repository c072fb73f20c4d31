//! A hand-over that does not come about: whichever of the two processes dies, falls silent or can't go on, visitors are served.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Load, client, eventually, load, upstream};

use crate::programs::PROGRAMS;
use crate::upgrade_site::{Site, has_ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_can_not_start_leaves_the_old_one_serving_and_says_why() {
    let site = Site::new("").await;
    let pid = site.pid();
    let running = load(site.address, Load::default());
    // Its file is refused.
    site.write("bgproxy.toml", "listne = []\n");
    let (code, said) = site.upgrade(&[]).await;
    assert!(code == Some(1) && said.contains("listne") && said.contains("serves on"), "{code:?} {said}");
    site.write("bgproxy.toml", "");
    // It is of a version that can't read the state.
    let saved = site.path("state/services/shop.json");
    let text = std::fs::read_to_string(&saved).unwrap();
    std::fs::write(&saved, text.replacen("bluegreen-state 1", "bluegreen-state 99", 1)).unwrap();
    let (code, said) = site.upgrade(&[]).await;
    assert!(code == Some(1) && said.contains("newer version"), "{code:?} {said}");
    std::fs::write(&saved, text).unwrap();
    // An address is someone else's.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = site.path("bgproxy.toml").display().to_string();
    let state = site.path("state").display().to_string();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = site.upgrade(&["--config", &config, "--state", &state, "--listen", &address]).await;
    assert!(code == Some(1) && said.contains(&address), "{code:?} {said}");
    // What it wants last of all is someone else's, when it has everything else: the admin socket stays where it is.
    site.write("bgproxy.toml", &format!("metrics = \"{address}\"\n"));
    let (code, said) = site.upgrade(&[]).await;
    assert!(code == Some(1) && said.contains(&address), "{code:?} {said}");
    site.write("bgproxy.toml", "");
    // It is no program.
    let answer = site.upgrade_to("/nowhere/bgproxy");
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("can't be started"), "{answer}");
    assert_eq!(site.pid(), pid);
    running.stop().await.assert_none_failed();
    // Nothing of it is in the way of one that can.
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    assert_ne!(site.pid(), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_successor_could_not_take_up_is_waited_for() {
    let site = Site::new("").await;
    let next = upstream("v2").await;
    let pid = site.pid();
    let refused = async |word: &str| {
        let (code, said) = site.upgrade(&[]).await;
        assert!(code == Some(1) && said.contains(word) && said.contains("hint: "), "{code:?} {said}");
        assert_eq!(site.pid(), pid);
    };
    let stage = json!({ "endpoints": [next.address()], "health": { "interval": "10ms" } });
    site.call("POST", "/v1/services/shop/stage", &stage);
    refused("waits for its flip").await;
    site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "60s" }));
    refused("is watched").await;
    site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "0s" }));
    let mut slow = client(site.address).await.unwrap();
    slow.send("GET /slow/20000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("the application has it", async || (site.app.unanswered() == 1).then_some(())).await;
    site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "0s", "drain": "30s" }));
    refused("drains").await;
    drop(slow);
    eventually("it has drained", async || {
        (!site.call("GET", "/v1/services/shop", &json!({})).contains("draining")).then_some(())
    })
    .await;
    site.call("POST", "/v1/services/shop/pause", &json!({ "drain": "0s" }));
    refused("is paused").await;
    site.call("POST", "/v1/services/shop/resume", &json!({}));
    let lease = json!({ "action": "acquire", "who": "ann@desk", "what": "switch" });
    let lease = site.call("POST", "/v1/services/shop/lease", &lease);
    assert!(lease.starts_with("HTTP/1.1 200"), "{lease}");
    refused("ann@desk").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_is_killed_at_any_instant_before_it_serves_costs_nothing() {
    let site = Site::new("").await;
    let running = load(site.address, Load::default());
    let mut taken_over = 0;
    for delay in 0..40 {
        let pid = site.pid();
        let mut next = site.take_over();
        tokio::time::sleep(Duration::from_micros(delay * 700)).await;
        next.kill().unwrap();
        next.wait().unwrap();
        let now = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                // Killed when it served, there is nobody: what was handed over is gone with it.
                match site.try_call("GET", "/v1/version", &json!({})) {
                    Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Some(site.pid()),
                    _ if has_ended(pid) || site.log().contains("a successor serves") => return None,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        match now.await.unwrap() {
            Some(now) => assert_eq!(now, pid, "after {delay}"),
            None => {
                taken_over = delay;
                break;
            }
        }
        // The state is its own again.
        let changed = eventually("it changes things again", async || {
            let answer = site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
            (!answer.starts_with("HTTP/1.1 503")).then_some(answer)
        });
        assert!(changed.await.starts_with("HTTP/1.1 200"));
    }
    let verdict = running.stop().await;
    if taken_over == 0 {
        verdict.assert_none_failed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_one_killed_while_the_successor_starts_leaves_a_successor_that_serves() {
    let mut site = Site::new("").await;
    let mut next = site.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn();
    // Without a way to stop it half-way, many instants are tried.
    for delay in [0u64, 1, 2, 4, 8, 12, 16, 24] {
        let mut taker = match next {
            Ok(child) => child,
            Err(error) => panic!("{error}"),
        };
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let mut first = site.first.take().unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        let began = Instant::now();
        let serves = loop {
            if let Ok(mut visitor) = client(site.address).await
                && let Ok(Some(answer)) = visitor.get("shop.test", "/").await
            {
                break answer.status == 200;
            }
            // Killed before it had given anything, it left a plain start, or one that says why not.
            if taker.try_wait().unwrap().is_some() {
                break false;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "nobody serves after {delay} ms");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        if !serves {
            _ = taker.wait();
            taker = site.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn().unwrap();
            eventually("it starts anew", async || client(site.address).await.ok()).await;
        }
        assert_eq!(site.visit().await, 200, "after {delay} ms");
        eventually("it answers admin calls", async || site.try_call("GET", "/v1/version", &json!({})).ok()).await;
        site.first = Some(taker);
        next = site.command(PROGRAMS.bgproxy.as_ref()).arg("--take-over").spawn();
    }
    if let Ok(mut taker) = next {
        _ = taker.kill();
        _ = taker.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_over_where_nobody_runs_just_starts_and_a_silent_one_is_not_waited_for_by_visitors() {
    let mut site = Site::new("").await;
    let mut first = site.first.take().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    site.first = Some(site.take_over());
    eventually("it answers", async || client(site.address).await.ok()).await;
    assert_eq!(site.visit().await, 200);
    // Whoever asks and then says nothing holds nobody up.
    let silent = std::os::unix::net::UnixStream::connect(site.path("state/handover.sock")).unwrap();
    assert_eq!(site.visit().await, 200);
    let (code, said) = site.upgrade(&[]).await;
    assert_eq!(code, Some(0), "{said}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_wait_for_a_successor_and_one_that_falls_silent_is_given_up() {
    let site = Site::new("").await;
    let hello = |protocol: u32| {
        let mut socket = std::os::unix::net::UnixStream::connect(site.path("state/handover.sock")).unwrap();
        let text = json!({ "word": "hello", "protocol": protocol, "version": "test" }).to_string();
        socket.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        socket
    };
    let change = || site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
    // One of another kind is told so, and holds nothing up.
    let mut said = String::new();
    let mut other = hello(7);
    other.read_exact(&mut [0; 4]).unwrap();
    other.read_to_string(&mut said).unwrap();
    assert!(said.contains("another hand-over"), "{said}");
    assert!(change().starts_with("HTTP/1.1 200"));
    for is_gone in [true, false] {
        let silent = hello(1);
        let refused = eventually("no change is let in", async || {
            let answer = change();
            answer.starts_with("HTTP/1.1 503").then_some(answer)
        })
        .await;
        assert!(refused.contains("handing_over") && refused.contains("again in a moment"), "{refused}");
        assert_eq!(site.visit().await, 200);
        // What is asked is answered, and a second successor is not.
        assert!(site.call("GET", "/v1/services/shop", &json!({})).starts_with("HTTP/1.1 200"));
        assert_eq!(site.upgrade(&[]).await.0, Some(1));
        let mut silent = Some(silent);
        if is_gone {
            silent.take();
        }
        let began = Instant::now();
        while !change().starts_with("HTTP/1.1 200") {
            assert!(began.elapsed() < Duration::from_secs(40), "it is waited for without an end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(began.elapsed() > Duration::from_secs(25), !is_gone);
    }
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
}
