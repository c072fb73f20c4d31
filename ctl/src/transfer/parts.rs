//! A big image in several loads, so that what has arrived survives a cut.
//!
//! An engine that is given an archive keeps its layers only once it has read it to its end. So a big one is sent as a row of images,
//! each of the lowest layers so far, under a name that nobody runs; the last is the image itself. After a cut the next push finds the
//! layers of the last that arrived, and sends the rest.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Seek as _, Write};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};
use tokio::sync::mpsc::channel;

use super::archive::{Rewritten, named};
use super::pipe;
use super::shipment::Shipment;
use super::spool::{Piece, Spooled, take_apart};
use crate::engine::EngineError;
use crate::engine::docker::{Docker, Present};

/// The layers of one load, unless it is one that is larger: what a cut costs at most.
const PART: u64 = 64 << 20;

impl Shipment<'_> {
    /// Tells whether it is worth several loads: there is much to send, and more than one layer of it.
    pub(super) fn is_big(&self, present: Present) -> bool {
        let is_a_name = !self.reference.contains('@') && self.image.id != self.reference;
        is_a_name && self.image.layers.len() > present.layers + 1 && self.image.size.saturating_sub(present.size) > PART
    }

    /// Sends the layers that are missing in parts, each as soon as its layers have been read.
    ///
    /// # Cancel safety
    /// Dropping it leaves what arrived, under a name of its own: the next push, or `prune`, takes it away.
    pub(super) async fn send_in_parts(&self, present: Present) -> Result<Rewritten, EngineError> {
        self.telling(present, self.parts(present)).await
    }

    async fn parts(&self, present: Present) -> Result<Rewritten, EngineError> {
        let Self { from, to, image, reference, .. } = *self;
        let unread = |why: String| EngineError::Unreachable(format!("read {reference} from {}: {why}", from.target()));
        let wanted: HashSet<String> = image.layers[present.layers..].iter().cloned().collect();
        let (send, mut pieces) = channel(image.layers.len() + 1);
        let source = pipe::source(from.export(reference));
        let id = image.id.clone();
        // It ends by itself when nobody takes its pieces any more.
        let _reading = tokio::task::spawn_blocking(move || {
            if let Err(error) = take_apart(source, &id, &wanted, &send) {
                drop(send.blocking_send(Err(error)));
            }
        });
        let (mut spooled, mut config) = (BTreeMap::new(), None);
        let mut next = present.layers;
        let mut rewritten = Rewritten::default();
        let mut held: Option<String> = None;
        while next < image.layers.len() {
            let ready = next_part(&image.layers[next..], &spooled);
            let is_last = ready.is_some_and(|count| next + count == image.layers.len());
            let Some(count) = ready.filter(|_| !is_last || config.is_some()) else {
                match pieces.recv().await {
                    Some(Ok(Piece::Layer(layer))) => drop(spooled.insert(layer.digest.clone(), layer)),
                    Some(Ok(Piece::Config(text))) => config = Some(text),
                    Some(Err(error)) => return Err(unread(error.to_string())),
                    None => return Err(EngineError::Refused("its archive is of another form".to_owned())),
                }
                continue;
            };
            let layers = &image.layers[next..next + count];
            let files: BTreeMap<&String, Spooled> =
                layers.iter().filter_map(|layer| Some((layer, spooled.get(layer)?.clone()))).collect();
            rewritten.add(files.len(), files.values().map(|layer| layer.bytes).sum());
            next += count;
            let part = match config.as_ref().filter(|_| is_last) {
                Some(config) => Part {
                    config: config.clone(),
                    name: Docker::full_name(reference),
                    layers: image.layers.clone(),
                    files: files.into_values().collect(),
                },
                None => Part::of_lowest(&image.layers[..next], &image.architecture, files.into_values().collect()),
            };
            let name = part.name.clone();
            let loaded = self.load(move |out| part.write(out)).await;
            loaded.map_err(|error| if held.is_some() { resumable(error) } else { error })?;
            let still_needed: HashSet<&String> = image.layers[next..].iter().collect();
            spooled.retain(|digest, _| still_needed.contains(digest));
            // Its layers are those of the one above, too.
            if let Some(below) = held.replace(name) {
                to.remove_partial(&below).await?;
            }
        }
        Ok(rewritten)
    }
}

/// Adds to what ended a push that it was not in vain.
fn resumable(error: EngineError) -> EngineError {
    match error {
        EngineError::Unreachable(words) => EngineError::Unreachable(format!(
            "{words}\nhint: the layers that arrived stay there: push again, and the rest is sent"
        )),
        other => other,
    }
}

