//! What `bluegreen.toml` means: a service as the options of `bgctl switch`, typed; `None` is what the file leaves open.

use std::path::PathBuf;
use std::time::Duration;

use crate::acme::TlsMode;
use crate::health::StatusRange;
use crate::name::{EndpointAddr, HostPattern, PathPrefix, ServiceName};
use crate::options::ServiceOptions;
use crate::settings::ProxySettings;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    /// The Docker host.
    pub host: Option<String>,
    /// The proxy's own settings; where absent the present ones stay, and what the table leaves out has its default.
    pub proxy: Option<ProxySettings>,
    /// Own certificates, which the proxy is brought.
    pub certificates: Vec<CertificateFiles>,
    /// The services, in the order of their names.
    pub services: Vec<Service>,
}

impl Project {
    /// Returns the services that are switched together with one, and with those, each once; empty where that is alone.
    pub fn together_with(&self, name: &ServiceName) -> Vec<&Service> {
        let find = |name: &ServiceName| self.services.iter().find(|service| service.name == *name);
        let mut found: Vec<&Service> = Vec::new();
        let mut next: Vec<&Service> = find(name).into_iter().collect();
        while !next.is_empty() {
            let named = next.iter().flat_map(|service| &service.with).filter_map(find);
            let new: Vec<&Service> = named.filter(|one| one.name != *name && !found.contains(one)).collect();
            next.clear();
            for service in new {
                if !next.contains(&service) {
                    next.push(service);
                }
            }
            found.extend(&next);
        }
        found
    }
}

/// A certificate in files of the machine that bgctl runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, its issuers behind it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How a service is deployed and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The image.
    pub image: Option<String>,
    /// Services of the file that are switched together with it.
    pub with: Vec<ServiceName>,
    /// Addresses that bgctl does not run, in the place of an image; empty: nothing answers but the proxy itself.
    pub to: Option<Vec<EndpointAddr>>,
    /// Those addresses count as healthy without a probe.
    pub no_health: bool,
    /// How it is deployed.
    pub deployment: Deployment,
    /// Variables whose values nobody may see.
    pub secrets: Vec<Secret>,
    /// What is run around its deployments.
    pub hooks: Hooks,
    /// Of `volumes` and `mounts` those whose source was written as a relative path, as they are there: it begins on this machine.
    pub begin_here: Vec<String>,
    /// How its requests are served; where absent the present options stay.
    pub options: Option<ServiceOptions>,
}

/// A variable whose value is read when it is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The variable.
    pub name: String,
    /// Where its value comes from.
    pub source: SecretSource,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file of this machine.
    File(PathBuf),
    /// What a command writes that is run on this machine.
    Command {
        /// For a shell.
        line: String,
        /// The folder of the file.
        folder: PathBuf,
    },
    /// A variable of bgctl's own environment.
    Variable(String),
}

/// Commands around a deployment. They stand in the file alone: what a container remembers of the deployment before must not run on
/// the machine of whoever deploys next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// When the new version is healthy, and before it is live.
    pub before_flip: Option<String>,
    /// That one is run in a one-off container of the new image, else on the machine where bgctl runs.
    pub is_inside: bool,
    /// When the deployment is done.
    pub after: Option<String>,
    /// When it has failed.
    pub on_failure: Option<String>,
    /// How long each may take; none is the default.
    pub timeout: Option<Duration>,
    /// The folder of the file, in which they are run.
    pub folder: PathBuf,
}

/// A key each option of `bgctl switch`, named as it is. An empty list that stands in the file empties what was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the schema says what each key means")]
pub struct Deployment {
    pub port: Option<u16>,
    pub domains: Option<Vec<HostPattern>>,
    pub paths: Option<Vec<PathPrefix>>,
    pub strip_path: Option<bool>,
    pub tls: Option<TlsMode>,
    pub health_path: Option<String>,
    pub health_port: Option<u16>,
    pub health_host: Option<String>,
    /// `K=V`.
    pub health_headers: Option<Vec<String>>,
    pub health_status: Option<StatusRange>,
    pub health_timeout: Option<Duration>,
    pub health_interval: Option<Duration>,
    pub healthy: Option<u32>,
    pub deadline: Option<Duration>,
    pub image_health: Option<String>,
    pub drain: Option<Duration>,
    pub drain_tunnels: Option<Duration>,
    pub detach: Option<bool>,
    pub pause: Option<bool>,
    pub bake: Option<Duration>,
    pub bake_errors: Option<u8>,
    pub bake_slow: Option<u32>,
    pub keep: Option<String>,
    pub stop_grace: Option<Duration>,
    pub keep_images: Option<u32>,
    pub pull: Option<String>,
    pub before: Option<String>,
    pub before_timeout: Option<Duration>,
    pub replicas: Option<u32>,
    pub stop_first: Option<bool>,
    /// It takes no requests.
    pub no_port: Option<bool>,
    pub note: Option<String>,
    pub lock_wait: Option<Duration>,
    /// `K=V`, or `K` whose value comes from the environment of bgctl.
    pub env: Vec<String>,
    /// Absolute where the file's own path was.
    pub env_files: Vec<String>,
    pub volumes: Option<Vec<String>>,
    pub mounts: Option<Vec<String>>,
    pub tmpfs: Option<Vec<String>>,
    pub networks: Option<Vec<String>>,
    pub user: Option<String>,
    pub init: Option<bool>,
    pub add_hosts: Option<Vec<String>>,
    pub labels: Option<Vec<String>>,
    pub memory: Option<String>,
    pub cpus: Option<String>,
    pub shm_size: Option<String>,
    pub ulimits: Option<Vec<String>>,
    pub entrypoint: Option<String>,
    pub command: Option<Vec<String>>,
}
