//! The bash recipe and ours, side by side: the same versions, the same visitors, on the same engine. What it measures is the
//! table of the README; `BG_SOAK=1` takes the times of `benches/README.md`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::{Load, Running, eventually, is_soak, load, measured};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::docker_host::{TestGateway, Uptimer, docker, gateway, inspect};
use crate::docker_moving::{nginx_image, recipe_command};
use crate::docker_recipe::Side::{Ours, Recipe};
use crate::docker_switch::judge;

const TEST: &str = "the_recipe_and_ours";
/// How long visitors go on after something broke.
const AFTER: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Recipe,
    Ours,
}

/// What a deployment came to.
#[derive(Debug, Default)]
struct Deployed {
    code: Option<i32>,
    /// When the new version was live.
    live: Duration,
    /// When the command ended.
    done: Duration,
}

/// Who deploys, and where.
struct Deployer<'g> {
    side: Side,
    gateway: &'g TestGateway,
}

impl Deployer<'_> {
    fn up(&self) {
        let publish = format!("127.0.0.1:{}", self.gateway.port);
        assert_eq!(self.side, Recipe);
        assert!(recipe_command(self.gateway).args(["up", &publish]).status().unwrap().success());
    }

    /// Deploys, and does something at the moment when the new version is live.
    async fn deploy(&self, image: &str, more: &[&str], at_live: impl FnOnce()) -> Deployed {
        let began = Instant::now();
        let mut deployed = Deployed::default();
        let mut at_live = Some(at_live);
        let mut command = match self.side {
            Recipe => {
                let mut command = tokio::process::Command::from(recipe_command(self.gateway));
                command.args(["deploy", "uptimer", image]).envs(more.iter().filter_map(|pair| pair.split_once('=')));
                command
            }
            Ours => {
                let mut command = tokio::process::Command::new(crate::programs::PROGRAMS.bgctl);
                command
                    .args(["--gateway", &self.gateway.name, "--yes", "switch", "uptimer", "--image", image])
                    .args(more);
                command
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
        loop {
            let line = tokio::select! {
                line = out.next_line() => line.unwrap(),
                line = err.next_line() => line.unwrap(),
            };
            let Some(line) = line else { break };
            if line.contains("switched to") || line.starts_with("LIVE: ") {
                deployed.live = began.elapsed();
                at_live.take().into_iter().for_each(|act| act());
            }
        }
        deployed.code = child.wait().await.unwrap().code();
        deployed.done = began.elapsed();
        deployed
    }

    /// Kills the application of the slot that runs, as the kernel kills one for want of memory.
    fn kill(&self, slot: &str) {
        let id = inspect(&self.gateway.named(&format!("uptimer_{slot}")))["State"]["Pid"].as_i64().unwrap();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}

/// Eighteen who keep their connection, and four who open one for each request.
fn visitors(gateway: &TestGateway) -> Running {
    let (host, pause) = ("uptimer.test".to_owned(), Duration::from_millis(10));
    load(
        gateway.address(),
        Load { host, keep_alive: 18, fresh: 4, posts: 0, slow: 0, streams: 0, pause, judge, ..Load::default() },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipe_and_ours_side_by_side_under_the_same_load() {
    let Some(gateway) = gateway(TEST).await else { return };
    if !nginx_image(TEST) {
        return;
    }
    let (loading, rounds) = if is_soak() { (5, 5) } else { (1, 1) };
    let mut images = Vec::new();
    for (version, fail) in [(1, ""), (2, ""), (3, "exit")] {
        let Some(image) = gateway.build(TEST, &Uptimer { version, loading, fail }) else { return };
        images.push(image);
    }
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for side in [Recipe, Ours] {
        let deployer = Deployer { side, gateway: &gateway };
        match side {
            Recipe => deployer.up(),
            Ours => {
                let publish = format!("127.0.0.1:{}:80", gateway.port);
                let binary = gateway.proxy_binary.to_str().unwrap();
                let up = gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", binary]).await;
                assert_eq!(up.code, Some(0), "{}", up.talk);
            }
        }
        let domain: &[&str] = if side == Ours { &["--domain", "uptimer.test"] } else { &[] };
        assert_eq!(deployer.deploy(&images[0], domain, || ()).await.code, Some(0));

        let load = visitors(&gateway);
        eventually("it answers", async || load.so_far().versions.contains_key("v1").then_some(())).await;
        let mut switches = Vec::new();
        for round in 0..rounds {
            let deployed = deployer.deploy(&images[(round + 1) % 2], &[], || ()).await;
            assert_eq!(deployed.code, Some(0));
            switches.push(deployed);
        }
        let verdict = load.stop().await;
        let mean = |of: fn(&Deployed) -> Duration| {
            let sum: f64 = switches.iter().map(|deployed| of(deployed).as_secs_f64()).sum();
            sum / f64::from(u32::try_from(switches.len()).unwrap())
        };
        let row = |rows: &mut BTreeMap<&str, Vec<String>>, name, cell: String| rows.entry(name).or_default().push(cell);
        row(&mut rows, "1 until the new version answers", format!("{:.1} s", mean(|deployed| deployed.live)));
        row(&mut rows, "2 until the command ends", format!("{:.1} s", mean(|deployed| deployed.done)));
        row(&mut rows, "3 failed requests", format!("{} of {} in {rounds} switches", verdict.failed, verdict.total));
        if side == Ours {
            verdict.assert_none_failed();
        }

        // A version that exits at once.
        let load = visitors(&gateway);
        let broken = deployer.deploy(&images[2], &["TRIES=10"][..usize::from(side == Recipe)], || ()).await;
        let verdict = load.stop().await;
        assert_ne!(broken.code, Some(0));
        verdict.assert_none_failed();
        row(&mut rows, "4 a version that exits at once is told after", format!("{:.1} s", broken.done.as_secs_f64()));

        // A version that dies when it has just become live.
        let (image, slot) = (&images[(rounds + 1) % 2], if rounds % 2 == 0 { "GREEN" } else { "BLUE" });
        let load = visitors(&gateway);
        let died = deployer.deploy(image, &[], || deployer.kill(slot)).await;
        tokio::time::sleep(AFTER.saturating_sub(died.done - died.live)).await;
        let verdict = load.stop().await;
        row(
            &mut rows,
            "5 it dies just after: failed requests",
            format!("{} of {}, exit code {}", verdict.failed, verdict.total, died.code.unwrap()),
        );
        if side == Ours {
            assert_eq!(died.code, Some(4));
        }
        for name in gateway.containers() {
            docker(&["rm", "-f", &gateway.named(&name)]).unwrap();
        }
    }
    for (name, cells) in rows {
        measured(TEST, &format!("{name}: recipe {}; ours {}", cells[0], cells[1]));
    }
}
