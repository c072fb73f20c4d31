//! WebSockets before an application: rules that stop a handshake, and what of one is changed on its way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use serde_json::{Value, json};
use tests::{Proxy, eventually, proxy};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

/// The hash of `secret`.
const SECRET: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// An application of WebSockets that says what it hears, and the handshakes that it had.
struct Chat {
    address: SocketAddr,
    handshakes: Arc<Mutex<Vec<Request<()>>>>,
}

impl Chat {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::<Mutex<Vec<Request<()>>>>::default();
        let seen = Arc::clone(&handshakes);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    #[expect(clippy::result_large_err, reason = "the library asks for it")]
                    let answer = |request: &Request<()>, mut answer: Response<()>| {
                        seen.lock().unwrap().push(request.clone());
                        answer.headers_mut().insert("x-app", HeaderValue::from_static("chat"));
                        if let Some(spoken) = request.headers().get("sec-websocket-protocol") {
                            answer.headers_mut().insert("sec-websocket-protocol", spoken.clone());
                        }
                        Ok(answer)
                    };
                    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(socket, answer).await else { return };
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_text() && socket.send(message).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, handshakes }
    }

    fn count(&self) -> usize {
        self.handshakes.lock().unwrap().len()
    }

    fn last(&self) -> Request<()> {
        self.handshakes.lock().unwrap().last().unwrap().clone()
    }
}

async fn site(options: Value) -> (Proxy, Chat) {
    let (chat, proxy) = (Chat::start().await, proxy());
    let settings = json!({ "domains": ["shop.test"] });
    let body = json!({ "endpoints": [chat.address], "settings": settings, "health": { "enabled": false } });
    assert_eq!(proxy.call("POST", "/v1/services/shop/stage", body).await.status, 200);
    assert_eq!(proxy.flip("shop").await.status, 200);
    proxy.set_options(&["shop.test"], options).await;
    (proxy, chat)
}

type Opened = (WebSocketStream<TcpStream>, HeaderMap);

/// Opens one; an answer of another kind than a switch of protocols is its error.
async fn open(proxy: &Proxy, path: &str, fields: &[(&str, &str)]) -> Result<Opened, Response<Option<Vec<u8>>>> {
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    let mut request = format!("ws://shop.test{path}").into_client_request().unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    match tokio_tungstenite::client_async(request, socket).await {
        Ok((socket, answer)) => Ok((socket, answer.headers().clone())),
        Err(Error::Http(answer)) => Err(*answer),
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn refused(proxy: &Proxy, path: &str, fields: &[(&str, &str)]) -> Response<Option<Vec<u8>>> {
    open(proxy, path, fields).await.err().unwrap_or_else(|| panic!("{path} was opened"))
}

async fn is_heard(socket: &mut WebSocketStream<TcpStream>, word: &str) {
    socket.send(Message::text(word)).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), word);
}

/// What a client says who has a name and a password.
fn basic(words: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(words))
}

