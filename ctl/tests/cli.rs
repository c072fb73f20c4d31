//! The real binary: help, version, exit codes, and what goes to stdout and what to stderr.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

fn bgctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bgctl"))
        .args(args)
        .env_remove("BGCTL_HOST")
        .env_remove("BG_GATEWAY")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_are_data() {
    let help = bgctl(&["--help"]);
    assert_eq!((help.status.code(), text(&help.stderr)), (Some(0), String::new()));
    for group in ["Every day:", "Set up:", "Rarely:"] {
        assert!(text(&help.stdout).contains(group), "{group}");
    }
    let version = bgctl(&["--version"]);
    assert_eq!(text(&version.stdout), format!("bgctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_exit_1_and_talk() {
    for args in [&["switch"][..], &["nonsense"], &["switch", "My Shop"], &["switch", "shop", "--healthy", "0"], &[]] {
        let output = bgctl(args);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_screen_without_a_terminal_is_refused_with_what_helps() {
    let output = bgctl(&["top"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("status --json"), "{}", text(&output.stderr));
}

#[test]
fn completions_and_manual_pages_are_data_and_need_no_engine() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = bgctl(&["--host", "unix:///nonexistent/docker.sock", "completions", shell]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{shell}");
        let script = text(&output.stdout);
        assert!(script.contains("rollback") && script.contains("health-path"), "{shell} knows commands and options");
    }
    assert_eq!(bgctl(&["completions", "cmd.exe"]).status.code(), Some(1));

    let page = bgctl(&["--host", "unix:///nonexistent/docker.sock", "man"]);
    assert_eq!((page.status.code(), text(&page.stderr)), (Some(0), String::new()));
    assert!(text(&page.stdout).contains(".TH bgctl 1") && text(&page.stdout).contains("rollback"));
    let page = text(&bgctl(&["man", "switch"]).stdout);
    assert!(page.contains(".TH bgctl-switch 1") && page.contains("health\\-path"), "{page}");
    assert_eq!(bgctl(&["man", "nonsense"]).status.code(), Some(1));
}

/// As [`bgctl`], in a folder with such a `bluegreen.toml`.
fn bgctl_with(file: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bluegreen.toml"), file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bgctl"));
    command.args(args).env_remove("BGCTL_HOST").env_remove("BG_GATEWAY").stdin(Stdio::null());
    command.current_dir(folder.path()).output().unwrap()
}

#[test]
fn the_host_is_the_flag_else_the_variable_else_the_files() {
    let file = "host = \"unix:///nonexistent/file.sock\"\nnonsense = 1\n";
    let named = bgctl_with(file, &["status"]);
    assert_eq!(named.status.code(), Some(8), "{}", text(&named.stderr));
    assert!(text(&named.stderr).contains("file.sock"), "{}", text(&named.stderr));
    let flag = bgctl_with(file, &["--host", "unix:///nonexistent/flag.sock", "status"]);
    assert!(text(&flag.stderr).contains("flag.sock"), "{}", text(&flag.stderr));
    // Where the file's host can't be known, nothing works on another one by mistake.
    let broken = bgctl_with("host = ", &["status"]);
    assert_eq!(broken.status.code(), Some(1), "{}", text(&broken.stderr));
    assert!(text(&broken.stderr).contains("bluegreen.toml:1") && text(&broken.stderr).contains("--host"));
    assert_eq!(bgctl_with("host = ", &["--version"]).status.code(), Some(0));
}

#[test]
fn a_deploy_without_an_image_needs_a_file_that_says_which() {
    for (file, args, words) in [
        ("", &["deploy"][..], "names no service"),
        ("[services.a]\ndomains = [\"a\"]\n[services.b]\n", &["deploy"], "names a, b"),
        ("[services.a]\n", &["deploy"], "gives a no image"),
        ("[services.a]\n", &["deploy", "--service", "b"], "does not name the service `b`"),
        ("[services.a]\nimages = 1\n", &["deploy"], "there is no key `images`"),
    ] {
        let output = bgctl_with(file, args);
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{talk}");
        assert!(talk.contains(words) && !talk.contains("not there yet"), "`{words}` is not in {talk}");
    }
    let talk = text(&bgctl(&["deploy"]).stderr);
    assert!(talk.contains("there is no bluegreen.toml") && talk.contains("bgctl init"), "{talk}");
}

#[test]
fn init_writes_a_file_that_check_finds_good_and_never_over_one_without_being_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    let path = file.to_str().unwrap();
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\nEXPOSE 3000\n").unwrap();
    let written = bgctl(&["--file", path, "init"]);
    assert_eq!(written.status.code(), Some(0), "{}", text(&written.stderr));
    assert!(text(&written.stdout).contains("from the Dockerfile"), "{}", text(&written.stdout));
    assert!(std::fs::read_to_string(&file).unwrap().contains("\nport = 3000\n"));
    assert_eq!(bgctl(&["check", path]).status.code(), Some(0), "{}", text(&bgctl(&["check", path]).stdout));

    std::fs::write(&file, "# mine\n").unwrap();
    let refused = bgctl(&["--file", path, "init"]);
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), String::new()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");
    assert_eq!(bgctl(&["--file", path, "--yes", "init"]).status.code(), Some(0));
    assert_ne!(std::fs::read_to_string(&file).unwrap(), "# mine\n");
}

