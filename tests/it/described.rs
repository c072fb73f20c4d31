//! `bluegreen.toml` describes a deployment, by the real programs on plain processes.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Site, client};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);

/// A folder with a file, and a site that is up.
async fn described(text: &str) -> (Site, TempDir, String) {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bluegreen.toml");
    fs::write(&path, text).unwrap();
    (site, folder, path.to_str().unwrap().to_owned())
}

/// A port that nothing listens on now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn answered(site: &Site, host: &str) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    let answer = visitor.get(host, "/").await.unwrap().unwrap();
    answer.field("x-version").map_or_else(|| answer.status.to_string(), str::to_owned)
}

/// The file says all, a flag wins over it, and what neither says stays as the live slot has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_does_what_the_file_says_and_a_flag_wins_over_it() {
    let (site, folder, path) = described("").await;
    let v1 = site.version("v1", QUICK);
    let text = |image: &str, more: &str| {
        let port = free_port();
        let service = format!("[services.shop]\nimage = \"{image}\"\nport = {port}\ndomains = [\"shop.test\"]\n");
        fs::write(folder.path().join("bluegreen.toml"), format!("{service}bake = \"0s\"\n{more}")).unwrap();
    };
    text(
        &v1,
        "health_interval = \"50ms\"\nkeep = \"warm\"\nenv_files = [\"shop.env\"]\n[services.shop.env]\nLEVEL = \"info\"\n",
    );
    fs::write(folder.path().join("shop.env"), "FROM_FILE=1\n").unwrap();
    let first = site.bgctl(&["--file", &path, "deploy"]).await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    assert!(first.talk.contains("shop is described in ") && first.talk.contains(&path), "{}", first.talk);
    assert_eq!(answered(&site, "shop.test").await, "v1");

    // As the next run would begin: the file's settings, with a flag over one of them.
    let shown = site.bgctl_plain(&["--file", &path, "--json", "switch", "shop", "--dry-run", "--drain", "5s"]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let settings = &shown["settings"];
    assert_eq!((&settings["keep"], &settings["drain"]), (&json!("warm"), &json!("5s")), "{settings}");
    let flag = site.bgctl_plain(&["--file", &path, "--json", "switch", "shop", "--dry-run", "--keep", "none"]).await;
    let flag: Value = serde_json::from_slice(&flag.stdout).unwrap();
    assert_eq!(flag["settings"]["keep"], "none");

    // A new image, and a key that has gone from the file stays as it is.
    text(&site.version("v2", QUICK), "");
    let second = site.bgctl(&["--file", &path, "switch", "shop"]).await;
    assert_eq!(second.code, Some(0), "{}", second.talk);
    assert_eq!((answered(&site, "shop.test").await.as_str(), &second.report()["kept"]), ("v2", &json!("warm")));

    // A switch of a service that a named file does not have, and a file that is wrong, change nothing.
    let other = site.bgctl(&["--file", &path, "switch", "other", "--image", &v1]).await;
    assert_eq!(other.code, Some(1), "{}", other.talk);
    assert!(other.talk.contains("does not name the service `other`"), "{}", other.talk);
    text(&v1, "colour = 1\nkeep = \"cold\"\n");
    let wrong = site.bgctl(&["--file", &path, "deploy"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.talk);
    assert!(
        wrong.talk.contains("there is no key `colour`") && wrong.talk.contains("`cold` is no keep"),
        "{}",
        wrong.talk
    );
    assert_eq!(answered(&site, "shop.test").await, "v2");
}

/// What was typed once becomes a file, by which nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_becomes_a_file_whose_plan_is_empty() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let init = ["init", "--from-running"];
    let none = site.start_in(folder.path(), &init).end().await;
    assert_eq!((none.code, none.talk.contains("no service of bgctl's runs")), (Some(1), true), "{}", none.talk);
    let words = ["--env", "LEVEL=debug", "--env", "API_TOKEN=hunter2", "--keep", "warm", "--drain", "7s"];
    let deployed = site.switch(&site.version("v1", QUICK), &words).end().await;
    assert_eq!(deployed.code, Some(0), "{}", deployed.talk);
    let made = site.start_in(folder.path(), &init).end().await;
    assert_eq!((made.code, &made.events[0]["services"]), (Some(0), &json!(["shop"])), "{}", made.talk);
    let text = fs::read_to_string(folder.path().join("bluegreen.toml")).unwrap();
    assert!(!text.contains("hunter2") && text.contains("env_inherit = [\"API_TOKEN\"]"), "{text}");
    let mut plan = site.around(PROGRAMS.bgctl);
    plan.args(["--engine", "process", "--json", "plan"]).current_dir(folder.path()).env("API_TOKEN", "hunter2");
    let planned = plan.output().await.unwrap();
    let planned: Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!(planned["services"][0]["changed"], json!({}), "{planned}\n{text}");
    let again = site.start_in(folder.path(), &["-y", "init", "--from-running"]).end().await;
    assert_eq!(again.code, Some(0), "{}", again.talk);
}

