//! What a push of a big image leaves half way: an image of its lowest layers, under a name that nobody runs.

use std::collections::HashMap;

use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions};

use super::Docker;
use super::layers::{split, stored};
use super::refusal::{found, refusal};
use crate::engine::EngineError;

/// A part of an image that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Its name, as `bluegreen-partial:0123456789abcdef`.
    pub name: String,
    /// The digests of its layers' uncompressed content, the lowest first.
    pub layers: Vec<String>,
}

impl Docker {
    /// The name of every part, without its tag.
    pub const PARTIAL: &'static str = "bluegreen-partial";

    /// Returns the parts that are here, whoever sent them.
    ///
    /// # Errors
    /// Where the engine can't be reached.
    pub async fn partials(&self) -> Result<Vec<Partial>, EngineError> {
        let what = format!("list the images on {}", self.target());
        let filters = HashMap::from([("reference".to_owned(), vec![Self::PARTIAL.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let images = self.handles.call.list_images(Some(options)).await.map_err(|error| refusal(&what, error))?;
        let mut partials = Vec::new();
        for image in images {
            // It may have been removed meanwhile.
            let inspected = found(&what, self.handles.call.inspect_image(&image.id).await)?;
            let Some(known) = inspected.and_then(stored) else { continue };
            let names = image.repo_tags.into_iter().filter(|tag| split(tag).0 == Self::PARTIAL);
            partials.extend(names.map(|name| Partial { name, layers: known.layers.clone() }));
        }
        Ok(partials)
    }

    /// Takes a part's name away, and with it what no other image has.
    ///
    /// # Errors
    /// Where the engine can't be reached or refuses; one that is gone is fine.
    pub async fn remove_partial(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.handles.call.remove_image(name, None::<RemoveImageOptions>, None).await;
        found(&format!("remove {name} on {}", self.target()), removed).map(drop)
    }

    /// Returns an image's name with its tag.
    pub fn full_name(reference: &str) -> String {
        let (repo, tag) = split(reference);
        format!("{repo}:{tag}")
    }
}