/// Returns how many of the next layers make a part, of those that have been read; `None` where more have to be.
fn next_part(layers: &[String], spooled: &BTreeMap<String, Spooled>) -> Option<usize> {
    let mut bytes = 0;
    for (count, layer) in layers.iter().enumerate() {
        let Some(layer) = spooled.get(layer) else { return (bytes >= PART).then_some(count) };
        if count > 0 && bytes + layer.bytes > PART {
            return Some(count);
        }
        bytes += layer.bytes;
    }
    Some(layers.len())
}

/// An image of which only some layers are in its archive.
struct Part {
    config: Vec<u8>,
    name: String,
    layers: Vec<String>,
    files: Vec<Spooled>,
}

impl Part {
    /// Returns the image of the lowest layers alone.
    fn of_lowest(layers: &[String], architecture: &str, files: Vec<Spooled>) -> Self {
        let created = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": layers },
        });
        let digest = named(&Sha256::digest(layers.concat()));
        let tag = digest.trim_start_matches("sha256:").get(..16).unwrap_or_default();
        let name = format!("{}:{tag}", Docker::PARTIAL);
        Self { config: config.to_string().into_bytes(), name, layers: layers.to_vec(), files }
    }

    /// Writes its archive, as an engine of any age reads it.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let file_of = |digest: &str| format!("{}/layer.tar", digest.trim_start_matches("sha256:"));
        let config = format!("{}.json", named(&Sha256::digest(&self.config)).trim_start_matches("sha256:"));
        let layers: Vec<String> = self.layers.iter().map(|layer| file_of(layer)).collect();
        let manifest: Value = json!([{ "Config": config, "RepoTags": [self.name], "Layers": layers }]);
        let manifest = manifest.to_string();
        let mut builder = Builder::new(out);
        for (name, text) in [(config.as_str(), self.config.as_slice()), ("manifest.json", manifest.as_bytes())] {
            builder.append_data(&mut header(text.len() as u64), name, text)?;
        }
        for layer in &self.files {
            let mut file = &*layer.file;
            file.rewind()?;
            builder.append_data(&mut header(layer.bytes), file_of(&layer.digest), file)?;
        }
        builder.into_inner()?.flush()
    }
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn spooled(layers: &[(&str, u64)]) -> BTreeMap<String, Spooled> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let layer = |digest: &str, bytes| Spooled { digest: digest.to_owned(), file: Arc::clone(&file), bytes };
        layers.iter().map(|(digest, bytes)| ((*digest).to_owned(), layer(digest, *bytes))).collect()
    }

    #[test]
    fn a_part_is_as_many_layers_as_fit_and_waits_for_what_is_not_read_yet() {
        let layers = ["a", "b", "c", "d"].map(str::to_owned);
        let part = |read: &[(&str, u64)]| next_part(&layers, &spooled(read));
        assert_eq!(part(&[]), None);
        assert_eq!(part(&[("b", 1), ("c", 1), ("d", 1)]), None, "the lowest is missing");
        assert_eq!(part(&[("a", 1), ("b", 1)]), None, "the next may fit too");
        assert_eq!(part(&[("a", PART)]), Some(1), "nothing else fits");
        assert_eq!(part(&[("a", PART / 2), ("b", PART / 2), ("c", 1)]), Some(2));
        assert_eq!(part(&[("a", 3 * PART), ("b", 1)]), Some(1), "one that is larger goes by itself");
        assert_eq!(part(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]), Some(4));
    }

    #[test]
    fn an_archive_names_every_layer_and_holds_those_of_its_part() {
        let mut layer = tempfile::tempfile().unwrap();
        layer.write_all(b"content").unwrap();
        let layer = Spooled { digest: "sha256:bb".to_owned(), file: Arc::new(layer), bytes: 7 };
        let part = Part::of_lowest(&["sha256:aa".to_owned(), "sha256:bb".to_owned()], "amd64", vec![layer]);
        let mut archive = Vec::new();
        part.write(&mut archive).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        let files: BTreeMap<String, String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                io::Read::read_to_string(&mut entry, &mut text).unwrap();
                (entry.path().unwrap().to_string_lossy().into_owned(), text)
            })
            .collect();
        assert_eq!((files.len(), files["bb/layer.tar"].as_str()), (3, "content"));
        let manifest: Value = serde_json::from_str(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["Layers"], json!(["aa/layer.tar", "bb/layer.tar"]));
        let config: Value = serde_json::from_str(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(["sha256:aa", "sha256:bb"]));
        assert!(manifest[0]["RepoTags"][0].as_str().unwrap().starts_with("bluegreen-partial:"));
    }
}
