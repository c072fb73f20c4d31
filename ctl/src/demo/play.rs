//! The acts of the demo, in order, under traffic: version 1, switch to version 2, back again, verdict.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::Load;
use super::stage::{Pace, Stage};
use super::verdict::Verdict;
use crate::error::{Error, ExitCode};
use crate::global::EngineKind;
use crate::interrupt::Interrupt;
use crate::ui::Ui;

/// How often the live line is written over on a terminal, and how often a log gets one.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const IN_LOG: Duration = Duration::from_secs(1);

/// What the demo is asked for.
#[derive(Debug, Clone, Default)]
pub struct Play {
    /// Short loading and waiting times.
    pub fast: bool,
    /// `--proxy-binary`.
    pub proxy_binary: Option<PathBuf>,
    /// `--engine`; without it, whichever will do.
    pub engine: Option<EngineKind>,
}

impl Play {
    /// Plays, prints the verdict, and takes everything down, whatever happened.
    ///
    /// # Errors
    /// Where an act could not be played; a play to the end with failed requests is an exit code.
    pub async fn run(self, ui: &Ui, interrupt: &Interrupt) -> Result<ExitCode, Error> {
        let pace = if self.fast { Pace::FAST } else { Pace::USUAL };
        let stage = Stage::choose(self.engine, self.proxy_binary.clone(), pace, ui).await?;
        ui.say(&format!("demo on {}", stage.target()));
        let play = async {
            stage.build().await?;
            self.acts(&stage, ui).await
        };
        let played = match interrupt.beside(play).await {
            Ok(played) => played,
            Err(interrupted) => Err(interrupted),
        };
        ui.progress("cleaning up");
        let cleared = stage.clear().await;
        let verdict = played?;
        cleared?;
        verdict.print(ui);
        Ok(verdict.exit_code())
    }

    async fn acts(&self, stage: &Stage, ui: &Ui) -> Result<Verdict, Error> {
        let address = stage.up().await?;
        ui.say(&format!("bgproxy listens on http://{address}"));
        let tell = |act: &str, report: &Value| {
            ui.event(&json!({ "event": "act", "act": act, "flip_micros": report["flip_micros"] }));
        };
        let load_seconds = stage.pace().load.map(|load| load.as_secs());
        ui.say(&format!("$ bgctl switch uptimer --image uptimer:v1   (it loads for {} s)", load_seconds[0]));
        let report = stage.switch(1).await?;
        tell("switch to v1", &report);
        ui.announce("LIVE: v1.0; traffic starts: keep-alive clients, new connections, POSTs, slow answers");
        let load = Load::start(address);
        let show = Show::new(&load, ui);
        show.during(tokio::time::sleep(stage.pace().interlude)).await;
        ui.say(&format!("$ bgctl switch uptimer --image uptimer:v2   (it loads for {} s)", load_seconds[1]));
        let forth = show.during(stage.switch(2)).await?;
        tell("switch to v2", &forth);
        ui.announce(&format!("LIVE: v2.0{}", flip_words(&forth)));
        show.during(tokio::time::sleep(stage.pace().interlude)).await;
        ui.say(&format!("$ bgctl rollback uptimer   (v1 loads for {} s again)", load_seconds[0]));
        let back = show.during(stage.rollback()).await?;
        tell("rollback to v1", &back);
        ui.announce(&format!("LIVE: v1.0 again{}", flip_words(&back)));
        show.during(tokio::time::sleep(stage.pace().interlude)).await;
        let tally = load.finish().await;
        let received = stage.received().await?;
        Ok(Verdict::new(&tally, received, &[forth, back]))
    }
}

fn flip_words(report: &Value) -> String {
    report["flip_micros"].as_u64().map(|micros| format!(" (the flip took {micros} us)")).unwrap_or_default()
}

/// The line that tells who answers now.
struct Show<'a> {
    load: &'a Load,
    ui: &'a Ui,
    interval: Duration,
}

impl<'a> Show<'a> {
    fn new(load: &'a Load, ui: &'a Ui) -> Self {
        let interval = if std::io::stderr().is_terminal() { ON_TERMINAL } else { IN_LOG };
        Self { load, ui, interval }
    }

    /// Shows the line while something else goes on.
    async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // The first tick comes at once.
        tick.tick().await;
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => self.line(),
            }
        }
    }

    fn line(&self) {
        let (requests, failed, version) = {
            let tally = self.load.tally();
            // A slow answer is from the past.
            let latest = tally.samples.iter().rev().find(|sample| !sample.is_slow).map(|sample| sample.version);
            (tally.samples.len() + tally.failures.len(), tally.failures.len(), latest)
        };
        let seconds = self.load.now().as_secs_f64();
        let who = version.map_or_else(|| "nobody".to_owned(), |version| format!("v{version}.0"));
        self.ui.progress(&format!("{seconds:6.1} s   {who} answers   {requests:>6} requests   {failed} failed"));
        self.ui.event(&json!({
            "event": "traffic", "seconds": (seconds * 1000.0).round() / 1000.0, "version": version,
            "requests": requests, "failed": failed,
        }));
    }
}
