//! What is said of a wrong file, and what a right one means.

use proptest::prelude::*;

use super::*;
use crate::model::{AccessFormat, Limits, Listen};
use crate::settings::ProxySettings;

fn problems(text: &str) -> Vec<String> {
    parse(&Source::new("bgproxy.toml", text)).unwrap_err().iter().map(ToString::to_string).collect()
}

fn example(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    load(&path, Presence::Required).unwrap_or_else(|problems| panic!("{}", problems[0].render()))
}

#[test]
fn both_examples_load() {
    let minimal = example("bgproxy-minimal.toml");
    assert_eq!(minimal.listen, Listen::Default);
    assert_eq!(minimal.services[0].endpoints[0].to_string(), "127.0.0.1:8080");
    let full = example("bgproxy.toml");
    let limits = Limits { connections_per_address: Some(512), ..Limits::default() };
    assert_eq!(full.limits, limits, "the full example shows the defaults");
    assert_eq!(full.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["api", "shop"]);
    assert!(full.services[0].settings.strip_path);
}

#[test]
fn a_missing_file_is_the_default_where_nobody_named_it() {
    let path = Path::new("/nonexistent/bgproxy.toml");
    assert_eq!(load(path, Presence::Optional).unwrap(), Model::default());
    let problems = load(path, Presence::Required).unwrap_err();
    assert!(problems[0].to_string().starts_with("/nonexistent/bgproxy.toml: the file can't be read"));
}

#[test]
fn every_problem_is_told_in_the_order_of_the_file() {
    let text = r#"listen = ["80"]
workers = 0
[limits]
idle_timeout = "75"
connect_timeout = "0s"
header_bytes = 1
[log]
level = "loud"
[services.Shop]
strip_path = true
"#;
    let problems = problems(text);
    let expected = [
        "bgproxy.toml:1:11: `80` is not an address to listen on (write an IP address and a port: 0.0.0.0:80, [::]:80, 127.0.0.1:8080)",
        "bgproxy.toml:2:11: `workers` is 0 (it goes from 1 to 1024)",
        "bgproxy.toml:4:16: `75` is not a duration (write 200ms, 30s or 1m; the default is 1m 15s)",
        "bgproxy.toml:5:19: `connect_timeout` is zero, so that nothing would ever be in time (write 200ms, 30s or 1m; the default is 5s)",
        "bgproxy.toml:6:16: `header_bytes` is 1 (it goes from 8192 to 1048576)",
        "bgproxy.toml:8:9: `loud` is no level (one of error, warn, info, debug, trace)",
        "bgproxy.toml:9:11: service name `Shop`: only a-z, 0-9, `-` and `_` are allowed (it becomes a host name: `shop`, `web-2`)",
        "bgproxy.toml:9:11: service `Shop` has no endpoints (add where it listens: endpoints = [\"127.0.0.1:3000\"])",
        "bgproxy.toml:10:14: `strip_path` has no path to strip (add paths = [\"/api\"])",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn the_same_route_for_two_services_is_told_with_both_places() {
    let text = "[services.a]\ndomains = [\"X.example\"]\nendpoints = [\"h:1\"]\n[services.b]\ndomains = [\"x.example\"]\nendpoints = [\"h:2\"]\n";
    let problems = parse(&Source::new("bgproxy.toml", text)).unwrap_err();
    assert_eq!(problems.len(), 1);
    let shown = problems[0].render();
    assert!(shown.contains("`b` has the same route as `a`: x.example/"), "{shown}");
    assert!(shown.contains("bgproxy.toml:5:12") && shown.contains("first taken here"), "{shown}");
    assert!(shown.contains("= help: give one of them another domain or path"), "{shown}");
}

#[test]
fn an_unknown_key_is_told_at_its_place() {
    let problems = problems("workers = 2\nlisten_on = []\n");
    assert!(problems[0].starts_with("bgproxy.toml:2:1: unknown field `listen_on`"), "{problems:?}");
}

#[test]
fn private_stands_for_every_private_network() {
    let model = parse(&Source::new("f", "trusted_proxies = [\"private\", \"203.0.113.7\"]")).unwrap();
    let networks = crate::network::expand(&model.trusted_proxies);
    let trusts = |ip: &str| networks.iter().any(|net| net.contains(&ip.parse::<std::net::IpAddr>().unwrap()));
    assert!(trusts("10.1.2.3") && trusts("fd00::1") && trusts("::1") && trusts("203.0.113.7"));
    assert!(!trusts("203.0.113.8") && !trusts("172.32.0.1") && !trusts("2001:db8::1"));
}

#[test]
fn what_the_file_leaves_open_is_taken_from_the_table_and_what_it_says_is_its_own() {
    let model = parse(&Source::new("f", "[limits]\nidle_timeout = \"5s\"\nheader_fields = 20\n")).unwrap();
    let table: ProxySettings = serde_json::from_str(
        r#"{"trusted_proxies":["cloudflare"],"limits":{"idle_timeout":"9s","header_timeout":"3s"},"log":{"access":"json"}}"#,
    )
    .unwrap();
    let both = model.with(&table);
    let time = |seconds| std::time::Duration::from_secs(seconds);
    assert_eq!(
        (both.limits.idle_timeout, both.limits.header_timeout, both.limits.header_fields),
        (time(5), time(3), 20)
    );
    assert_eq!((both.log.access.format, both.trusted_proxies.len()), (AccessFormat::Json, 1));
    assert_eq!(both.with(&ProxySettings::default()), model, "without the table it is the file alone");
    assert_eq!(Model::default().with(&Model::default().in_force()), Model::default());
}

/// Texts near to the real thing: its own lines, shuffled, cut and mixed with noise.
fn near_miss() -> impl Strategy<Value = String> {
    let lines: Vec<&'static str> = include_str!("../../examples/bgproxy.toml").lines().collect();
    let line = prop_oneof![4 => proptest::sample::select(lines).prop_map(str::to_owned), 1 => ".*"];
    (proptest::collection::vec(line, 0..20), 0..200usize).prop_map(|(lines, cut)| {
        let text = lines.join("\n");
        let end = text.char_indices().map(|(at, _)| at).nth_back(cut).unwrap_or(text.len());
        text[..end].to_owned()
    })
}

proptest! {
    #[test]
    fn no_text_panics_and_every_problem_can_be_shown(text in prop_oneof![near_miss(), ".*"]) {
        if let Err(problems) = parse(&Source::new("f", text)) {
            for problem in problems {
                prop_assert!(!problem.render().is_empty());
                prop_assert!(problem.to_string().starts_with("f:"));
            }
        }
    }
}
