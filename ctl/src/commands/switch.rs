//! `bgctl switch`: a new version without one failed request.

use ::config::name::ServiceName;
use clap::Args;

use super::everywhere;
use super::order::{Company, Order};
use crate::commands::options::Run;
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Start the idle slot, wait for health, flip, drain and bake, stop the old one
#[derive(Debug, Args)]
pub struct Switch {
    /// The service
    service: ServiceName,
    /// The image (default: that of the live slot)
    #[arg(long)]
    image: Option<String>,
    #[command(flatten)]
    options: Run,
}

impl Switch {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Self { service, image, options } = self;
        let company = Company::default();
        everywhere::switch(context, Order { service, image, is_pushed: false, company, options }).await
    }
}
