//! How `bgproxy` ends: SIGTERM drains, and a second one doesn't wait.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::{Client, Upstream, client, eventually, proxy_program, upstream};

use crate::programs::PROGRAMS;

/// Sends a request whose answer takes so many milliseconds, and returns when the application has it.
async fn ask_slowly(visitor: &mut Client, app: &Upstream, millis: u64) {
    let request = format!("GET /slow/{millis} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    visitor.send(request).await.unwrap();
    eventually("the application has it", async || (app.unanswered() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_answers_what_is_under_way_refuses_what_is_new_and_exits_0() {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    ask_slowly(&mut visitor, &app, 500).await;
    proxy.signal(Signal::TERM);
    eventually("nobody new is let in", async || client(proxy.address()).await.err()).await;
    assert_eq!(app.unanswered(), 1, "the request is still under way");
    let answer = visitor.answer().await.unwrap().unwrap();
    assert_eq!((answer.status, answer.field("x-version")), (200, Some("v1")));
    assert_eq!(proxy.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_does_not_wait() {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let mut visitor = client(proxy.address()).await.unwrap();
    ask_slowly(&mut visitor, &app, 60_000).await;
    proxy.signal(Signal::TERM);
    eventually("nobody new is let in", async || client(proxy.address()).await.err()).await;
    let told = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}
