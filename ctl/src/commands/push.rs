//! `bgctl push`: an image to another host, without a registry.

use clap::Args;
use serde::Serialize;

use super::everywhere;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Error, ExitCode};
use crate::transfer::{self, Sent};

/// Send an image: only the layers that the host lacks
#[derive(Debug, Args)]
pub struct Push {
    /// The host (several: with commas), where --host does not name it, and the image
    #[arg(required = true, num_args = 1..=2, value_names = ["HOST", "IMAGE"])]
    pub(crate) place: Vec<String>,
}

/// The end of a push, as it is told to programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "report")]
struct Report<'a> {
    #[serde(flatten)]
    sent: &'a Sent,
    host: String,
    exit_code: u8,
}

impl Push {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let image = image(&self.place)?;
        let Some(hosts) = everywhere::hosts(context)? else {
            return send(context, image).await;
        };
        let ended = everywhere::each(context, &hosts, async |context| {
            let sent = send(context, image).await;
            if let Err(error) = &sent {
                context.ui.error(error);
            }
            sent
        });
        let (ended, first) = ended.await;
        let failed = ended.iter().filter(|sent| sent.is_err()).count();
        match first {
            None => Ok(ExitCode::DONE),
            Some(first) => Err(Error::new(first.kind, format!("{failed} of {} hosts lack the image", hosts.len()))),
        }
    }
}

async fn send(context: &Context<'_>, image: &str) -> Result<ExitCode, Error> {
    context.say_target(&format!("push {image}")).await?;
    let sent = push(context, image).await?;
    let target = context.target().await?;
    if context.ui.tone().json {
        context.ui.event(&Report { sent: &sent, host: target, exit_code: ExitCode::DONE.0 });
    } else {
        context.ui.data(&sent.words(&target));
    }
    Ok(ExitCode::DONE)
}

/// Returns the image of `[HOST] IMAGE`; the host was made `--host` before.
pub(crate) fn image(place: &[String]) -> Result<&str, Error> {
    place.last().map(String::as_str).ok_or_else(|| Error::usage("name the image"))
}

/// Brings an image to the engine of this run.
pub(crate) async fn push(context: &Context<'_>, image: &str) -> Result<Sent, Error> {
    match &**context.engine().await? {
        Engine::Docker(docker) => transfer::push(context, docker, image).await,
        Engine::Process(_) => {
            Err(Error::usage("plain processes run what is on this machine: there is nowhere to push to"))
        }
    }
}
