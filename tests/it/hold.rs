//! F10: requests wait, bounded in number and time, for an application that was there a moment ago.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Client, Proxy, Upstream, client, eventually, proxy, upstream, upstream_at};

async fn ask(proxy: &Proxy) -> Client {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    visitor
}

/// Ends an application, and waits until nobody listens any more: one that is about to close still takes connections, and
/// breaks them.
async fn stop(app: Upstream) {
    let address = app.address();
    drop(app);
    let refused = async || client(address).await.is_err().then_some(());
    eventually("nobody listens", refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_an_application_that_restarts_and_posts_too() {
    let app = upstream("v1").await;
    let (proxy, address) = (proxy(), app.address());
    proxy.serve("shop", address).await;
    stop(app).await;
    let began = Instant::now();
    let mut get = ask(&proxy).await;
    let mut post = client(proxy.address()).await.unwrap();
    post.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    tokio::select! {
        answer = get.answer() => panic!("nobody could answer: {answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    let app = upstream_at(address, "v1 again").await;
    let answer = get.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "v1 again"));
    let answer = post.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.field("x-body-bytes")), (200, Some("3")));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(app.seen().iter().filter(|seen| seen.first_line.starts_with("POST")).count(), 1);
    // Counted, not assumed: the next flip's drain tells.
    let green = upstream("v2").await;
    proxy.serve("shop", green.address()).await;
    let drained = proxy.drain("shop").await;
    assert_eq!(drained["event"], "drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_go_to_the_other_slot_as_soon_as_it_is_live_and_are_counted() {
    let (blue, green) = (upstream("blue").await, upstream("green").await);
    let proxy = proxy();
    proxy.serve("shop", blue.address()).await;
    let staged = proxy.stage("shop", green.address()).await;
    assert_eq!(staged["event"], "healthy", "{staged}");
    stop(blue).await;
    let mut visitor = ask(&proxy).await;
    // Counted first: before it has come nothing is in flight either.
    let held = async || {
        let metrics = proxy.text("/metrics").await;
        metrics.contains("bgproxy_requests_held_total{service=\"shop\",slot=\"blue\"} 1\n").then_some(())
    };
    eventually("it waits", held).await;
    let given_back = async || {
        let status = proxy.call("GET", "/v1/services/shop", json!({})).await;
        (status.lines[0]["slots"]["blue"]["in_flight"] == 0).then_some(())
    };
    eventually("it is not in flight on a version that can't be reached", given_back).await;
    assert_eq!(proxy.flip("shop").await.status, 200);
    let answer = visitor.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "green"));
    let drained = proxy.drain("shop").await;
    assert_eq!((&drained["counts"]["held"], &drained["counts"]["failed"]), (&json!(1), &json!(0)), "{drained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_256_wait_and_none_for_longer_than_ten_seconds() {
    let app = upstream("v1").await;
    let proxy = proxy();
    proxy.serve("shop", app.address()).await;
    stop(app).await;
    let began = Instant::now();
    let mut visitors = Vec::new();
    for _ in 0..260 {
        visitors.push(ask(&proxy).await);
    }
    let answers = visitors.into_iter().map(|mut visitor| async move {
        let answer = visitor.answer().await.unwrap().unwrap();
        (answer.status, began.elapsed())
    });
    let tasks: Vec<_> = answers.map(tokio::spawn).collect();
    let (mut at_once, mut waited) = (0, 0);
    for task in tasks {
        let (status, took) = task.await.unwrap();
        assert_eq!(status, 502);
        assert!(took < Duration::from_secs(15), "{took:?}");
        if took < Duration::from_secs(5) { at_once += 1 } else { waited += 1 }
    }
    assert_eq!((at_once, waited), (4, 256));
    // It has not been healthy for a while: nobody waits in vain any more.
    let mut tries = 0;
    loop {
        let asked = Instant::now();
        assert_eq!(ask(&proxy).await.answer().await.unwrap().unwrap().status, 502);
        if asked.elapsed() < Duration::from_secs(1) {
            break;
        }
        tries += 1;
        assert!(tries < 3, "requests still wait");
    }
}
