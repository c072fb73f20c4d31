//! The engine with real processes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use config::name::Slot;

use super::*;
use crate::engine::{Exit, RunSettings};

struct Lab {
    root: tempfile::TempDir,
    engine: Process,
}

impl Lab {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let engine = open(&root);
        Self { root, engine }
    }

    /// Another run of bgctl on the same folders.
    fn second_run(&self) -> Process {
        open(&self.root)
    }

    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn spec(&self, slot: Slot, script: &str) -> InstanceSpec {
        let program = self.program(&format!("app-{}", slot.lower()), script);
        InstanceSpec {
            service: "shop".parse().unwrap(),
            slot,
            replica: 1,
            deployment: "d1".to_owned(),
            image: self.engine.image(program.to_str().unwrap(), Pull::Missing).await.unwrap(),
            port: 18_080,
            run: RunSettings::default(),
            who: "alice@laptop".to_owned(),
            notes: vec![("settings".to_owned(), "{}".to_owned())],
        }
    }

    async fn started(&self, script: &str) -> Instance {
        let instance = self.engine.create(&self.spec(Slot::Blue, script).await).await.unwrap();
        self.engine.start(&instance).await.unwrap();
        instance
    }

    async fn log(&self, instance: &Instance) -> Vec<String> {
        let mut lines = Vec::new();
        let range = LogRange { tail: None, follow: true };
        self.engine.logs(instance, range, &mut |line| lines.push(line.to_owned())).await.unwrap();
        lines
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for record in self.engine.records.all().unwrap_or_default() {
            if let Some(process) = record.process {
                process.kill();
            }
        }
    }
}

fn open(root: &tempfile::TempDir) -> Process {
    let root = root.path().to_str().unwrap().to_owned();
    Process::with(Folders::find(None, &|key| (key == "XDG_STATE_HOME").then(|| root.clone())).unwrap())
}

