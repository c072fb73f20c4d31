//! `bgctl deploy`: push, then switch; where the image is built there is nothing to push.

use ::config::name::ServiceName;
use clap::Args;

use crate::commands::everywhere;
use crate::commands::options::Run;
use crate::commands::push::image;
use crate::commands::switch::Order;
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Send an image to a host and switch to it there
#[derive(Debug, Args)]
pub struct Deploy {
    /// The host (several: with commas), where --host does not name it, and the image
    #[arg(required = true, num_args = 1..=2, value_names = ["HOST", "IMAGE"])]
    pub(crate) place: Vec<String>,
    /// The service (default: the last part of the image's name)
    #[arg(long)]
    service: Option<ServiceName>,
    #[command(flatten)]
    options: Run,
}

impl Deploy {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let image = image(&self.place)?;
        let service = match self.service {
            Some(service) => service,
            None => service_of(image)
                .parse()
                .map_err(|error| Error::usage(format!("{error}")).hint("name the service: --service NAME"))?,
        };
        let order = Order { service, image: Some(image.to_owned()), is_pushed: true, options: self.options };
        everywhere::switch(context, order).await
    }
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
