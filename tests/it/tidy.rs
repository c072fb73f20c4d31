//! What people forget: layers, unlisted test files, undocumented keys, calls and codes, banned crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use config::admin::{Call, ErrorCode, Verb};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no source below {folder}");
    found
}

/// The crates that a manifest lists for the program itself, tests aside.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = read(manifest);
    let table = text.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    table.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).map(str::to_owned).collect()
}

#[test]
fn the_crates_depend_in_one_direction_and_the_proxy_knows_no_engine() {
    let forbidden = [
        ("config/Cargo.toml", &["proxy", "ctl", "tests", "tokio", "hyper", "bollard"][..]),
        ("proxy/Cargo.toml", &["ctl", "tests", "bollard", "tar", "tower"]),
        ("ctl/Cargo.toml", &["proxy", "tests", "arc-swap", "tower"]),
    ];
    for (manifest, crates) in forbidden {
        let listed = dependencies(manifest);
        assert!(listed.len() > 3, "{manifest} was not understood: {listed:?}");
        for name in crates {
            assert!(!listed.iter().any(|dependency| dependency == name), "{manifest} depends on {name}");
        }
    }
}

/// The modules of a crate's sources that a text imports from: `crate::a::b::{self, C}` is `a::b`, where that is a file.
fn imports(own: &str, text: &str, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for (word, base) in [("crate::", ""), ("super::", parent)] {
        for rest in text.split(word).skip(1) {
            let path = |tail: &str| {
                let names =
                    tail.split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != ':' && !c.is_ascii_digit());
                [base, names.into_iter().next().unwrap()].join("::").trim_matches(':').to_owned()
            };
            let heads: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            for head in heads {
                let mut path = path(head);
                while !path.is_empty() && !files.contains_key(&path) {
                    path = path.rsplit_once("::").map_or(String::new(), |(front, _)| front.to_owned());
                }
                // A folder's own file and what is in the folder are one room.
                let is_room = |a: &str, b: &str| a.starts_with(&format!("{b}::"));
                if !path.is_empty() && path != own && !is_room(&path, own) && !is_room(own, &path) {
                    found.insert(path);
                }
            }
        }
    }
    found
}

#[test]
fn no_file_imports_from_one_that_imports_from_it() {
    for (folder, least) in [("config/src", 15), ("proxy/src", 40), ("ctl/src", 60)] {
        let module = |path: &Path| {
            let path = path.strip_prefix(root().join(folder)).unwrap().with_extension("");
            let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).filter(|name| *name != "mod").collect();
            names.join("::")
        };
        let is_test = |path: &Path| path.file_stem().unwrap().to_str().unwrap().ends_with("tests");
        let files: BTreeMap<String, String> = sources(folder)
            .into_iter()
            .filter(|(path, _)| !is_test(path))
            .map(|(path, text)| (module(&path), text))
            .filter(|(name, _)| name != "lib" && name != "main")
            .collect();
        let mut arrows: BTreeMap<&String, BTreeSet<String>> =
            files.iter().map(|(name, text)| (name, imports(name, text, &files))).collect();
        assert!(arrows.values().filter(|to| !to.is_empty()).count() > least / 2, "{folder} was not understood");
        // What imports from nothing that is left is a lower layer; whatever never gets there is in a circle.
        loop {
            let low: Vec<&String> = arrows.iter().filter(|(_, to)| to.is_empty()).map(|(name, _)| *name).collect();
            if low.is_empty() {
                break;
            }
            arrows.retain(|name, _| !low.contains(name));
            arrows.values_mut().for_each(|to| to.retain(|name| !low.contains(&name)));
        }
        assert!(arrows.is_empty(), "{folder} has a circle: {arrows:#?}");
    }
}

#[test]
fn every_file_says_first_what_it_owns() {
    for folder in ["config/src", "proxy/src", "ctl/src", "tests/it", "tests/harness"] {
        for (path, text) in sources(folder) {
            assert!(text.starts_with("//! "), "{} has no `//!` first line", path.display());
        }
    }
}

#[test]
fn every_test_file_is_listed_with_a_comment() {
    let main = read("tests/it/main.rs");
    let lines: Vec<&str> = main.lines().collect();
    for (path, _) in sources("tests/it") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "main" {
            continue;
        }
        let at = lines.iter().position(|line| *line == format!("mod {name};"));
        let at = at.unwrap_or_else(|| panic!("tests/it/main.rs does not list {name}"));
        assert!(at > 0 && lines[at - 1].starts_with("// "), "tests/it/main.rs says nothing about {name}");
    }
}

#[test]
fn every_configuration_key_is_documented_and_shown_in_the_full_example() {
    let (file, reference, example) =
        (read("config/src/file.rs"), read("docs/config-reference.md"), read("examples/bgproxy.toml"));
    let keys: Vec<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(':').map(|(key, _)| key))
        // A key that is a word of Rust.
        .map(|key| key.trim_start_matches("r#"))
        .filter(|key| {
            !["limits", "log", "webhook", "acme", "services", "certificates", "health", "options", "basic_auth"]
                .contains(key)
        })
        .collect();
    assert!(keys.len() > 30, "config/src/file.rs was not understood: {keys:?}");
    for key in keys {
        assert!(reference.contains(&format!("| `{key}` |")), "docs/config-reference.md lacks `{key}`");
        assert!(example.contains(&format!("{key} = ")), "examples/bgproxy.toml lacks `{key}`");
    }
}