fn rules() -> Value {
    json!({
        "redirects": [{ "from": "/was", "to": "/is", "status": 301 }],
        "access": [{ "path": "/private", "deny": ["127.0.0.0/8"] }],
        "basic_auth": [{ "path": "/staff", "realm": "shop", "users": { "alice": SECRET } }],
        "rate_limits": [{ "path": "/rare", "requests": 1, "per": "1m" }, { "path": "/one", "connections": 1 }],
        "response_headers": { "set": { "X-By": "edge" } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_is_stopped_by_every_rule_before_the_application_has_it() {
    let (proxy, chat) = site(rules()).await;
    let wrong = basic("alice:guess");
    for (path, fields, status, (name, value)) in [
        ("/was", &[][..], 301, ("location", "/is")),
        ("/private", &[], 403, ("x-by", "edge")),
        ("/staff", &[], 401, ("www-authenticate", "Basic realm=\"shop\", charset=\"UTF-8\"")),
        ("/staff", &[("authorization", wrong.as_str())], 401, ("x-by", "edge")),
    ] {
        let answer = refused(&proxy, path, fields).await;
        assert_eq!((answer.status().as_u16(), answer.headers()[name].to_str().unwrap()), (status, value), "{path}");
    }
    assert_eq!(chat.count(), 0, "the application had the handshake");
    let (mut staff, _) = open(&proxy, "/staff", &[("authorization", &basic("alice:secret"))]).await.unwrap();
    is_heard(&mut staff, "hello").await;
    // One in a minute, however long it lasts.
    let (mut rare, _) = open(&proxy, "/rare", &[]).await.unwrap();
    is_heard(&mut rare, "hello").await;
    let answer = refused(&proxy, "/rare", &[]).await;
    assert!(answer.status() == 429 && answer.headers().contains_key("retry-after"), "{answer:?}");
    // One at once: it has its place for as long as it is open, and a message later still.
    let (mut one, _) = open(&proxy, "/one", &[]).await.unwrap();
    for word in ["a", "b"] {
        is_heard(&mut one, word).await;
        assert_eq!(refused(&proxy, "/one", &[]).await.status(), 429);
    }
    let (mut elsewhere, _) = open(&proxy, "/", &[]).await.unwrap();
    is_heard(&mut elsewhere, "hello").await;
    one.close(None).await.unwrap();
    while one.next().await.is_some() {}
    // The application has closed its end; the tunnel lasts until the client closes its own.
    drop(one);
    eventually("its place is free", async || open(&proxy, "/one", &[]).await.ok().map(drop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_and_the_fields_of_a_handshake_are_changed_and_its_answer_is_the_applications() {
    let (proxy, chat) = site(json!({
        "rewrite": [{ "prefix": "/api", "to": "/v1" }],
        "basic_auth": [{ "users": { "alice": SECRET } }],
        "request_headers": {
            "set": { "X-User": "$remote_user", "X-Role": "guest", "Host": "app.local" },
            "remove": ["Authorization", "X-Debug"],
        },
        "response_headers": { "set": { "X-By": "edge" }, "remove": ["X-App"] },
        "security_headers": true,
        "compress": {},
    }))
    .await;
    let password = basic("alice:secret");
    let fields = [
        ("authorization", password.as_str()),
        ("x-role", "admin"),
        ("x-debug", "1"),
        ("sec-websocket-protocol", "chat.v1"),
        ("accept-encoding", "gzip"),
    ];
    let (mut socket, answer) = open(&proxy, "/api/room?n=1", &fields).await.unwrap();
    is_heard(&mut socket, &"long enough to be compressed ".repeat(100)).await;
    let seen = chat.last();
    assert_eq!(seen.uri().path_and_query().unwrap().as_str(), "/v1/room?n=1");
    for (name, value) in [("x-user", "alice"), ("x-role", "guest"), ("host", "app.local")] {
        let values: Vec<_> = seen.headers().get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    for name in ["authorization", "x-debug"] {
        assert!(!seen.headers().contains_key(name), "{name}");
    }
    // A browser shows nobody the fields of a 101, and a wrong one ends the handshake.
    assert_eq!((answer.get("x-app"), answer.get("x-by")), (Some(&HeaderValue::from_static("chat")), None));
    assert_eq!(answer["sec-websocket-protocol"], "chat.v1");
    assert!(!answer.contains_key("x-frame-options") && !answer.contains_key("content-encoding"), "{answer:?}");
}

/// RFC 8441: the handshake is a CONNECT with a path, and its success a 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_on_a_stream_of_http2_meets_the_same_rules() {
    let (proxy, chat) = site(rules()).await;
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let _connection = tokio::spawn(connection);
    eventually("the other side knows extended CONNECT", async || {
        sender.clone().ready().await.unwrap().is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    let connect = async |path: &str, fields: &[(&str, &str)]| {
        let mut request = Request::connect(format!("http://shop.test{path}"))
            .extension(h2::ext::Protocol::from("websocket"))
            .header("sec-websocket-version", "13");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut ready = sender.clone().ready().await.unwrap();
        let (answer, stream) = ready.send_request(request.body(()).unwrap(), false).unwrap();
        // The stream is open for as long as both are kept.
        (answer.await.unwrap(), stream)
    };
    for (path, status) in [("/was", 301), ("/private", 403), ("/staff", 401)] {
        let (answer, _stream) = connect(path, &[]).await;
        assert_eq!((answer.status().as_u16(), answer.headers()["x-by"].as_bytes()), (status, &b"edge"[..]), "{path}");
    }
    assert_eq!(chat.count(), 0, "the application had the handshake");
    let (staff, _stream) = connect("/staff", &[("authorization", &basic("alice:secret"))]).await;
    assert_eq!(staff.status(), 200);
    let (one, stream) = connect("/one", &[]).await;
    assert_eq!((one.status().as_u16(), connect("/one", &[]).await.0.status().as_u16()), (200, 429));
    drop((one, stream));
    eventually("its place is free", async || (connect("/one", &[]).await.0.status() == 200).then_some(())).await;
}
