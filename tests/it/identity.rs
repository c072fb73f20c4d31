//! Who the client is: what is believed of whom, and what passes for a WebSocket.

use serde_json::json;
use tests::{Proxy, Upstream, client, eventually, proxy, upstream};

const CLAIMS: [(&str, &str); 6] = [
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Real-IP", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "front.test"),
    ("X-Forwarded-Port", "8443"),
    ("Forwarded", "for=203.0.113.9;proto=https"),
];

async fn site() -> (Proxy, Upstream) {
    let (app, proxy) = (upstream("v1").await, proxy());
    proxy.serve("shop", app.address()).await;
    (proxy, app)
}

/// Sends a request on a connection that begins with these bytes, and returns the head that the application got.
async fn head(proxy: &Proxy, app: &Upstream, begin: &str, fields: &str) -> String {
    let mut visitor = client(proxy.address()).await.unwrap();
    visitor.send(format!("{begin}GET /mine HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n")).await.unwrap();
    assert_eq!(visitor.answer().await.unwrap().unwrap().status, 200);
    let seen = app.seen().into_iter().rev().find(|seen| seen.head.starts_with("GET /mine ")).unwrap();
    seen.head.to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_trusted_network_says_of_a_client_is_believed_and_what_any_other_says_is_not() {
    let (proxy, app) = site().await;
    let claims: String = CLAIMS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let configure = async |trusted: &[&str], balancers: &[&str]| {
        let settings = json!({ "trusted_proxies": trusted, "proxy_protocol": balancers });
        assert_eq!(proxy.call("PUT", "/v1/proxy", settings).await.status, 200);
        // Each worker learns of it when it gets to it.
        eventually("it is in force", async || {
            let mut visitor = client(proxy.address()).await.unwrap();
            visitor.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
            let is_served = visitor.answer().await.is_ok_and(|answer| answer.is_some());
            (is_served == balancers.is_empty()).then_some(())
        })
        .await;
    };
    let is_believed = |head: &str| {
        let believed = CLAIMS.map(|(name, value)| head.contains(&format!("\r\n{}: {value}", name.to_lowercase())));
        assert!(believed.iter().all(|one| *one == believed[0]), "some of it is believed: {head}");
        // Each is said once, whoever says it; `Forwarded` only by those who are believed.
        for (name, _) in CLAIMS {
            let count = head.matches(&format!("\r\n{}: ", name.to_lowercase())).count();
            assert_eq!(count, usize::from(name != "Forwarded" || believed[0]), "{name} in {head}");
        }
        believed[0]
    };
    // Loopback is among the private networks, and none of Cloudflare's.
    for (trusted, wanted) in [
        (&[][..], false),
        (&["private"], true),
        (&["cloudflare"], false),
        (&["127.0.0.0/8"], true),
        (&["10.0.0.0/8"], false),
    ] {
        configure(trusted, &[]).await;
        let as_wanted = async || (is_believed(&head(&proxy, &app, "", &claims).await) == wanted).then_some(());
        eventually(&format!("{trusted:?} is in force"), as_wanted).await;
        assert_eq!(is_believed(&head(&proxy, &app, "", &claims).await), wanted, "{trusted:?}");
    }
    // A load balancer tells that the connection is one of Cloudflare's, or of anybody else.
    configure(&["cloudflare"], &["127.0.0.0/8"]).await;
    for (peer, wanted) in [("173.245.48.5", true), ("198.51.100.1", false)] {
        let begin = format!("PROXY TCP4 {peer} 10.0.0.1 4711 80\r\n");
        assert_eq!(is_believed(&head(&proxy, &app, &begin, &claims).await), wanted, "{peer}");
    }
}

/// RFC 9110 section 7.8: `Upgrade` is for whoever names it in `Connection`, and only a WebSocket goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_passes_for_a_websocket_alone_and_only_where_connection_names_it() {
    let (proxy, app) = site().await;
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (fields, wanted) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: keep-alive\r\nUpgrade: websocket\r\n", false),
        ("Connection: upgrade\r\nUpgrade: h2c\r\n", false),
        ("Connection: upgrade\r\nUpgrade: TLS/1.2\r\n", false),
    ] {
        let head = head(&proxy, &app, "", &format!("{fields}{key}")).await;
        let passes = head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n");
        assert_eq!((passes, head.contains("\r\nupgrade: ")), (wanted, wanted), "{fields:?}: {head}");
    }
}
