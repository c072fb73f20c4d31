//! An image's way to another host: only the layers that the host lacks, compressed, without a registry.
//!
//! [`push`] is the list of steps; `shipment` is an image under way, `parts` one that is sent in several loads so that what has arrived
//! survives a cut; `archive` leaves out what is there already, `spool` takes an archive apart, `gzip` makes it smaller, `pipe` joins it
//! to both engines, `progress` tells how far it is.

mod archive;
mod gzip;
mod parts;
mod pipe;
mod progress;
mod shipment;
mod spool;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use self::archive::Rewritten;
pub use self::progress::size;
use self::shipment::Shipment;
use crate::context::Context;
use crate::engine::docker::{Docker, Present, StoredImage};
use crate::engine::{EngineError, Pull};
use crate::error::{Error, Kind};

/// How an image came to be on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It was there already.
    Present,
    /// It was there under another name.
    Named,
    /// The layers that were missing were sent.
    Layers,
    /// All of it was sent.
    Whole,
    /// The host pulled it, for it is not here.
    Pulled,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sent {
    /// The image, as the user wrote it.
    pub image: String,
    /// The target's id of it.
    pub id: String,
    /// How it came there.
    pub way: Way,
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that were there.
    pub layers_present: usize,
    /// Bytes that were sent, as compressed.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Sent {
    /// Returns it in words.
    pub fn words(&self, target: &str) -> String {
        let Self { image, layers_sent, layers_present, bytes, seconds, .. } = self;
        let sent = || format!("{} in {seconds:.1} s", size(*bytes));
        match self.way {
            Way::Present => format!("{image} is on {target} already"),
            Way::Named => format!("{image} was on {target} under another name; nothing was sent"),
            Way::Layers if *layers_sent == 0 => format!("sent {image} to {target}: no layer was missing, {}", sent()),
            Way::Layers => {
                format!(
                    "sent {image} to {target}: {layers_sent} of {} layers, {}",
                    layers_sent + layers_present,
                    sent()
                )
            }
            Way::Whole => format!("sent {image} to {target}: all {layers_sent} layers, {}", sent()),
            Way::Pulled => format!("{image} is not on this machine; {target} pulled it in {seconds:.1} s"),
        }
    }
}

/// Brings an image to another engine.
///
/// # Errors
/// Kind [`Kind::Refused`] where the image is nowhere to be had, is for another machine or is refused; kind [`Kind::Unreachable`]
/// where the connection ends or the target's disk is full: then nothing there has the image's name.
///
/// # Cancel safety
/// Dropping it breaks the transfer off, and nothing there has the image's name.
pub async fn push(context: &Context<'_>, to: &Docker, reference: &str) -> Result<Sent, Error> {
    let began = Instant::now();
    let local = Docker::connect(None, None).await;
    let here = match &local {
        Ok(from) if from.is_same_place(to) => None,
        Ok(from) => from.stored_image(reference).await?.map(|image| (from, image)),
        Err(_) => None,
    };
    let sent = |id: String, way, layers_present, rewritten: Rewritten, bytes| Sent {
        image: reference.to_owned(),
        id,
        way,
        layers_sent: rewritten.sent,
        layers_present,
        bytes,
        seconds: began.elapsed().as_secs_f64(),
    };
    let Some((from, image)) = here else {
        let was_there = to.stored_image(reference).await?.is_some();
        let way = if was_there { Way::Present } else { Way::Pulled };
        let pulled = to.image(reference, Pull::Missing).await.map_err(|error| nowhere(error, &local))?;
        return Ok(sent(pulled.id, way, 0, Rewritten::default(), 0));
    };
    let there = to.stored_image(reference).await?;
    if there.is_some_and(|there| there.id == image.id) {
        return Ok(sent(image.id, Way::Present, image.layers.len(), Rewritten::default(), 0));
    }
    if let Some(known) = to.stored_image(&image.id).await? {
        to.tag(&known.id, reference).await?;
        return Ok(sent(known.id, Way::Named, image.layers.len(), Rewritten::default(), 0));
    }
    let store = to.store().await?;
    if let Some(machine) = store.architecture.filter(|machine| *machine != image.architecture) {
        let words = format!("{reference} is for {}, and {} is {machine}", image.architecture, to.target());
        return Err(Error::new(Kind::Refused, words)
            .hint(format!("build it for that: `docker build --platform linux/{machine} -t {reference} .`")));
    }
    let present = if store.wants_whole { Present::default() } else { to.present_layers(&image.layers).await? };
    // Engines with different stores make the id of different things.
    let has_equal_ids = store.wants_whole == from.store().await?.wants_whole;
    let shipment = Shipment { context, from, to, reference, image: &image, sent: Arc::default(), raw: Arc::default() };
    let is_in_parts = has_equal_ids && !store.wants_whole && shipment.is_big(present);
    let shipped = if is_in_parts { shipment.send_in_parts(present).await } else { shipment.send(present).await };
    let shipped = match shipped {
        // Its layer was removed meanwhile, or it wants more than it says.
        Err(EngineError::Refused(why)) if present.layers > 0 || is_in_parts => {
            context.ui.say(&format!("{} wants all of {reference} ({why})", to.target()));
            (shipment.send(Present::default()).await?, Present::default())
        }
        shipped => (shipped?, present),
    };
    let (rewritten, present) = shipped;
    let is_it = |arrived: &StoredImage| arrived.id == image.id || !has_equal_ids && arrived.layers == image.layers;
    let arrived = to.stored_image(reference).await?.filter(is_it).ok_or_else(|| {
        Error::new(Kind::Refused, format!("{} took {reference}, but has another image of that name now", to.target()))
            .hint("did someone else send one at the same time? push again")
    })?;
    let way = if present.layers > 0 { Way::Layers } else { Way::Whole };
    // What an earlier push left half way, or this one: its layers are the image's now.
    for name in to.partials().await?.into_iter().filter(|one| image.layers.starts_with(&one.layers)) {
        to.remove_partial(&name.name).await?;
    }
    Ok(sent(arrived.id, way, present.layers, rewritten, shipment.bytes()))
}

fn nowhere(error: EngineError, local: &Result<Docker, EngineError>) -> Error {
    let error = Error::from(error);
    match local {
        Ok(_) => error,
        Err(local) => {
            let words = local.to_string();
            let first = words.lines().next().unwrap_or_default().to_owned();
            error.detail(format!("nor could it be sent from here: {first}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_says_which_way_the_image_went() {
        let sent = |way, layers_sent, layers_present| Sent {
            image: "shop:2".to_owned(),
            id: "sha256:1".to_owned(),
            way,
            layers_sent,
            layers_present,
            bytes: 1_500_000,
            seconds: 0.84,
        };
        let cases = [
            (sent(Way::Layers, 1, 6), "sent shop:2 to docker on shop: 1 of 7 layers, 1.5 MB in 0.8 s"),
            (sent(Way::Whole, 7, 0), "sent shop:2 to docker on shop: all 7 layers, 1.5 MB in 0.8 s"),
            (sent(Way::Present, 0, 7), "shop:2 is on docker on shop already"),
            (sent(Way::Pulled, 0, 0), "shop:2 is not on this machine; docker on shop pulled it in 0.8 s"),
        ];
        for (sent, words) in cases {
            assert_eq!(sent.words("docker on shop"), words);
        }
    }
}
