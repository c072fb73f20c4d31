//! Rules and changes, request by request.

use config::edge::PasswordHash;
use config::name::Slot;
use http::header::HeaderName;
use http::request::Parts;

use super::*;

/// A request as its client sends it: `GET https://host/path` says that it came over TLS.
fn request(url: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut request = http::Request::get(url).body(()).unwrap().into_parts().0;
    for (name, value) in fields {
        request.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    request
}

fn compile(json: serde_json::Value) -> Arc<Edge> {
    Edge::compile(&serde_json::from_value(json).unwrap(), None).unwrap()
}

fn with_seen<T>(request: &Parts, address: &str, use_it: impl FnOnce(&Seen<'_>) -> T) -> T {
    let service: ServiceName = "shop".parse().unwrap();
    let id = HeaderValue::from_static("id-1");
    let authority = request.uri.authority().unwrap();
    use_it(&Seen {
        request,
        host: authority.host(),
        port: authority.port().as_ref().map(|port| port.as_str()),
        address: address.parse().unwrap(),
        trusted: address.starts_with("10."),
        secure: request.uri.scheme_str() == Some("https"),
        request_id: &id,
        service: &service,
        user: None,
        slot: Some(Slot::Green),
    })
}

/// What becomes of a request: `308 https://x.org/`, `403`, or `in` with who it is.
fn judged(edge: &Edge, url: &str, fields: &[(&'static str, &str)], address: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let passwords = Passwords::new(Arc::default());
    let request = request(url, fields);
    let judged = with_seen(&request, address, |seen| runtime.block_on(edge.judge(seen, &passwords)));
    match judged {
        Ok(passed) => format!("in {}", passed.user().unwrap_or("-")),
        Err(Stopped::Redirect { status, location }) => format!("{status} {}", location.to_str().unwrap()),
        Err(Stopped::Refused(error)) => error.status().as_u16().to_string(),
    }
}

const HERE: &str = "192.0.2.1";

#[test]
fn a_service_that_wants_nothing_has_nothing() {
    assert!(Edge::compile(&ServiceOptions::default(), None).is_none());
    let only_headers = compile(serde_json::json!({ "security_headers": true }));
    assert!(!only_headers.has_rules());
}

#[test]
fn a_redirect_keeps_the_query_and_lets_nobody_choose_its_host() {
    let edge = compile(serde_json::json!({ "redirects": [
        { "from": "/old/*", "to": "/new/$1", "status": 301 },
        { "from": "/go/*", "to": "/$1" },
        { "from": "/bare", "to": "https://y.org$uri?" },
        { "from": "/own", "to": "/other?a=1" },
        { "from": "/mark", "to": "/other#part" },
        { "pattern": "^/u/([0-9]+)$", "to": "/users/$1", "status": 302 },
        { "host": "www.x.org", "to": "https://x.org$uri" },
        { "host": "*.w.org", "to": "$scheme://x.org$request_uri", "status": 307 },
        { "from": "/all/*", "to": "https://x.org$uri" },
    ] }));
    for (url, wanted) in [
        ("http://x.org/old/a/b?q=1", "301 /new/a/b?q=1"),
        ("http://x.org/go//evil.org/", "308 /evil.org/"),
        ("http://x.org/go/%5Cevil.org", "308 /%5Cevil.org"),
        ("http://x.org/go/\\evil.org", "308 /evil.org"),
        ("http://x.org/bare?q=1", "308 https://y.org/bare"),
        ("http://x.org/own?q=1", "308 /other?a=1"),
        ("http://x.org/mark?q=1", "308 /other?q=1#part"),
        ("http://x.org/u/42?q=1", "302 /users/42?q=1"),
        ("http://x.org/u/x", "in -"),
        ("http://www.x.org/a?b=c", "308 https://x.org/a?b=c"),
        ("https://a.b.w.org/a?b=c", "307 https://x.org/a?b=c"),
        ("http://w.org/a", "in -"),
        ("http://x.org/all/1", "308 https://x.org/all/1"),
        // What it asks for already is nowhere else.
        ("https://x.org/all/1", "in -"),
        ("https://x.org:443/all/1", "in -"),
    ] {
        // A backslash is no part of an address for the parser of tests, but for that of a server it may be.
        if url.parse::<http::Uri>().is_ok() {
            assert_eq!(judged(&edge, url, &[], HERE), wanted, "{url}");
        }
    }
}

#[test]
fn visitors_of_another_host_are_sent_to_the_canonical_one() {
    let edge = compile(serde_json::json!({ "canonical_host": "x.org" }));
    for (url, address, wanted) in [
        ("http://x.org/a", HERE, "in -"),
        ("http://x.org:8080/a", HERE, "in -"),
        ("http://www.x.org/a?b", HERE, "308 http://x.org/a?b"),
        ("http://www.x.org:8080/", HERE, "308 http://x.org:8080/"),
        ("https://www.x.org:443/", HERE, "308 https://x.org/"),
        ("http://shop.internal/", HERE, "in -"),
        // Behind a proxy that is believed the visitor's own scheme counts.
        ("http://www.x.org/", "10.0.0.1", "308 https://x.org/"),
    ] {
        assert_eq!(judged(&edge, url, &[("x-forwarded-proto", "https")], address), wanted, "{url} of {address}");
    }
}

#[test]
fn the_smallest_network_and_the_longest_path_decide_however_the_path_is_written() {
    let edge = compile(serde_json::json!({ "access": [
        { "deny": ["203.0.113.0/24"], "allow": ["203.0.113.7", "0.0.0.0/0", "::/0"] },
        { "path": "/admin", "allow": ["private"], "deny": ["10.0.0.66"] },
        { "path": "/admin/open", "deny": ["198.51.100.1"] },
    ] }));
    for (path, address, wanted) in [
        ("/", HERE, "in -"),
        ("/", "203.0.113.1", "403"),
        ("/", "203.0.113.7", "in -"),
        ("/", "::ffff:203.0.113.1", "403"),
        ("/admin", "10.0.0.1", "in -"),
        ("/admin/x", "10.0.0.66", "403"),
        ("/admin", HERE, "403"),
        ("/administrator", HERE, "in -"),
        ("/%61dmin", HERE, "403"),
        ("//admin", HERE, "403"),
        ("/x/../admin", HERE, "403"),
        ("/admin/open", HERE, "in -"),
        ("/admin/open/../x", HERE, "403"),
    ] {
        assert_eq!(judged(&edge, &format!("http://x.org{path}"), &[], address), wanted, "{path} from {address}");
    }
}

/// `secret` and `password`.
const BCRYPT: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
const ARGON2: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

#[test]
fn a_password_is_the_one_of_its_hash_and_no_other() {
    for (hash, password) in [(BCRYPT, "secret"), (ARGON2, "password")] {
        let hash: PasswordHash = hash.parse().unwrap();
        assert!(passwords::matches(&hash, password.as_bytes()));
        for wrong in ["", "Secret", "passwor", "secret\0"] {
            assert!(!passwords::matches(&hash, wrong.as_bytes()), "{wrong:?}");
        }
    }
}

#[test]
fn who_has_a_password_comes_in_and_nobody_else() {
    use base64::Engine as _;
    let edge = compile(serde_json::json!({
        "basic_auth": [
            { "users": { "alice": BCRYPT, "bob": ARGON2 }, "except": ["/health"] },
            { "path": "/boss", "users": { "carol": ARGON2 } },
        ],
        "static": [{ "path": "/logo", "folder": "/srv", "auth": false }, { "path": "/docs", "folder": "/srv" }],
    }));
    let basic = |text: &str| format!("bAsIc {}", base64::engine::general_purpose::STANDARD.encode(text));
    for (path, bring, wanted) in [
        ("/", "alice:secret", "in alice"),
        ("/", "bob:password", "in bob"),
        ("/", "alice:password", "401"),
        ("/", "mallory:secret", "401"),
        ("/", "mallory:", "401"),
        ("/boss", "alice:secret", "401"),
        ("/boss", "carol:password", "in carol"),
        ("/%62oss", "alice:secret", "401"),
        ("/logo/x", "", "in -"),
        ("/docs", "", "401"),
        ("/health", "", "in -"),
        ("/health/../x", "", "401"),
        ("/health/%2e%2e/x", "", "401"),
    ] {
        assert_eq!(
            judged(&edge, &format!("http://x.org{path}"), &[("authorization", &basic(bring))], HERE),
            wanted,
            "{path} {bring}"
        );
    }
    for nonsense in ["", "Basic", "Basic ???", "Bearer YTpi", "Basic YQ=="] {
        assert_eq!(judged(&edge, "http://x.org/", &[("authorization", nonsense)], HERE), "401", "{nonsense}");
    }
}

#[test]
fn a_limit_counts_its_own_clients_and_goes_on_where_it_is_the_same() {
    let options = |requests: u32| {
        serde_json::json!({ "rate_limits": [
        { "requests": requests, "per": "1h", "by": "header:X-Key", "path": "/api" },
    ] })
    };
    let edge = compile(options(1));
    let key =
        |edge: &Edge, path: &str, key: &str| judged(edge, &format!("http://x.org{path}"), &[("x-key", key)], HERE);
    assert_eq!([key(&edge, "/api", "a"), key(&edge, "/api/x", "a"), key(&edge, "/api", "b")], ["in -", "429", "in -"]);
    assert_eq!(key(&edge, "/%61pi", "a"), "429");
    assert_eq!(key(&edge, "/", "a"), "in -");
    assert_eq!(judged(&edge, "http://x.org/api", &[], HERE), "in -");
    assert_eq!(judged(&edge, "http://x.org/api", &[], HERE), "429");
    // Another setting of the service does not give anybody anything back; another limit begins anew.
    let mut more = options(1);
    more["security_headers"] = true.into();
    let same = Edge::compile(&serde_json::from_value(more).unwrap(), Some(&edge)).unwrap();
    assert_eq!(key(&same, "/api", "a"), "429");
    let other = Edge::compile(&serde_json::from_value(options(2)).unwrap(), Some(&same)).unwrap();
    assert_eq!(key(&other, "/api", "a"), "in -");
}

#[test]
fn so_many_at_once_are_let_in_and_a_place_is_given_back_at_the_end() {
    let edge = compile(serde_json::json!({ "rate_limits": [{ "connections": 2 }] }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (passwords, request) = (Passwords::new(Arc::default()), request("http://x.org/", &[]));
    let enter = || with_seen(&request, HERE, |seen| runtime.block_on(edge.judge(seen, &passwords)));
    let (one, two) = (enter().unwrap(), enter().unwrap());
    assert!(matches!(enter(), Err(Stopped::Refused(Error::TooManyRequests { .. }))));
    drop(one);
    assert!(enter().is_ok());
    drop(two);
}

#[test]
fn a_path_is_rewritten_by_the_first_that_takes_it() {
    let edge = compile(serde_json::json!({ "rewrite": [
        { "prefix": "/api", "to": "/v1" },
        { "prefix": "/top", "to": "/" },
        { "pattern": "^/u/([0-9]+)/(.*)$", "to": "/users?id=$1&rest=$2&by=$remote_addr" },
    ] }));
    let request = request("http://x.org/", &[]);
    for (target, wanted) in [
        ("/api", Some("/v1")),
        ("/api/x?q=1", Some("/v1/x?q=1")),
        ("/apis", None),
        ("/top/x", Some("/x")),
        ("/top", Some("/")),
        ("/u/4/a?q=1", Some("/users?id=4&rest=a&by=192.0.2.1&q=1")),
    ] {
        let made = with_seen(&request, HERE, |seen| edge.rewrite(target, seen));
        assert_eq!(made.as_deref(), wanted, "{target}");
    }
}

#[test]
fn fields_are_removed_set_and_added_with_what_is_known_of_the_request() {
    let edge = compile(serde_json::json!({
        "request_headers": {
            "set": { "X-All": "$host $remote_addr $scheme $uri $request_uri $args$is_args $request_method $request_id \
                     $service $slot $http_x_own$$", "Host": "app.local", "X-None": "$http_missing" },
            "add": { "X-Own": "more" },
            "remove": ["Cookie"],
        },
        "response_headers": { "set": { "X-Slot": "$slot" }, "add": { "Vary": "Cookie" }, "remove": ["Server"] },
        "security_headers": true,
    }));
    let request = request("http://x.org/a?b=c", &[("x-own", "mine"), ("cookie", "a=b"), ("x-none", "1")]);
    let changed = with_seen(&request, HERE, |seen| edge.request(seen)).unwrap();
    assert_eq!(changed.host.as_deref(), Some("app.local"));
    let all = "x.org 192.0.2.1 http /a /a?b=c b=c? GET id-1 shop green mine$";
    let given: Vec<_> = changed.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(given, [("x-all", all), ("x-own", "more")]);
    let left: Vec<_> = changed.request.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-own"]);
    let mut answer = HeaderMap::new();
    for (name, value) in [("server", "app"), ("vary", "Accept"), ("x-frame-options", "DENY")] {
        answer.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    with_seen(&request, HERE, |seen| edge.answer(&mut answer, seen));
    assert_eq!(answer["x-slot"], "green");
    assert_eq!(answer["x-frame-options"], "DENY");
    assert_eq!(answer.get_all("vary").iter().collect::<Vec<_>>(), ["Accept", "Cookie"]);
    assert_eq!(answer["x-content-type-options"], "nosniff");
    assert!(!answer.contains_key("server") && !answer.contains_key("strict-transport-security"));
    let secure = self::request("https://x.org/", &[]);
    with_seen(&secure, HERE, |seen| edge.answer(&mut answer, seen));
    assert_eq!(answer["strict-transport-security"], "max-age=31536000");
}