#[tokio::test]
async fn an_instance_lives_from_create_to_remove() {
    let lab = Lab::new();
    let spec = lab.spec(Slot::Blue, "exec sleep 60").await;
    let created = lab.engine.create(&spec).await.unwrap();
    assert_eq!((created.name.as_str(), created.running, created.kept), ("shop_BLUE", false, false));
    assert_eq!(created.notes, spec.notes);
    assert!(matches!(lab.engine.create(&spec).await, Err(EngineError::Refused(_))), "the name is taken");
    lab.engine.start(&created).await.unwrap();
    lab.engine.start(&created).await.unwrap();
    let listed = lab.second_run().instances(Some(&spec.service)).await.unwrap();
    assert_eq!(listed, [Instance { running: true, ..created.clone() }]);
    lab.engine.stop(&created, Duration::from_secs(10)).await.unwrap();
    assert!(!lab.engine.instances(None).await.unwrap()[0].running);
    lab.engine.remove(&created).await.unwrap();
    lab.engine.remove(&created).await.unwrap();
    assert!(lab.engine.instances(None).await.unwrap().is_empty());
    assert_eq!(fs::read_dir(lab.engine.folders.logs()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_process_that_a_killed_run_could_not_note_is_found_again_and_ends_with_its_instance() {
    let lab = Lab::new();
    let instance = lab.started("exec sleep 60").await;
    let mut record = lab.engine.records.get(&instance.id).unwrap();
    let process = record.process.take().unwrap();
    lab.engine.records.put(&record).unwrap();
    lab.engine.start(&instance).await.unwrap();
    let again = lab.engine.records.get(&instance.id).unwrap();
    assert_eq!(again.process.as_ref(), Some(&process), "it is not started twice");
    lab.engine.records.put(&record).unwrap();
    lab.second_run().remove(&instance).await.unwrap();
    assert!(!process.is_alive());
}

#[tokio::test]
async fn two_slots_at_once_have_two_ports_and_are_told_theirs() {
    let lab = Lab::new();
    let blue = lab.engine.create(&lab.spec(Slot::Blue, "echo port $PORT").await).await.unwrap();
    let green = lab.engine.create(&lab.spec(Slot::Green, "echo port $PORT").await).await.unwrap();
    assert_ne!(blue.endpoint.port(), green.endpoint.port());
    for instance in [&blue, &green] {
        lab.engine.start(instance).await.unwrap();
        lab.engine.watch(instance).await.unwrap();
        assert_eq!(lab.log(instance).await, [format!("port {}", instance.endpoint.port())]);
    }
}

#[tokio::test]
async fn settings_reach_the_process_and_our_own_secrets_do_not() {
    let lab = Lab::new();
    let mut spec = lab.spec(Slot::Blue, "echo $PORT $A $1 ${CARGO_MANIFEST_DIR:-nothing}; echo oops >&2").await;
    spec.run.env = vec!["A=1".to_owned(), "PORT=18079".to_owned(), "A=2".to_owned()].into();
    spec.run.command = vec!["argument".to_owned()];
    let instance = lab.engine.create(&spec).await.unwrap();
    assert_eq!(instance.endpoint.to_string(), "127.0.0.1:18079");
    lab.engine.start(&instance).await.unwrap();
    lab.engine.watch(&instance).await.unwrap();
    assert_eq!(lab.log(&instance).await, ["18079 2 argument nothing", "oops"]);
}

#[tokio::test]
async fn an_exit_is_told_with_its_code_to_the_run_that_started_it_and_saved_for_the_next() {
    let lab = Lab::new();
    let instance = lab.started("exit 3").await;
    let exited = Happening::Exited(Exit { code: 3, oom: false });
    assert_eq!(lab.engine.watch(&instance).await.unwrap(), exited);
    assert_eq!(lab.second_run().watch(&instance).await.unwrap(), exited);
    let killed = Happening::Exited(Exit { code: 128 + 9, oom: false });
    lab.engine.remove(&instance).await.unwrap();
    let instance = lab.started("kill -9 $$").await;
    assert_eq!(lab.engine.watch(&instance).await.unwrap(), killed);
}

#[tokio::test]
async fn a_run_that_did_not_start_it_sees_the_end_at_once_too() {
    let lab = Lab::new();
    let instance = lab.started("exec sleep 60").await;
    let other = lab.second_run();
    let watching = tokio::spawn({
        let instance = instance.clone();
        async move { other.watch(&instance).await }
    });
    lab.engine.stop(&instance, Duration::from_secs(10)).await.unwrap();
    let happening = tokio::time::timeout(Duration::from_secs(5), watching).await.unwrap().unwrap().unwrap();
    assert!(matches!(happening, Happening::Exited(Exit { code: Exit::UNKNOWN | 143, .. })), "{happening:?}");
}

#[tokio::test]
async fn no_zombie_is_left_of_an_instance_that_ended() {
    let lab = Lab::new();
    let instance = lab.started("exit 0").await;
    lab.engine.watch(&instance).await.unwrap();
    let mine = std::process::id();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((name, rest)) = stat.rsplit_once(')')
            && name.contains("(app-blue")
        {
            assert!(!rest.starts_with(&format!(" Z {mine} ")), "{stat}");
        }
    }
}

#[tokio::test]
async fn a_kept_one_gives_its_name_away_and_gets_it_back() {
    let lab = Lab::new();
    let spec = lab.spec(Slot::Blue, "exec sleep 60").await;
    let first = lab.engine.create(&spec).await.unwrap();
    let kept = lab.engine.set_kept(&first, true).await.unwrap();
    assert_eq!((kept.name.as_str(), kept.kept, &kept.id), ("shop_BLUE_kept", true, &first.id));
    let second = lab.engine.create(&spec).await.unwrap();
    assert_ne!(second.endpoint, kept.endpoint, "a kept one keeps its port");
    assert!(matches!(lab.engine.set_kept(&kept, false).await, Err(EngineError::Refused(_))), "the name is taken");
    lab.engine.remove(&second).await.unwrap();
    assert_eq!(lab.engine.set_kept(&kept, false).await.unwrap(), first);
}

#[tokio::test]
async fn a_program_that_the_kernel_refuses_leaves_an_instance_that_does_not_run() {
    let lab = Lab::new();
    let spec = lab.spec(Slot::Blue, "exit 0").await;
    let instance = lab.engine.create(&spec).await.unwrap();
    fs::remove_file(&spec.image.reference).unwrap();
    assert!(matches!(lab.engine.start(&instance).await, Err(EngineError::Refused(_))));
    assert!(!lab.engine.instances(None).await.unwrap()[0].running);
}

#[tokio::test]
async fn a_proxy_that_ends_at_once_is_told_with_its_last_words_and_leaves_nothing() {
    let lab = Lab::new();
    let proxy = lab.program("bgproxy", "echo no port for me >&2; exit 2");
    let spec = GatewaySpec { proxy_binary: Some(proxy), ..GatewaySpec::default() };
    let Err(EngineError::NoProxy(words)) = lab.engine.up(&spec).await else { panic!("it can't be up") };
    assert!(words.contains("exit code 2") && words.contains("no port for me"), "{words}");
    assert!(lab.engine.admin().await.unwrap().is_none());
    lab.engine.down(true).await.unwrap();
    assert!(!lab.engine.folders.state().exists());
}

#[tokio::test]
async fn down_ends_every_instance() {
    let lab = Lab::new();
    let instance = lab.started("exec sleep 60").await;
    let done = lab.engine.down(true).await.unwrap();
    assert!(done.contains(&"removed shop_BLUE".to_owned()), "{done:?}");
    assert!(lab.engine.instances(None).await.unwrap().is_empty());
    assert!(matches!(lab.engine.watch(&instance).await, Err(EngineError::Refused(_))));
    assert!(lab.engine.down(true).await.unwrap().is_empty(), "nothing is left to remove");
}
