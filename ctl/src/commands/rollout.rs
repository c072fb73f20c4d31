//! Options of a switch that the proxy carries out: routes, health, drain and bake.

use std::time::Duration;

use ::config::acme::TlsMode;
use ::config::duration;
use ::config::health::StatusRange;
use ::config::name::{HostPattern, PathPrefix};
use clap::Args;

use crate::deploy::settings::Settings;
use crate::error::Error;

/// Routes, health, drain and bake: what `switch`, `deploy` and `route` share.
#[derive(Debug, Clone, Default, Args)]
pub struct Rollout {
    /// Take the requests of this host (again for more)
    #[arg(long, value_name = "HOST")]
    pub domain: Option<Vec<HostPattern>>,
    /// Take the requests below this path (again for more)
    #[arg(long, value_name = "PREFIX")]
    pub path: Option<Vec<PathPrefix>>,
    /// Take the path prefix off before the application sees it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strip_path: Option<bool>,
    /// Get certificates for its domains by itself, and lead visitors to https
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_parser = tls_mode)]
    pub tls: Option<TlsMode>,
    /// What a probe asks for (default /)
    #[arg(long, value_name = "PATH")]
    pub health_path: Option<String>,
    /// Another port to probe
    #[arg(long, value_name = "PORT")]
    pub health_port: Option<u16>,
    /// The Host of a probe (default: the first domain)
    #[arg(long, value_name = "HOST")]
    pub health_host: Option<String>,
    /// A header field of a probe
    #[arg(long, value_name = "K=V")]
    pub health_header: Option<Vec<String>>,
    /// The statuses that pass (default 200-399)
    #[arg(long, value_name = "RANGE")]
    pub health_status: Option<StatusRange>,
    /// How long one probe may take (default 1s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub health_timeout: Option<Duration>,
    /// From one probe to the next (default 200ms)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub health_interval: Option<Duration>,
    /// Passes in a row that make it healthy (default 2)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub healthy: Option<u32>,
    /// The whole wait for health (default 30s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub deadline: Option<Duration>,
    /// How long requests on the old slot may go on (default 30s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub drain: Option<Duration>,
    /// The same for WebSockets and event streams, which are then closed as they should be (default: as --drain)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub drain_tunnels: Option<Duration>,
    /// End with the flip; the proxy drains and watches by itself, and whoever comes next stops the old container
    #[arg(long)]
    pub detach: bool,
    /// How long the old slot stays warm after the flip; 0 is none (default 10s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub bake: Option<Duration>,
    /// So many more of a hundred requests may fail in the bake than before; 100 is never too many (default 5)
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub bake_errors: Option<u8>,
    /// In the bake a request is slow that takes so many times what was usual; 0 judges no slowness (default 4)
    #[arg(long, value_name = "TIMES")]
    pub bake_slow: Option<u32>,
    /// Wait so long while someone else holds the lock (default 0s)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub lock_wait: Option<Duration>,
}

impl Rollout {
    /// Lays the options over the settings of before.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn apply(&self, settings: &mut Settings) -> Result<(), Error> {
        let Settings { routes, health, kept_headers, .. } = settings;
        if let Some(domains) = &self.domain {
            routes.domains.clone_from(domains);
        }
        if let Some(paths) = &self.path {
            routes.paths.clone_from(paths);
            routes.strip_path = false;
        }
        routes.strip_path = self.strip_path.unwrap_or(routes.strip_path);
        routes.tls = self.tls.or(routes.tls);
        if let Some(path) = &self.health_path {
            if !path.starts_with('/') {
                return Err(Error::usage(format!("--health-path `{path}` must begin with `/`")));
            }
            health.path.clone_from(path);
        }
        health.port = self.health_port.or(health.port);
        health.host = self.health_host.clone().or_else(|| health.host.take());
        if let Some(headers) = &self.health_header {
            health.headers = headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
            kept_headers.clear();
        }
        health.status = self.health_status.unwrap_or(health.status);
        health.timeout = self.health_timeout.unwrap_or(health.timeout);
        health.interval = self.health_interval.unwrap_or(health.interval);
        health.passes = self.healthy.unwrap_or(health.passes);
        settings.deadline = self.deadline.unwrap_or(settings.deadline);
        settings.drain = self.drain.unwrap_or(settings.drain);
        settings.drain_tunnels = self.drain_tunnels.or(settings.drain_tunnels);
        settings.bake = self.bake.unwrap_or(settings.bake);
        settings.margins.errors_percent = self.bake_errors.unwrap_or(settings.margins.errors_percent);
        settings.margins.slow_factor = self.bake_slow.unwrap_or(settings.margins.slow_factor);
        Ok(())
    }
}

/// Checks that certificates that are to come by themselves have a domain, once every layer of options was laid.
///
/// # Errors
/// Wrong usage.
pub(crate) fn check_tls(settings: &Settings) -> Result<(), Error> {
    if settings.routes.is_tls_auto() && settings.routes.domains.is_empty() {
        return Err(Error::usage("--tls has no domain to get a certificate for")
            .hint("name the host that visitors ask for: --domain shop.example.com"));
    }
    Ok(())
}

fn tls_mode(text: &str) -> Result<TlsMode, String> {
    match text {
        "auto" => Ok(TlsMode::Auto),
        "off" => Ok(TlsMode::Off),
        _ => Err("it is `auto` or `off`".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), Error> {
    // The value may be a secret, so it is not repeated.
    let (name, value) = text.split_once('=').ok_or_else(|| Error::usage("--health-header is written NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_without_a_value_is_refused_without_repeating_it() {
        let options = Rollout { health_header: Some(vec!["secret".to_owned()]), ..Rollout::default() };
        assert!(!options.apply(&mut Settings::default()).unwrap_err().message.contains("secret"));
    }
}