#[test]
fn the_schema_is_one_document_with_every_service_key() {
    let schema: serde_json::Value = serde_json::from_slice(&bgctl(&["schema"]).stdout).unwrap();
    let service = &schema["properties"]["services"]["additionalProperties"]["properties"];
    assert!(service["health_path"].is_object() && service["options"]["properties"]["sticky"].is_object());
}

#[test]
fn plain_processes_are_never_taken_for_those_of_another_host() {
    let output = bgctl(&["--engine", "process", "deploy", "production-server", "shop:2"]);
    assert_eq!(output.status.code(), Some(1));
    let talk = text(&output.stderr);
    assert!(talk.contains("not on production-server") && talk.contains("hint: leave out the host"), "{talk}");
}

#[test]
fn a_proxy_that_is_not_there_is_exit_2_with_a_hint() {
    let output = bgctl(&["--admin", "/nonexistent/admin.sock", "status"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
    let talk = text(&output.stderr);
    assert!(talk.contains("/nonexistent/admin.sock") && talk.contains("hint: "), "{talk}");
    assert!(!talk.contains('\x1b'), "no colour where there is no terminal");
}

#[test]
fn an_engine_that_does_not_answer_is_exit_8() {
    let output = bgctl(&["--host", "unix:///nonexistent/docker.sock", "switch", "shop", "--image", "shop:2"]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
}

/// An engine that is older than any that is spoken to: what it speaks and what is needed, and exit 8.
#[test]
fn an_engine_of_an_old_api_is_exit_8_and_says_what_is_needed() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // One read takes the head of a request without a body.
            let mut head = [0; 4096];
            let asked = stream.read(&mut head).unwrap_or_default();
            let body = "{\"Version\":\"1.12.6\",\"ApiVersion\":\"1.24\",\"MinAPIVersion\":\"1.12\"}";
            let answer = format!(
                "HTTP/1.1 200 OK\r\nApi-Version: 1.24\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            if asked > 0 && stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let output = bgctl(&["--host", &format!("unix://{}", socket.display()), "status"]);
    let talk = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{talk}");
    assert!(talk.contains("speaks API 1.24 at most, and 1.40 (Docker 19.03) is needed"), "{talk}");
}

#[test]
fn a_failure_is_a_report_in_the_json_tone() {
    let output = bgctl(&["--json", "--admin", "/nonexistent/admin.sock", "route", "shop", "--to", "127.0.0.1:1"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["event"], &report["exit_code"]), (&"report".into(), &2.into()));
}

#[test]
fn check_shows_every_problem_with_its_place_and_a_good_file_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bgproxy.toml");
    std::fs::write(&file, "nonsense = 1\n").unwrap();
    let output = bgctl(&["--json", "check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["problems"][0]["line"], 1);
    std::fs::write(&file, "").unwrap();
    assert_eq!(bgctl(&["check", file.to_str().unwrap()]).status.code(), Some(0));
    let project = folder.path().join("bluegreen.toml");
    std::fs::write(&project, "[services.shop]\ndomains = [\"a b\"]\nstrip_path = true\n").unwrap();
    let output = bgctl(&["--json", "check", project.to_str().unwrap()]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<_> = document["problems"].as_array().unwrap().iter().map(|problem| &problem["line"]).collect();
    assert_eq!((output.status.code(), lines), (Some(1), vec![&2.into(), &3.into()]));
}