/// In the folder of the project nothing has to be named, and what would change is told before it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_tells_what_a_deployment_changes_and_changes_nothing() {
    let (site, folder, path) = described("").await;
    let (v1, v2) = (site.version("v1", QUICK), site.version("v2", QUICK));
    let text = |image: &str, level: &str| {
        let port = free_port();
        let service = format!("[services.shop]\nimage = \"{image}\"\nport = {port}\ndomains = [\"shop.test\"]\n");
        let env = format!("[services.shop.env]\nLEVEL = \"{level}\"\nAPI_TOKEN = \"secret-{level}\"\n");
        fs::write(&path, format!("{service}bake = \"0s\"\n{env}")).unwrap();
    };
    let planned = async |more: &[&str]| {
        let ended = site.start_in(folder.path(), &[&["plan"], more].concat()).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.talk);
        assert!(!format!("{:?}{}", ended.events, ended.talk).contains("secret-"), "{ended:?}");
        ended.events[0]["services"][0].clone()
    };
    text(&v1, "info");
    let new = planned(&[]).await;
    assert_eq!((&new["live"], &new["changed"]["image"]), (&Value::Null, &json!([null, v1])), "{new}");
    assert!(site.processes().iter().all(|(_, line)| !line.contains("v1")), "nothing was started");

    let first = site.start_in(folder.path(), &["deploy"]).end().await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    assert_eq!(planned(&["shop"]).await, json!({ "service": "shop", "live": "blue", "changed": {} }));

    text(&v2, "debug");
    let before = (site.shop().await["generation"].clone(), site.processes());
    let changed = planned(&[]).await["changed"].clone();
    assert_eq!(changed["image"], json!([v1, v2]), "{changed}");
    assert_eq!(changed["env.LEVEL"], json!(["info", "debug"]), "{changed}");
    assert_eq!(changed["env.API_TOKEN"], json!(["***", "***"]), "{changed}");
    assert_eq!((site.shop().await["generation"].clone(), site.processes()), before, "nothing was changed");

    let words = site.bgctl_plain(&["--file", &path, "plan"]).await;
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("shop: live on BLUE\n") && words.contains("  ~ env.LEVEL: info -> debug\n"), "{words}");
}

/// A target is the same file with what is different there, and is never confused with another place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_has_its_own_settings_and_variables_come_from_the_environment() {
    let (site, _folder, path) = described("").await;
    let service = format!(
        "host = \"production\"\n[services.shop]\nimage = \"${{BG_TEST_IMAGE}}\"\nport = {}\ndomains = [\"shop.test\"]\nbake = \"0s\"\n",
        free_port()
    );
    let staging =
        "[target.staging]\nhost = \"staging\"\n[target.staging.services.shop]\ndomains = [\"staging.test\"]\n";
    fs::write(&path, format!("{service}{staging}")).unwrap();
    let missing = site.bgctl(&["--file", &path, "deploy"]).await;
    assert_eq!(missing.code, Some(1), "{}", missing.talk);
    let place = format!("{path}:3:10");
    assert!(
        missing.talk.contains("the variable BG_TEST_IMAGE is not set") && missing.talk.contains(&place),
        "{}",
        missing.talk
    );
    let image = site.version("v1", QUICK);
    let deployed =
        site.start_with(&[("BG_TEST_IMAGE", &image)], &["--file", &path, "-t", "staging", "deploy"]).end().await;
    assert_eq!(deployed.code, Some(0), "{}", deployed.talk);
    assert_eq!(
        (answered(&site, "staging.test").await.as_str(), answered(&site, "shop.test").await.as_str()),
        ("v1", "404")
    );

    // Without the process engine, which is always here: where it would go.
    let bgctl = async |host: Option<&str>, words: &[&str]| {
        let mut command = tokio::process::Command::new(PROGRAMS.bgctl);
        command.args(words).current_dir(std::env::temp_dir()).env_remove("BG_GATEWAY").env_remove("BGCTL_HOST");
        command.env("BG_TEST_IMAGE", "shop:1").envs(host.map(|host| ("BGCTL_HOST", host)));
        let ended = tests::Started::spawn(command).end().await;
        (ended.code, ended.talk)
    };
    let (code, talk) = bgctl(Some("elsewhere"), &["--file", &path, "-t", "staging", "status"]).await;
    assert_eq!(code, Some(1), "{talk}");
    assert!(talk.contains("BGCTL_HOST says elsewhere, and the target staging is at staging"), "{talk}");
    let (code, talk) = bgctl(None, &["--file", &path, "-t", "stagin", "status"]).await;
    assert_eq!(
        (code, talk.contains("no target `stagin`") && talk.contains("it has staging")),
        (Some(1), true),
        "{talk}"
    );
    let (code, talk) = bgctl(None, &["-t", "staging", "status"]).await;
    assert_eq!((code, talk.contains("`staging` is to be a target of bluegreen.toml")), (Some(1), true), "{talk}");
}

