//! The examples for CI: what stands in them is run as it stands there, without a terminal, against another host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tests::Ended;
use yaml_rust2::{Yaml, YamlLoader};

use crate::docker_host::{Uptimer, docker, gateway};
use crate::programs::PROGRAMS;
use crate::remote_host::{RemoteHost, remote_host};

/// A job: what it is run with, and its lines.
struct Job {
    folder: tempfile::TempDir,
    image: String,
    /// What the platform would put in the place of an expression: `secrets.SSH_KEY`, `github.sha`.
    known: Vec<(&'static str, String)>,
}

impl Job {
    fn new(host: &RemoteHost, base: &str, version: &str, known_hosts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("bin")).unwrap();
        fs::create_dir(path("project")).unwrap();
        // ssh reads the configuration of the user's account, whatever HOME says.
        let ssh = path("bin/ssh");
        fs::write(&ssh, "#!/bin/sh\nexec /usr/bin/ssh -F \"$HOME/.ssh/config\" \"$@\"\n").unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(PROGRAMS.bgctl, path("bin/bgctl")).unwrap();
        let dockerfile = format!("FROM {base}\nLABEL version={version}\n");
        fs::write(path("project/Dockerfile"), dockerfile).unwrap();
        let service = "[services.shop]\nimage = \"shop:${VERSION}\"\ndomains = [\"shop.test\"]\nbake = \"1s\"\n";
        fs::write(path("project/bluegreen.toml"), format!("host = \"{}\"\n{service}", host.ssh_url().0)).unwrap();
        let key = fs::read_to_string(host.user_key()).unwrap();
        let known = vec![
            ("secrets.SSH_KEY", key.trim().to_owned()),
            ("secrets.SSH_KNOWN_HOSTS", known_hosts.trim().to_owned()),
            ("github.sha", version.to_owned()),
        ];
        Self { image: format!("shop:{version}"), folder, known }
    }

    fn value(&self, name: &str) -> &str {
        &self.known.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("nobody sets {name}")).1
    }

    /// Runs lines as a runner does: each must succeed.
    async fn run(&self, lines: &str, variables: &[(String, String)]) -> Output {
        let home: PathBuf = self.folder.path().join("home");
        fs::create_dir_all(&home).unwrap();
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = tokio::process::Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", lines]).current_dir(self.folder.path().join("project"));
        command.env("HOME", &home).env("PATH", path).env("XDG_RUNTIME_DIR", &home).env("DOCKER_BUILDKIT", "0");
        command.env_remove("BG_GATEWAY").env_remove("BGCTL_HOST").envs(variables.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).output().await.unwrap()
    }

    /// Returns the variables of a step with what the platform puts in: `${{ secrets.SSH_KEY }}`.
    fn filled(&self, env: &Yaml) -> Vec<(String, String)> {
        let pairs = env.as_hash().into_iter().flatten();
        let filled = |(name, text): (&Yaml, &Yaml)| {
            let text = text.as_str().unwrap();
            let name_in = text.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
            (name.as_str().unwrap().to_owned(), self.value(name_in.unwrap_or(text).trim()).to_owned())
        };
        pairs.map(filled).collect()
    }

    /// Does what GitHub does with the file; returns what its last step said.
    async fn on_github(&self) -> Output {
        let workflow = &yaml("github-actions.yml")["jobs"]["deploy"];
        let shared = self.filled(&workflow["env"]);
        let mut last = None;
        for step in workflow["steps"].as_vec().unwrap() {
            // Where the programs come from is not there to be tried.
            let Some(lines) = step["run"].as_str().filter(|lines| !lines.contains("BLUEGREEN_URL")) else { continue };
            let variables = [shared.clone(), self.filled(&step["env"])].concat();
            assert!(!lines.contains("${{"), "an expression in a script is an injection: {lines}");
            let output = self.run(lines, &variables).await;
            let succeeded = output.status.success();
            last = Some(output);
            if !succeeded {
                break;
            }
        }
        last.unwrap()
    }

    /// Does what GitLab does with the file, for which all are variables, and a job's lines are one script.
    async fn on_gitlab(&self) -> Output {
        let job = &yaml("gitlab-ci.yml")["deploy"];
        assert_eq!(job["variables"]["VERSION"].as_str(), Some("$CI_COMMIT_SHA"));
        let names =
            [("VERSION", "github.sha"), ("SSH_KEY", "secrets.SSH_KEY"), ("SSH_KNOWN_HOSTS", "secrets.SSH_KNOWN_HOSTS")];
        let variables: Vec<_> =
            names.iter().map(|(name, known)| ((*name).to_owned(), self.value(known).to_owned())).collect();
        let lines = job["before_script"].as_vec().unwrap().iter().chain(job["script"].as_vec().unwrap());
        let lines: Vec<&str> =
            lines.map(|line| line.as_str().unwrap()).filter(|line| !line.contains("BLUEGREEN_URL")).collect();
        self.run(&lines.join("\n"), &variables).await
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _gone = docker(&["rmi", "-f", &self.image]);
    }
}

fn yaml(name: &str) -> Yaml {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ci").join(name);
    YamlLoader::load_from_str(&fs::read_to_string(path).unwrap()).unwrap().remove(0)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_for_ci_deploy_to_another_host_each_in_its_turn() {
    const TEST: &str = "the_examples_for_ci";
    let Some(gateway) = gateway(TEST).await else { return };
    let Some(host) = remote_host(TEST, None).await else { return };
    let Some(base) = gateway.build(TEST, &Uptimer { version: 1, loading: 1, fail: "" }) else { return };
    let words = ["-H", "production-server", "up", "--publish", "8080:80", "--proxy-binary"];
    let up: Ended = host.bgctl(&[&words[..], &[gateway.proxy_binary.to_str().unwrap()]].concat()).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);

    let (_, known_hosts) = host.ssh_url();
    let stranger = Job::new(&host, &base, &gateway.named("stranger"), "");
    let refused = stranger.on_github().await;
    assert_eq!(refused.status.code(), Some(8), "{}", said(&refused));
    assert!(said(&refused).contains("Host key verification failed"), "{}", said(&refused));

    let one = Job::new(&host, &base, &gateway.named("one"), &known_hosts);
    let two = Job::new(&host, &base, &gateway.named("two"), &known_hosts);
    let (first, second) = tokio::join!(one.on_github(), two.on_gitlab());
    for output in [&first, &second] {
        let text = said(output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        // Docker's own colours are not ours.
        let ours = String::from_utf8_lossy(&output.stderr);
        let ours = &ours[ours.find("switch shop at ").unwrap()..];
        assert!(ours.contains("LIVE: shop ") && !ours.contains('\x1b') && !ours.contains('\r'), "{ours:?}");
    }
    let history = host.bgctl(&["-H", "production-server", "history", "shop"]).await;
    let entries = history.events[0]["entries"].as_array().unwrap();
    let mut notes: Vec<&str> = entries.iter().map(|entry| entry["note"].as_str().unwrap()).collect();
    notes.sort_unstable();
    assert_eq!(notes, [gateway.named("one"), gateway.named("two")], "{}", history.talk);
    assert!(entries.iter().all(|entry| entry["outcome"] == "done"), "{entries:?}");
}
