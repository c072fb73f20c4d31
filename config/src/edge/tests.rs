//! What the settings take, what they refuse, and that what is written is read back.

use std::time::Duration;

use super::*;
use crate::error::Source;
use crate::load;
use crate::options::ServiceOptions;

const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuW9Y9x1Xh0rjX6cV8O1YdGxg5hWcZqLu";
const ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$bXlfaGFzaF9vZl8zMl9ieXRlc19oZXJlX19fX19fX18";

/// The options of a service whose file says these.
fn options(text: &str) -> Result<ServiceOptions, Vec<String>> {
    let text =
        format!("[services.shop]\ndomains = [\"x.org\"]\nendpoints = [\"a:1\"]\n[services.shop.options]\n{text}");
    let read = load::parse(&Source::new("f.toml", text));
    read.map(|model| model.services[0].settings.options.clone().unwrap())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refused(text: &str) -> Vec<String> {
    options(text).expect_err(text)
}

#[test]
fn every_setting_of_the_file_means_what_the_admin_api_is_told_and_what_is_written_is_read_back() {
    let text = format!(
        r#"
        redirects = [{{ from = "/old/*", to = "/new/$1", status = 301 }}, {{ host = "www.x.org", to = "https://x.org$uri" }}]
        canonical_host = "X.org."
        rewrite = [{{ prefix = "/api", to = "/v1" }}, {{ pattern = "^/u/([0-9]+)$", to = "/users?id=$1" }}]
        request_headers = {{ set = {{ X-Host = "$host" }}, add = {{ X-A = "a$$b" }}, remove = ["Cookie"] }}
        response_headers = {{ set = {{ X-Slot = "${{slot}}!" }} }}
        security_headers = true
        access = {{ allow = ["10.0.0.0/8", "private"], deny = ["10.0.0.7"], path = "/admin" }}
        basic_auth = {{ realm = "stage", users = {{ alice = "{BCRYPT}", bob = "{ARGON2}" }}, except = ["/health"] }}
        rate_limits = [{{ requests = 10, per = "1m", burst = 20, by = "header:X-Key", path = "/login" }}, {{ connections = 5 }}]
        compress = {{ min_bytes = 10, algorithms = ["gzip"] }}
        static = [{{ path = "/static", folder = "/srv/static", fallback = "/index.html", cache = "1h", auth = false }}]
        old_assets = {{ paths = ["/assets/*"] }}
        "#
    );
    let read = options(&text).unwrap();
    assert_eq!(read.redirects[0].status.code(), 301);
    assert_eq!(read.redirects[1].status, RedirectStatus::PERMANENT);
    assert_eq!(read.canonical_host.as_deref(), Some("x.org"));
    assert_eq!(read.request_headers.add.values().next().unwrap().parts(), [Part::Text("a$b".to_owned())]);
    assert_eq!(read.access.len(), 1);
    assert_eq!(read.basic_auth[0].users["bob"].kind(), HashKind::Argon2);
    assert_eq!(read.rate_limits[0].step(), Some(6_000_000_000));
    assert_eq!(read.rate_limits[0].by, LimitBy::Header("x-key".parse().unwrap()));
    assert_eq!(read.compress.as_ref().unwrap().algorithms, [Algorithm::Gzip]);
    assert_eq!(read.static_files[0].cache, Some(Duration::from_secs(3600)));
    assert_eq!(read.old_assets.as_ref().unwrap().minutes, 10);
    let sent = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<ServiceOptions>(&sent).unwrap(), read, "{sent}");
    assert!(!format!("{read:?}").contains("$2y$"), "a hash is shown");
    // What is left out is not sent, so that an older program reads it.
    let plain = serde_json::to_string(&ServiceOptions::default()).unwrap();
    assert!(!plain.contains("redirects") && !plain.contains("static"), "{plain}");
    assert_eq!(options("compress = false").unwrap().compress, None);
    assert_eq!(options("compress = true").unwrap().compress, Some(Compress::default()));
    let two = options("access = [{ deny = [\"10.0.0.1\"] }, { allow = [\"private\"], path = \"/a\" }]").unwrap();
    assert_eq!(two.access.len(), 2);
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place() {
    let problems = refused(
        "redirects = [{ from = \"old\", to = \"/new\" }, { to = \"/new\" }]\n\
         canonical_host = \"y.org\"\n\
         request_headers = { set = { Content-Length = \"0\", X = \"$hots\" } }\n\
         access = { allow = [\"10.0.0.0/33\"] }\n\
         basic_auth = { users = { alice = \"secret\" } }\n\
         rate_limits = [{ burst = 3 }]\n\
         static = [{ path = \"/s\", folder = \"srv\" }]\n",
    );
    let wanted = [
        "f.toml:5:23: `old` does not begin with `/`",
        "f.toml:5:52: the redirect does not say whose requests it takes",
        "f.toml:6:18: `y.org` is none of the service's domains",
        "f.toml:7:29: `content-length` frames the message",
        "f.toml:7:55: there is no variable `$hots`; `$host` is one",
        "f.toml:8:21: `10.0.0.0/33` is not a network",
        "f.toml:9:34: this is no hash of bcrypt or argon2",
        "f.toml:10:16: the limit has no number",
        "f.toml:10:26: `burst` has no rate that it could exceed",
        "f.toml:11:35: the folder is no absolute path",
    ];
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.starts_with(wanted), "{problem}\nis not\n{wanted}");
        assert!(problem.ends_with(')'), "there is no hint: {problem}");
    }
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    assert!(!problems.concat().contains("secret"), "what may be a password is repeated");
}

