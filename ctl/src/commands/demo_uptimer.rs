//! `bgctl demo-uptimer`, which the demo runs in its slots.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

use crate::context::Context;
use crate::demo::uptimer::Uptimer;
use crate::error::{Error, ExitCode};

/// The application of the demo
#[derive(Debug, Args)]
pub struct DemoUptimer {
    /// Which version to be
    #[arg(long, default_value_t = 1)]
    release: u32,
    /// Answer 503 for this long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    load: Duration,
    /// How late /slow answers
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    slow: Duration,
    /// The address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// The port to listen on
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
}

impl DemoUptimer {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let uptimer = Uptimer { version: self.release, load: self.load, slow: self.slow };
        let address = SocketAddr::from((self.listen, self.port));
        let served = uptimer.serve(address, |line| context.ui.data(line)).await;
        served.map(|()| ExitCode::DONE).map_err(|error| Error::usage(format!("listen on {address}: {error}")))
    }
}
