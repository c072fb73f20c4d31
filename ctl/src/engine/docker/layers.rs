//! An engine as the source or the target of an image that travels: which layers it has, what it exports, what it loads.

use std::io;

use bollard::models::ImageInspect;
use bollard::query_parameters::{ImportImageOptions, ListImagesOptions, TagImageOptions};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};

use super::Docker;
use super::binary::Machine;
use super::refusal::{chain, found, refusal};
use crate::engine::EngineError;

/// An image as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The engine's id of it.
    pub id: String,
    /// The digests of its layers' uncompressed content, the lowest first.
    pub layers: Vec<String>,
    /// What it runs on, in Docker's word: `amd64`.
    pub architecture: String,
    /// Bytes, unpacked.
    pub size: u64,
}

/// How much of an image an engine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Present {
    /// So many of its lowest layers.
    pub layers: usize,
    /// The bytes of an image that has just these, where there is one.
    pub size: u64,
}

/// What an engine says of itself, as far as an image cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// What it runs on, in Docker's word; `None` for one that we have no word for.
    pub architecture: Option<&'static str>,
    /// Whether it takes an archive only with every layer in it: containerd's store keeps what was sent, not only what it unpacks to, and
    /// Podman reads an archive before it looks at what it has.
    pub wants_whole: bool,
}

impl Docker {
    /// Returns an image; `None` where there is none of that name.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn stored_image(&self, reference: &str) -> Result<Option<StoredImage>, EngineError> {
        let what = format!("look for image {reference} on {}", self.target());
        Ok(found(&what, self.handles.call.inspect_image(reference).await)?.and_then(stored))
    }

    /// Returns how many of an image's lowest layers are here, whichever image they belong to.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn present_layers(&self, layers: &[String]) -> Result<Present, EngineError> {
        let what = format!("list the images on {}", self.target());
        let options = ListImagesOptions { all: true, ..ListImagesOptions::default() };
        let images = self.handles.call.list_images(Some(options)).await.map_err(|error| refusal(&what, error))?;
        let mut most = Present::default();
        for image in images {
            // It may have been removed meanwhile.
            let Some(known) = found(&what, self.handles.call.inspect_image(&image.id).await)?.and_then(stored) else {
                continue;
            };
            let count = known.layers.iter().zip(layers).take_while(|(theirs, ours)| theirs == ours).count();
            let size = if count == known.layers.len() { known.size } else { 0 };
            if (count, size) > (most.layers, most.size) {
                most = Present { layers: count, size };
            }
        }
        Ok(most)
    }

    /// Returns what it says of itself.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn store(&self) -> Result<Store, EngineError> {
        let info = self.handles.call.info().await;
        let info = info.map_err(|error| refusal(&format!("ask {} about itself", self.target()), error))?;
        let driver = info.driver_status.unwrap_or_default();
        Ok(Store {
            architecture: info.architecture.as_deref().and_then(Machine::parse).map(Machine::docker),
            wants_whole: self.handles.is_podman
                || driver.iter().flatten().any(|word| word.contains("containerd.snapshotter")),
        })
    }

    /// Returns an image's archive.
    pub fn export(&self, reference: &str) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        self.handles.long.export_image(reference).map_err(|error| io::Error::other(chain(&error)))
    }

    /// Loads an archive; where it breaks off, nothing of it has a name.
    ///
    /// # Errors
    /// [`EngineError::Refused`] in the engine's words, [`EngineError::Unreachable`] where the connection or the disk ended.
    ///
    /// # Cancel safety
    /// Dropping it breaks the archive off.
    pub async fn load(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let loaded = self.handles.long.import_image_stream(options, archive, None);
        let what = format!("load the image on {}", self.target());
        loaded.try_for_each(|_| std::future::ready(Ok(()))).await.map_err(|error| refusal(&what, error))
    }

    /// Gives an image that is here another name.
    ///
    /// # Errors
    /// Where the engine refuses it.
    pub async fn tag(&self, id: &str, reference: &str) -> Result<(), EngineError> {
        let (repo, tag) = split(reference);
        let options = TagImageOptions { repo: Some(repo.to_owned()), tag: Some(tag.to_owned()) };
        let tagged = self.handles.call.tag_image(id, Some(options)).await;
        tagged.map_err(|error| refusal(&format!("name {reference} on {}", self.target()), error))
    }

    /// Tells whether both are one engine, as far as their addresses say.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.place.address == other.place.address
    }

    /// Tells whether the engine is on this machine, so that nothing is gained by compression.
    pub fn is_here(&self) -> bool {
        self.place.host().is_none()
    }
}

pub(super) fn stored(image: ImageInspect) -> Option<StoredImage> {
    Some(StoredImage {
        id: image.id?,
        layers: image.root_fs.and_then(|root| root.layers).unwrap_or_default(),
        architecture: image.architecture.unwrap_or_default(),
        size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
    })
}

/// Splits a name into repository and tag; a port is none.
pub(super) fn split(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, tag),
        _ => (reference, "latest"),
    }
}