#[test]
fn every_limit_stands_in_the_table_of_limits() {
    let (file, table) = (read("config/src/file.rs"), read("docs/limits.md"));
    let limits = file.split("pub struct Limits {").nth(1).unwrap().split("\n}").next().unwrap();
    let keys: Vec<&str> =
        limits.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(':').map(|(key, _)| key)).collect();
    assert!(keys.len() > 10, "config/src/file.rs was not understood: {keys:?}");
    for key in keys {
        assert!(table.contains(&format!("`{key}`")), "docs/limits.md lacks `{key}`");
    }
}

#[test]
fn every_admin_call_and_error_code_is_documented() {
    let text = read("docs/admin-protocol.md");
    let service = "NAME".to_lowercase().parse::<config::name::ServiceName>().unwrap();
    let mut calls = vec![
        Call::Version,
        Call::Status,
        Call::Services,
        Call::Service(service.clone()),
        Call::History(service.clone()),
        Call::Log(service.clone()),
        Call::Put(service.clone()),
        Call::Delete(service.clone()),
        Call::Proxy,
        Call::PutProxy,
        Call::PutCertificate("name".parse().unwrap()),
        Call::DeleteCertificate("name".parse().unwrap()),
        Call::Reload,
        Call::Upgrade,
        Call::Events,
        Call::Metrics,
    ];
    calls.extend(Verb::ALL.map(|verb| Call::Act(service.clone(), verb)));
    for call in calls {
        let shown = format!("{} {}", call.method(), call.path().replace("/name", "/NAME"));
        // `resume` stands in one line with `pause`.
        let known = text.contains(&format!("`{shown}`")) || text.contains("`/resume`") && shown.ends_with("/resume");
        assert!(known, "docs/admin-protocol.md lacks {shown}");
    }
    for code in ErrorCode::ALL {
        let word = serde_json::to_value(code).unwrap();
        let row = format!("| `{}` | {} |", word.as_str().unwrap(), code.status());
        assert!(text.contains(&row), "docs/admin-protocol.md lacks {row}");
    }
}

#[test]
fn no_banned_crate_is_locked() {
    let lock = read("Cargo.lock");
    let deny = read("deny.toml");
    let banned: Vec<&str> =
        deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect();
    assert!(banned.len() >= 5, "deny.toml was not understood: {banned:?}");
    for needed in ["aws-lc-sys", "openssl-sys"] {
        assert!(banned.contains(&needed), "deny.toml does not ban {needed}");
    }
    for name in banned {
        assert!(!lock.contains(&format!("\nname = \"{name}\"\n")), "{name} is locked, and deny.toml bans it");
    }
}

/// The promises, and how many there are of each kind: while switching, and when something breaks.
const PROMISES: [(&str, u32); 2] = [("S", 10), ("F", 17)];

/// The tests that there are, as `file::name`.
fn tests_that_exist() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in ["tests/it", "proxy/src", "config/src", "ctl/src"] {
        for (path, text) in sources(folder) {
            let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
            // The attributes of a test stand before its name, and between two of them there is a name or an empty line.
            for part in text.split("#[test]").chain(text.split("#[tokio::test")).skip(1) {
                let name = part.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
                tests.extend(name.map(|name| format!("{module}::{name}")));
            }
        }
    }
    assert!(tests.len() > 300, "the tests were not understood: {tests:?}");
    tests
}

/// Checks that a row of `docs/testing.md` names tests, and that they exist.
fn names_tests_that_exist(page: &str, begin: &str, tests: &BTreeSet<String>) {
    let row = page.lines().find_map(|line| line.strip_prefix(begin)?.strip_prefix(" | "));
    let row = row.unwrap_or_else(|| panic!("docs/testing.md has no row that begins with {begin}"));
    let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    assert!(!named.is_empty(), "docs/testing.md names no test for {begin}");
    for test in named {
        assert!(tests.contains(test), "docs/testing.md names `{test}` for {begin}, which is not there");
    }
}

#[test]
fn every_promise_has_tests_that_exist() {
    let (page, tests) = (read("docs/testing.md"), tests_that_exist());
    for (kind, count) in PROMISES {
        for number in 1..=count {
            names_tests_that_exist(&page, &format!("| {kind}{number}"), &tests);
        }
    }
}

#[test]
fn every_limit_has_tests_that_exist() {
    let (page, limits, tests) = (read("docs/testing.md"), read("docs/limits.md"), tests_that_exist());
    let page = page.split("\n## Limits\n").nth(1).unwrap();
    let rows = limits.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what | "));
    let rows: Vec<&str> = rows.filter_map(|line| line.split(" | ").next()).collect();
    assert!(rows.len() > 30, "docs/limits.md was not understood: {rows:?}");
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "two limits have one name");
    for row in rows {
        names_tests_that_exist(page, row, &tests);
    }
}

#[test]
fn documents_link_to_files_that_exist() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|page| root().join(page)).into();
    pages.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for page in pages.into_iter().filter(|page| page.is_file()) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                let found = page.parent().unwrap().join(target).exists();
                assert!(found, "{} links to {target}, which is not there", page.display());
            }
        }
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let (code, page) = (read("proxy/src/telemetry/metrics.rs"), read("docs/metrics.md"));
    let named = |text: &str, quote: char| -> BTreeSet<String> {
        let words = text.split(quote).filter(|word| word.starts_with("bgproxy_"));
        words.map(str::to_owned).collect()
    };
    let (exported, documented) = (named(&code, '"'), named(&page, '`'));
    assert!(exported.len() > 10, "metrics.rs was not understood: {exported:?}");
    assert_eq!(exported, documented);
}
