//! A hand-over to a successor under load: no connection is refused, no request fails, and what is under way goes on.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use serde_json::json;
use tests::{Load, authority, client, eventually, load, upstream};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::programs::PROGRAMS;
use crate::upgrade_site::{Site, has_ended, tls_config};

/// Counts what goes on beside the load of HTTP/1.1.
#[derive(Default)]
struct Beside {
    stop: AtomicBool,
    asked: AtomicU64,
    sockets: AtomicU64,
}

/// Asks over HTTP/2 again and again; a connection that says that it ends is left for a new one, and no request may fail by it.
async fn ask_http2(address: std::net::SocketAddr, beside: Arc<Beside>) {
    while !beside.stop.load(Ordering::Relaxed) {
        let socket = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        while let Ok(mut ready) = sender.clone().ready().await {
            if beside.stop.load(Ordering::Relaxed) {
                break;
            }
            let request = Request::builder().uri("http://shop.test/").body(()).unwrap();
            // Refused here, it was not sent: the connection had said so.
            let Ok((answer, _)) = ready.send_request(request, true) else { break };
            let answer = match answer.await {
                Ok(answer) => answer,
                // What GOAWAY says was not taken is to be sent anew (RFC 9113 section 6.8).
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("a request of HTTP/2 failed: {error}"),
            };
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let mut bytes = Bytes::new();
            while let Some(data) = body.data().await {
                bytes = data.unwrap();
            }
            assert_eq!(bytes, "v1");
            beside.asked.fetch_add(1, Ordering::Relaxed);
        }
        drop(sender);
        _ = connection.await;
    }
}

