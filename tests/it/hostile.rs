//! Clients that mean harm, or are merely broken (F12): each is cut at its time-out, and the others do not notice.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tests::{Behaviour, Client, Load, Proxy, client, eventually, is_soak, load, measured, proxy_program, upstream};

use crate::programs::PROGRAMS;

const TIMEOUTS: &str = "[limits]\nheader_timeout = \"1s\"\nidle_timeout = \"2s\"\nbody_idle_timeout = \"1s\"\n";

/// Returns how many files this process may open, as many as it is allowed to.
fn files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.map_or(usize::MAX, |files| files.try_into().unwrap())
}

async fn connected(proxy: &Proxy, count: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(client(proxy.address()).await.unwrap());
    }
    clients
}

/// Waits until the proxy has closed the connection, and returns how long that took.
async fn cut(visitor: &mut Client) -> Duration {
    let began = Instant::now();
    // An answer such as 408 may come first; what counts is the end.
    drop(visitor.rest().await);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_a_stalled_body_and_silence_are_cut_and_the_others_do_not_notice() {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(TIMEOUTS);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let others = load(proxy.address(), Load { slow: 0, ..Load::default() });

    let mut half = client(proxy.address()).await.unwrap();
    half.send("GET / HTTP/1.1\r\nHost: shop.te").await.unwrap();
    let mut silent = client(proxy.address()).await.unwrap();
    let mut stalled = client(proxy.address()).await.unwrap();
    stalled.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\nabc").await.unwrap();
    let mut idle = client(proxy.address()).await.unwrap();
    idle.get("shop.test", "/").await.unwrap().unwrap();
    let (half, silent, stalled, idle) =
        tokio::join!(cut(&mut half), cut(&mut silent), cut(&mut stalled), cut(&mut idle));
    for (what, took, limit) in
        [("half a head", half, 1.0), ("silence", silent, 1.0), ("a body", stalled, 1.0), ("idle", idle, 2.0)]
    {
        let took = took.as_secs_f64();
        assert!(took > limit - 0.3 && took < limit + 1.5, "{what} was cut after {took:.1} s");
    }
    // A head that trickles in is no better: the time counts from its first byte.
    let mut slow = client(proxy.address()).await.unwrap();
    let began = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: shop.test\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
        if slow.send([byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());

    let verdict = others.stop().await;
    verdict.assert_none_failed();
    assert_eq!(verdict.closed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_cut_and_its_answer_is_not_kept_in_memory() {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(TIMEOUTS);
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    app.behave(Behaviour::Large(64 << 20));
    let before = proxy.resident_bytes();
    let mut stuck = connected(&proxy, 20).await;
    for visitor in &mut stuck {
        visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    }
    eventually("all are under way", async || (app.seen_count() >= 20).then_some(())).await;
    let most = proxy.resident_bytes().saturating_sub(before);
    let gone = async || {
        let status = proxy.call("GET", "/v1/status", json!({})).await;
        (status.lines[0]["connections"] == 0).then_some(())
    };
    eventually("all are cut", gone).await;
    measured("a_client_that_takes_nothing", &format!("20 answers of 64 MiB that nobody reads: {} KiB", most / 1024));
    assert!(most < 40 << 20, "{most} bytes for 20 answers of 64 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_cost_little_and_the_cap_lets_in_again_whoever_waits() {
    let app = upstream("v1").await;
    let count = files().saturating_sub(100).min(2000);
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_config(&format!("[limits]\nconnections = {count}\n"));
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let before = proxy.resident_bytes();
    let mut idle = connected(&proxy, count).await;
    for visitor in &mut idle {
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!(answer.status, 200);
    }
    let each = proxy.resident_bytes().saturating_sub(before) / count;
    measured("idle_connections", &format!("{each} bytes for each of {count} kept-alive connections"));
    assert!(each < 64 << 10, "{each} bytes for an idle connection");
    // Ten seconds after its last request it is parked, and answers all the same when it is asked again.
    let parked = async || {
        let each = proxy.resident_bytes().saturating_sub(before) / count;
        // 2 KiB is what a release build needs of many. This is a debug build, its fixed costs are counted in, and pages that
        // the allocator has not given back yet make up to 1 KiB more or less from run to run.
        (each <= 4096).then_some(each)
    };
    let each = eventually("idle connections are parked", parked).await;
    measured("idle_connections", &format!("{each} bytes for each of them once they are parked"));
    for visitor in &mut idle {
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!((answer.status, answer.closes()), (200, false));
    }
    // The cap is reached: whoever comes waits in the kernel's queue, and is served when there is room.
    let mut late = client(proxy.address()).await.unwrap();
    late.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    tokio::select! {
        answer = late.answer() => panic!("there was no room: {answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    idle.truncate(count / 2);
    assert_eq!(late.answer().await.unwrap().unwrap().status, 200);
}

/// EMFILE: the socket stays readable and accepting fails, so a loop without a pause would burn a core and fill the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_files_is_waited_out_without_haste_and_survived() {
    let app = upstream("v1").await;
    let mut proxy = proxy_program(PROGRAMS.bgproxy).with_files(64).with_stderr_kept();
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let many = connected(&proxy, 200).await;
    let mut late = client(proxy.address()).await.unwrap();
    late.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let told = || proxy.said().matches("can't accept connections").count();
    eventually("it has run out of files", async || (told() > 0).then_some(())).await;
    let (used, began) = (proxy.cpu_time(), Instant::now());
    tokio::select! {
        answer = late.answer() => panic!("there was no file for it: {answer:?}"),
        () = tokio::time::sleep(Duration::from_secs(2)) => {}
    }
    let used = proxy.cpu_time() - used;
    measured("running_out_of_files", &format!("{used:?} of a processor in {:?}", began.elapsed()));
    assert!(used < Duration::from_millis(500), "{used:?} in {:?}", began.elapsed());
    assert!(told() <= 2, "each of two workers says it once in ten seconds: {}", proxy.said());
    drop(many);
    let answer = late.answer().await.unwrap().unwrap();
    assert!([200, 502].contains(&answer.status), "{answer:?}");
    // Afterwards it is as if nothing had been.
    let running = load(proxy.address(), Load { keep_alive: 4, fresh: 2, posts: 1, slow: 0, ..Load::default() });
    eventually("200 requests", async || (running.so_far().total >= 200).then_some(())).await;
    running.stop().await.assert_none_failed();
}

/// Half of them in a head, half in a body, byte by byte: what they cost is bounded, nobody waits for them, and at their
/// time-outs they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_slow_clients_cost_bounded_memory_and_nobody_elses_time() {
    let app = upstream("v1").await;
    // Each that sends a body has a connection to the application too, whose other end is in this process.
    let count = (files().saturating_sub(500) * 2 / 3).min(if is_soak() { 10_000 } else { 1_000 });
    let mut proxy = proxy_program(PROGRAMS.bgproxy)
        .with_config("[limits]\nconnections = 20000\nheader_timeout = \"8s\"\nbody_idle_timeout = \"4s\"\n");
    proxy.start().await;
    proxy.serve("shop", app.address()).await;
    let before = proxy.resident_bytes();
    let mut slow = connected(&proxy, count).await;
    for (number, visitor) in slow.iter_mut().enumerate() {
        let (method, length) = if number % 2 == 0 { ("GET", "") } else { ("POST", "Content-Length: 1000\r\n\r\n") };
        visitor.send(format!("{method} / HTTP/1.1\r\nHost: shop.test\r\n{length}")).await.unwrap();
    }
    let mut slowest = Duration::ZERO;
    for byte in "X-Slow: 1".bytes() {
        for visitor in &mut slow {
            visitor.send([byte]).await.unwrap();
        }
        let began = Instant::now();
        let mut visitor = client(proxy.address()).await.unwrap();
        assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().status, 200);
        slowest = slowest.max(began.elapsed());
    }
    let each = proxy.resident_bytes().saturating_sub(before) / count;
    measured(
        "slow_clients",
        &format!("{each} bytes for each of {count}; another request took {slowest:?} at the most"),
    );
    assert!(each < 64 << 10, "{each} bytes for a slow client");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // None of them says any more.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let status = proxy.call("GET", "/v1/status", serde_json::json!({})).await;
        let connections = status.lines[0]["connections"].as_u64().unwrap();
        if connections < 5 {
            break;
        }
        assert!(Instant::now() < until, "{connections} slow clients are still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("their connections to the application have ended", async || (app.open_connections() < 10).then_some(()))
        .await;
}