#[test]
fn the_admin_api_refuses_what_the_file_does() {
    for (json, wanted) in [
        (r#"{"redirects":[{"from":"/a*","to":"https://x.org$1"}]}"#, "a part of the redirect's host"),
        (r#"{"redirects":[{"from":"/a","to":"/b","status":200}]}"#, "no status of a redirect"),
        (r#"{"redirects":[{"from":"/*","to":"/b"}]}"#, "leads to itself"),
        (r#"{"redirects":[{"from":"/a","to":"/b$1"}]}"#, "`$1` stands for nothing"),
        (r#"{"redirects":[{"from":"/a","to":"//evil.org"}]}"#, "is no address"),
        (r#"{"redirects":[{"from":"/a","to":"https:///x"}]}"#, "names no host"),
        (r#"{"redirects":[{"from":"/a","to":"https://x.org@y.org/"}]}"#, "names no host"),
        (r#"{"rewrite":[{"to":"/b"}]}"#, "which paths it takes"),
        (r#"{"rewrite":[{"pattern":"^/(","to":"/b"}]}"#, "no regular expression"),
        (r#"{"rewrite":[{"prefix":"/a","to":"https://x"}]}"#, "is no path"),
        (r#"{"request_headers":{"set":{"Transfer-Encoding":"chunked"}}}"#, "frames the message"),
        (r#"{"request_headers":{"remove":["Host"]}}"#, "can only be set"),
        (r#"{"request_headers":{"set":{"X-Forwarded-For":"1.2.3.4"}}}"#, "to the truth"),
        (r#"{"request_headers":{"set":{"X":"a\r\nb"}}}"#, "control character"),
        (r#"{"response_headers":{"set":{"Content-Encoding":"br"}}}"#, "how the body is to be read"),
        (r#"{"response_headers":{"set":{"X":"$1"}}}"#, "stands for nothing"),
        (r#"{"response_headers":{"set":{"X":"1"},"remove":["x"]}}"#, "is set and removed"),
        (r#"{"access":[{"path":"/a"}]}"#, "names nobody"),
        (r#"{"access":[{"allow":["10.0.0.1"],"deny":["10.0.0.1"]}]}"#, "allowed and denied"),
        (r#"{"basic_auth":[{"users":{}}]}"#, "nobody could come"),
        (
            r#"{"basic_auth":[{"users":{"a":"$2y$18$abcdefghijklmnopqrstuuW9Y9x1Xh0rjX6cV8O1YdGxg5hWcZqLu"}}]}"#,
            "takes too long",
        ),
        (r#"{"basic_auth":[{"users":{"a":"$apr1$abc$def"}}]}"#, "no hash of bcrypt or argon2"),
        (r#"{"rate_limits":[{"requests":1000000,"per":"1ms"}]}"#, "a million in a second"),
        (r#"{"rate_limits":[{"requests":1,"by":"cookie"}]}"#, "told apart by"),
        (r#"{"compress":{"types":[]}}"#, "nothing is compressed"),
        (r#"{"static":[{"path":"/s","folder":"/srv/../etc"}]}"#, "no absolute path"),
        (r#"{"old_assets":{"paths":[]}}"#, "names no path"),
        (r#"{"canonical_host":"https://x.org"}"#, "not a URL"),
    ] {
        let error = serde_json::from_str::<ServiceOptions>(json).expect_err(json).to_string();
        assert!(error.contains(wanted), "{json}: {error}");
    }
}

#[test]
fn a_star_stands_for_the_least_that_is_possible_and_the_last_for_the_rest() {
    let captures = |glob: &str, path: &'static str| glob.parse::<PathGlob>().unwrap().captures(path);
    assert_eq!(captures("/old/*", "/old/a/b"), Some(vec!["a/b"]));
    assert_eq!(captures("/old/*", "/old/"), Some(vec![""]));
    assert_eq!(captures("/old/*", "/old"), None);
    assert_eq!(captures("/*/a/*.css", "/x/a/y/a/z.css"), Some(vec!["x", "y/a/z"]));
    assert_eq!(captures("/a*a", "/a"), None);
    assert_eq!(captures("/a", "/a"), Some(vec![]));
    assert_eq!(captures("/a", "/ab"), None);
    for bad in ["a", "/a**", "/a?b", "/*/*/*/*/*/*/*/*/*/*"] {
        assert!(bad.parse::<PathGlob>().is_err(), "{bad}");
    }
}

#[test]
fn a_redirect_to_a_host_that_a_visitor_has_no_say_in_is_taken() {
    for to in ["/a$uri", "https://x.org", "https://x.org/$1", "$scheme://$host:8443$request_uri", "https://x.org$uri?"]
    {
        let redirect = format!(r#"{{"redirects":[{{"from":"/old/*","host":"y.org","to":"{to}"}}]}}"#);
        assert!(serde_json::from_str::<ServiceOptions>(&redirect).is_ok(), "{to}");
    }
}

#[test]
fn a_file_of_users_is_read_as_htpasswd_writes_it() {
    let users = users_of(&format!("# staff\nalice:{BCRYPT}\n\nbob:{ARGON2}\n")).unwrap();
    assert_eq!(users.keys().collect::<Vec<_>>(), ["alice", "bob"]);
    assert_eq!(users_of("alice").unwrap_err().0, 1);
    assert_eq!(users_of(&format!("a:{BCRYPT}\na:{BCRYPT}")).unwrap_err().0, 2);
    assert_eq!(users_of("\na:$apr1$x$y").unwrap_err(), (2, "this is no hash of bcrypt or argon2".to_owned()));
}

#[test]
fn the_examples_of_the_page_are_taken() {
    let page = include_str!("../../../docs/edge.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() > 5, "docs/edge.md was not understood");
    for example in examples {
        let example = example.replace("shop.example.com\"\nredirects", "x.org\"\nredirects");
        assert!(options(&example).is_ok(), "{example}\n{:?}", options(&example));
    }
    for name in
        ["host", "remote_addr", "scheme", "uri", "request_uri", "args", "is_args", "request_method", "request_id"]
    {
        assert!(page.contains(&format!("`${name}`")), "docs/edge.md lacks ${name}");
    }
}