/// Opens a WebSocket, says something in it and hears it back, again and again.
async fn talk(address: std::net::SocketAddr, beside: Arc<Beside>) {
    while !beside.stop.load(Ordering::Relaxed) {
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async("ws://chat.test/", socket).await.unwrap();
        for turn in 0..5 {
            socket.send(Message::text(format!("{turn}"))).await.unwrap();
            let heard = socket.next().await.unwrap().unwrap();
            assert_eq!(heard, Message::text(format!("{turn}")));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
        beside.sockets.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_upgrades_under_load_fail_no_request_and_refuse_no_connection() {
    let authority = authority();
    let secrets = tempfile::tempdir().unwrap();
    let tls_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut site = Site::new(&tls_config(secrets.path(), tls_port, &authority)).await;
    let loads = [
        load(site.address, Load { keep_alive: 6, fresh: 3, posts: 3, slow: 2, streams: 2, ..Load::default() }),
        // Connections that are idle most of the time: an end that is not announced would meet one of their requests.
        load(
            site.address,
            Load { keep_alive: 20, fresh: 0, posts: 0, slow: 0, pause: Duration::from_millis(7), ..Load::default() },
        ),
        load(
            ([127, 0, 0, 1], tls_port).into(),
            Load {
                keep_alive: 2,
                fresh: 1,
                posts: 1,
                slow: 1,
                tls: Some(authority.trusted(&["http/1.1"])),
                pause: Duration::from_millis(2),
                ..Load::default()
            },
        ),
    ];
    let beside = Arc::new(Beside::default());
    let others = [
        tokio::spawn(ask_http2(site.address, Arc::clone(&beside))),
        tokio::spawn(talk(site.address, Arc::clone(&beside))),
    ];
    let mut pids = vec![site.pid()];
    for _ in 0..10 {
        let (code, said) = site.upgrade(&[]).await;
        assert_eq!(code, Some(0), "{said}");
        let pid = site.pid();
        assert!(!pids.contains(&pid) && said.contains(&pid.to_string()), "{said}");
        pids.push(pid);
        // A change is obeyed by whoever serves now.
        let changed = site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
        assert!(changed.starts_with("HTTP/1.1 200"), "{changed}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    beside.stop.store(true, Ordering::Relaxed);
    for other in others {
        other.await.unwrap();
    }
    for load in loads {
        let verdict = load.stop().await;
        verdict.assert_none_failed();
        assert!(verdict.closed > 0, "connections were told of their end");
    }
    assert!(beside.asked.load(Ordering::Relaxed) > 100 && beside.sockets.load(Ordering::Relaxed) > 2);
    // Nobody uses the old ones any more, so they end long before the deadline; the first one's exit code is known.
    let first = site.first.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || first.wait_with_output().unwrap().status.code()).await.unwrap();
    assert_eq!(ended, Some(0));
    for pid in &pids[..10] {
        eventually("it has ended", async || has_ended(*pid).then_some(())).await;
    }
    assert_eq!(site.visit().await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_stays_for_one_more_answer_which_says_that_it_is_the_last() {
    let site = Site::new("").await;
    let mut visitor = client(site.address).await.unwrap();
    let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
    assert!(!answer.closes());
    let old = site.pid();
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    assert_ne!(site.pid(), old);
    // One may come before the old one has told its workers.
    eventually("an answer says that it is the last", async || {
        let answer = visitor.get("shop.test", "/").await.unwrap().unwrap();
        assert_eq!(answer.status, 200);
        answer.closes().then_some(())
    })
    .await;
    assert!(visitor.rest().await.unwrap().is_empty());
    eventually("the old one has ended", async || has_ended(old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_after_the_upgrade_waits_for_the_old_process_and_ends_who_is_idle_there() {
    let site = Site::new("").await;
    let next = upstream("v2").await;
    let mut slow = client(site.address).await.unwrap();
    slow.send("GET /slow/1500 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    eventually("the application has it", async || (site.app.unanswered() == 1).then_some(())).await;
    let mut idle = client(site.address).await.unwrap();
    idle.get("shop.test", "/").await.unwrap().unwrap();
    let old = site.pid();
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    let stage = json!({ "endpoints": [next.address()], "health": { "interval": "10ms" } });
    assert!(site.call("POST", "/v1/services/shop/stage", &stage).contains("\"healthy\""));
    let flipped = site.call("POST", "/v1/services/shop/flip", &json!({ "bake": "0s" }));
    assert!(flipped.starts_with("HTTP/1.1 200"), "{flipped}");
    // Nobody may be sent to the version that was left: an idle connection of the old process ends now.
    assert!(idle.rest().await.unwrap().is_empty());
    assert_eq!(site.app.unanswered(), 1, "long before the request under way has its answer");
    let drained = site.call("POST", "/v1/services/shop/drain", &json!({}));
    assert!(drained.contains("\"drained\""), "{drained}");
    assert_eq!(site.app.unanswered(), 0, "only then may the old version be stopped");
    assert_eq!(slow.answer().await.unwrap().unwrap().field("x-version"), Some("v1"));
    eventually("the old one has ended", async || has_ended(old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_goes_over_and_a_changed_file_and_other_addresses_are_taken_up() {
    let site = Site::new("").await;
    let before = site.call("GET", "/v1/services/shop", &json!({}));
    site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": true, "message": "soon" }));
    let more = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = site.path("bgproxy.toml").display().to_string();
    let state = site.path("state").display().to_string();
    let (here, more_text) = (site.address.to_string(), more.to_string());
    let arguments =
        ["--config", &config, "--state", &state, "--listen", &here, "--listen", &more_text, "--workers", "5"];
    let (code, said) = site.upgrade(&arguments).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(client(more).await.unwrap().get("shop.test", "/").await.unwrap().unwrap().status, 503);
    site.call("POST", "/v1/services/shop/maintenance", &json!({ "on": false }));
    let after = site.call("GET", "/v1/services/shop", &json!({}));
    let live = |text: &str| text.split("\"live\":").nth(1).unwrap()[..7].to_owned();
    assert_eq!(live(&before), live(&after));
    // Fewer workers than sockets: each of them is accepted from.
    let (code, said) =
        site.upgrade(&["--config", &config, "--state", &state, "--listen", &here, "--workers", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..100 {
        assert_eq!(site.visit().await, 200);
    }
    eventually("what is not listened on any more is closed", async || client(more).await.err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_is_told_which_process_is_the_one_to_look_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = notify.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let site = Site::with("", &[("NOTIFY_SOCKET", &path)]).await;
    assert_eq!(told(), format!("MAINPID={}\nREADY=1\n", site.pid()));
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    let expected = format!("MAINPID={}\nREADY=1\n", site.pid());
    // By itself, and by the one before it, which alone is believed.
    assert_eq!((told(), told()), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_outlives_the_upgrade_and_is_closed_with_a_handshake_at_the_deadline() {
    let site = Site::new("[limits]\nshutdown_timeout = \"1s\"\n").await;
    let socket = TcpStream::connect(site.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://chat.test/", socket).await.unwrap();
    let old = site.pid();
    assert_eq!(site.upgrade(&[]).await.0, Some(0));
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
    let last = socket.next().await.unwrap().unwrap();
    assert!(last.is_close(), "{last:?}");
    while let Some(Ok(_)) = socket.next().await {}
    eventually("the old one has ended", async || has_ended(old).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_upgrade_of_plain_processes_hands_over_and_down_finds_the_successor() {
    let site = tests::Site::new(PROGRAMS);
    let image = site.version("v1", Duration::ZERO);
    site.up().await;
    let switched = site.switch(&image, &[]).end().await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    let running = load(site.address(), Load { posts: 0, slow: 0, ..Load::default() });
    let other = tempfile::tempdir().unwrap();
    let binary = other.path().join("bgproxy");
    std::fs::copy(PROGRAMS.bgproxy, &binary).unwrap();
    let up = site.bgctl(&["up", "--upgrade", "--proxy-binary", binary.to_str().unwrap()]).await;
    assert!(up.code == Some(0) && up.talk.contains("handed over"), "{}", up.talk);
    assert_eq!(site.shop().await["live"], "blue");
    let successor = site.processes().iter().find(|(_, line)| line.contains("--take-over")).unwrap().0;
    running.stop().await.assert_none_failed();
    let down = site.bgctl(&["down", "--volumes", "--yes"]).await;
    assert_eq!(down.code, Some(0), "{}", down.talk);
    let pid = u32::try_from(successor.as_raw_nonzero().get()).unwrap();
    eventually("the successor has ended", async || has_ended(pid).then_some(())).await;
}
