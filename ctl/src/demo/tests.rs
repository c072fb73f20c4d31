//! The load against servers that behave, and that do not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::load::Load;
use super::order::Order;
use super::uptimer::{RECEIVED, Uptimer};
use crate::traffic::wire::Wire;

const READY: Uptimer = Uptimer { version: 1, load: Duration::ZERO, slow: Duration::from_millis(20) };

fn get() -> Order {
    Order { path: "/", post: None, keep_alive: true }
}

/// Answers every connection with these bytes, whatever is asked.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok() {
                drop(stream.write_all(answer.as_bytes()).await);
            }
        }
    });
    address
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn uptimer(settings: Uptimer, log: &Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let address = free_address().await;
    let log = Arc::clone(log);
    tokio::spawn(settings.serve(address, move |line: &str| log.lock().unwrap().push(line.to_owned())));
    while Wire::open(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    address
}

#[tokio::test]
async fn every_way_to_be_wrong_is_a_failure_in_words() {
    for (answer, words) in [
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "answered HTTP/1.1 502"),
        ("", "closed without an answer"),
        ("HTTP/1.1 20", "cut in the head"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nUptimer v1.0", "short: 12 of 50"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nUpt", "short"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "size of a chunk"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not the application's answer"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\nUptimer v1.0 is running for 7 seconds.\n.",
            "2 bytes more than the answer",
        ),
    ] {
        let address = server(answer).await;
        let why = get().exchange(&mut Wire::open(address).await.unwrap()).await.unwrap_err();
        assert!(why.contains(words), "{answer:?}: {why}");
    }
}

#[tokio::test]
async fn answers_in_each_form_are_read_to_their_end() {
    for (answer, alive) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\nUptimer v2.0 is running for 7 seconds.\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nUptimer v2.0 is running for 7 seconds.\n", false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nUptimer\r\n20\r\n v2.0 is running for 7 seconds.\n\r\n0\r\n\r\n",
            true,
        ),
    ] {
        let address = server(answer).await;
        let seen = get().exchange(&mut Wire::open(address).await.unwrap()).await.unwrap();
        assert_eq!((seen.version, seen.alive), (2, alive), "{answer:?}");
    }
}

#[tokio::test]
async fn the_uptimer_says_503_until_it_has_loaded_and_echoes_posts() {
    let log = Arc::default();
    let loading = uptimer(Uptimer { load: Duration::from_secs(60), ..READY }, &log).await;
    let why = get().exchange(&mut Wire::open(loading).await.unwrap()).await.unwrap_err();
    assert!(why.contains("503"), "{why}");
    let ready = uptimer(READY, &log).await;
    let post = Order { post: Some(("id-1".to_owned(), vec![7; 5000])), ..get() };
    assert_eq!(post.exchange(&mut Wire::open(ready).await.unwrap()).await.unwrap().version, 1);
    assert!(log.lock().unwrap().contains(&format!("{RECEIVED}id-1")));
}

#[tokio::test]
async fn all_kinds_of_clients_are_content_with_an_application_that_works() {
    let log = Arc::default();
    let address = uptimer(READY, &log).await;
    let load = Load::start(address);
    while load.tally().samples.len() < 200 {
        assert!(load.now() < Duration::from_secs(20), "{:?}", load.tally().failures);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tally = load.finish().await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert_eq!(tally.versions().into_keys().collect::<Vec<_>>(), [1]);
    assert!(tally.samples.iter().any(|sample| sample.is_slow));
    let received = log.lock().unwrap().iter().filter(|line| line.starts_with(RECEIVED)).count();
    assert_eq!(received, tally.posts.len());
    // HTTP/1.0 straight from the application: each keep-alive client finds its connection ended.
    assert!(tally.closed > 0);
}

#[tokio::test]
async fn an_application_that_fails_is_told_with_the_moment_and_the_client() {
    let load = Load::start(server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await);
    while load.tally().failures.len() < 20 {
        assert!(load.now() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tally = load.finish().await;
    assert!(tally.samples.is_empty());
    assert!(tally.failures.iter().all(|failure| failure.why.contains("503") && failure.at > Duration::ZERO));
}
