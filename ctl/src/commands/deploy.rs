//! `bgctl deploy`: push, then switch; where the image is built there is nothing to push.

use ::config::name::{NameError, ServiceName};
use clap::Args;

use crate::commands::described::Described;
use crate::commands::everywhere;
use crate::commands::options::Run;
use crate::commands::order::{Company, Order};
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Send an image to a host and switch to it there
#[derive(Debug, Args)]
pub struct Deploy {
    /// The host (several: with commas), where --host does not name it, and the image (default: that of bluegreen.toml)
    #[arg(num_args = 1..=2, value_names = ["HOST", "IMAGE"])]
    pub(crate) place: Vec<String>,
    /// The service (default: the last part of the image's name; without an image the only one of bluegreen.toml)
    #[arg(long)]
    service: Option<ServiceName>,
    #[command(flatten)]
    options: Run,
}

impl Deploy {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let (service, image) = match (self.service, self.place.last()) {
            (Some(service), Some(image)) => (service, image.clone()),
            (None, Some(image)) => (named_by(image)?, image.clone()),
            (service, None) => described(context, service)?,
        };
        let (company, options) = (Company::default(), self.options);
        let order = Order { service, image: Some(image), is_pushed: true, company, options };
        everywhere::switch(context, order).await
    }
}

/// Returns the service and the image that the file says.
fn described(context: &Context<'_>, service: Option<ServiceName>) -> Result<(ServiceName, String), Error> {
    let Described { file, mut project } = Described::needed(context)?;
    // Nobody deploys an address.
    project.services.retain(|one| one.to.is_none() || service.as_ref() == Some(&one.name));
    let file = file.display();
    let named = match (service, project.services.as_slice()) {
        (Some(name), services) => services.iter().find(|one| one.name == name).ok_or_else(|| {
            Error::usage(format!("{file} does not name the service `{name}`"))
                .hint("add [services.NAME], or name the image: bgctl deploy IMAGE")
        })?,
        (None, [only]) => only,
        (None, services) => {
            let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
            let what = if names.is_empty() { "no service".to_owned() } else { names.join(", ") };
            return Err(Error::usage(format!("{file} names {what}: which one is meant is not said"))
                .hint("name the service: --service NAME"));
        }
    };
    let image = named.image.clone().ok_or_else(|| {
        Error::usage(format!("{file} gives {} no image", named.name))
            .hint("add image = \"...\", or name one: bgctl deploy IMAGE")
    })?;
    Ok((named.name.clone(), image))
}

fn named_by(image: &str) -> Result<ServiceName, Error> {
    let refused = |error: NameError| Error::usage(error.to_string()).hint("name the service: --service NAME");
    service_of(image).parse().map_err(refused)
}

/// Returns the last part of an image's name, without tag and digest.
fn service_of(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(['@', ':']).next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_the_last_part_of_the_images_name() {
        for image in ["shop", "shop:42", "registry:5000/team/shop:42", "team/shop@sha256:abc"] {
            assert_eq!(service_of(image), "shop", "{image}");
        }
    }
}