/// A secret reaches the program, and nothing that anybody can read on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_reaches_the_program_and_is_shown_nowhere() {
    let (site, folder, path) = described("").await;
    let seen = folder.path().join("seen");
    let app = site.version("app", QUICK);
    let image = site
        .script("v1", &format!("echo \"$FROM_FILE $FROM_COMMAND $FROM_HERE\" > '{}'\nexec '{app}'", seen.display()));
    let text = |command: &str| {
        let service = format!("[services.shop]\nimage = \"{image}\"\nport = {}\nbake = \"0s\"\n", free_port());
        let secrets = format!(
            "[services.shop.secrets]\nFROM_FILE = {{ file = \"one.txt\" }}\nFROM_COMMAND = {{ command = \"{command}\" }}\n\
             FROM_HERE = {{ env = \"BG_TEST_SECRET\" }}\n"
        );
        fs::write(&path, service + &secrets).unwrap();
    };
    fs::write(folder.path().join("one.txt"), "hunter-one\n").unwrap();
    fs::write(folder.path().join("two.txt"), "hunter-two\n").unwrap();
    text("cat two.txt");
    let here = [("BG_TEST_SECRET", "hunter-three")];
    let all = |ended: &tests::Ended| format!("{:?}{}", ended.events, ended.talk);
    let deployed = site.start_with(&here, &["--file", &path, "-v", "deploy"]).end().await;
    assert_eq!(deployed.code, Some(0), "{}", deployed.talk);
    assert_eq!(fs::read_to_string(&seen).unwrap(), "hunter-one hunter-two hunter-three\n");
    let history = site.bgctl(&["history", "shop"]).await;
    let dry = site.bgctl(&["--file", &path, "switch", "shop", "--dry-run"]).await;
    // Nothing is read for a plan, also where it can't be.
    let plan = site.bgctl(&["--file", &path, "plan"]).await;
    assert_eq!((dry.code, plan.code), (Some(0), Some(0)), "{}{}", dry.talk, plan.talk);
    let lines: Vec<String> = site.processes().into_iter().map(|(_, line)| line).collect();
    for shown in [all(&deployed), all(&history), all(&dry), all(&plan), lines.concat()] {
        assert!(!shown.contains("hunter"), "{shown}");
    }

    text("cat two.txt; exit 4");
    let failed = site.start_with(&here, &["--file", &path, "deploy"]).end().await;
    assert_eq!((failed.code, all(&failed).contains("hunter")), (Some(1), false), "{}", failed.talk);
    assert!(failed.talk.contains("FROM_COMMAND: its command ended with code 4"), "{}", failed.talk);
    let typed = site.switch(&image, &["--env", "API_TOKEN=hunter-four"]).end().await;
    assert_eq!(typed.code, Some(0), "{}", typed.talk);
    assert!(typed.talk.contains("--env API_TOKEN=...") && !all(&typed).contains("hunter"), "{}", typed.talk);
}

/// Pages promise commands and files: every line of theirs is one that bgctl reads, and every file one that it takes.
#[test]
fn the_first_pages_say_nothing_that_bgctl_does_not_take() {
    // With the stack of a program's first thread, which all that bgctl can be told needs in a build without optimisation.
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(read_first_pages).unwrap();
    thread.join().unwrap();
}

fn read_first_pages() {
    use clap::Parser as _;
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut seen = (0, 0);
    for entry in std::fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !(name.starts_with("first-app-") || name.starts_with("from-")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let blocks = |kind: &str| {
            let blocks: Vec<String> = text
                .split(&format!("```{kind}\n"))
                .skip(1)
                .map(|rest| rest.split("```").next().unwrap().to_owned())
                .collect();
            blocks
        };
        for line in blocks("sh").iter().flat_map(|block| block.lines()).filter(|line| line.starts_with("bgctl ")) {
            let cli = ctl::cli::Cli::try_parse_from(line.split_whitespace());
            assert!(cli.is_ok(), "{name}: {line}: {}", cli.err().unwrap());
            seen.0 += 1;
        }
        for file in blocks("toml") {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("bluegreen.toml");
            std::fs::write(&path, &file).unwrap();
            std::fs::write(folder.path().join("shop.env"), "A=1\n").unwrap();
            let (ui, captured) = ctl::ui::Ui::captured();
            let words = ["bgctl", "check", path.to_str().unwrap()].map(std::ffi::OsString::from);
            let code = ctl::run(words, &ui);
            assert_eq!(code, ctl::error::ExitCode::DONE, "{name}: {}", captured.stderr());
            seen.1 += 1;
        }
    }
    assert!(seen.0 > 20 && seen.1 == 4, "{seen:?}");
}
