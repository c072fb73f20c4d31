//! What a deployment is run with: a flag, else what the live slot runs with, else the default.

use std::time::Duration;

use config::admin::request::{Margins, ServiceSettings};
use config::defaults;
use config::health::HealthCheck;
use serde::{Deserialize, Serialize};

use crate::engine::{self, Image, Instance, RunSettings};
use crate::error::Error;
use crate::mask::{self, MASK};

/// The note of an instance that carries its settings.
pub const NOTE: &str = "settings";
/// The note of an instance that names the image that was live before it.
pub const PREVIOUS: &str = "previous";
/// The port of an application that says nothing about it.
const PORT: u16 = 8080;

/// The last version, the one before, and one more to go back to.
const KEEP_IMAGES: u32 = 3;
/// A migration takes its time.
const BEFORE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What becomes of an image's own HEALTHCHECK.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ImageHealth {
    /// It must pass once.
    #[default]
    Require,
    /// It is not run.
    Ignore,
}

/// What becomes of the old instance after the bake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// It goes on running: going back is a pure flip.
    Warm,
    /// It is stopped: going back starts it again.
    #[default]
    Stopped,
    /// It is removed: going back needs its image.
    None,
}

impl Keep {
    /// Returns the word of flags and of the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Stopped => "stopped",
            Self::None => "none",
        }
    }
}

/// What a deployment is run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The routes.
    pub routes: ServiceSettings,
    /// The probe.
    pub health: HealthCheck,
    /// Names of more header fields of it, whose values the proxy has.
    pub kept_headers: Vec<String>,
    /// The application's port, once it is known.
    pub port: Option<u16>,
    /// The whole wait for health.
    #[serde(with = "config::duration")]
    pub deadline: Duration,
    /// The image's own health check.
    pub image_health: ImageHealth,
    /// What is run in a one-off instance before the new version starts: migrations.
    pub before: Option<String>,
    /// How long that may take.
    #[serde(with = "config::duration")]
    pub before_timeout: Duration,
    /// How long requests on the old slot may go on.
    #[serde(with = "config::duration")]
    pub drain: Duration,
    /// The same for WebSockets and event streams; where absent as long as the others.
    #[serde(with = "config::duration::option")]
    pub drain_tunnels: Option<Duration>,
    /// How long the old slot stays warm.
    #[serde(with = "config::duration")]
    pub bake: Duration,
    /// How much worse the new version may be meanwhile.
    pub margins: Margins,
    /// What becomes of the old instance then.
    pub keep: Keep,
    /// How long an instance may take to stop.
    #[serde(with = "config::duration")]
    pub stop_grace: Duration,
    /// Images of past deployments that `prune` leaves.
    pub keep_images: u32,
    /// How many instances of it there are.
    pub replicas: u32,
    /// It takes no requests: a worker.
    pub no_port: bool,
    /// Two versions can't run at once: the old one is stopped before the new one starts.
    pub stop_first: bool,
    /// The names of the variables whose values nobody may see, besides those that look so.
    pub secrets: Vec<String>,
    /// How the instance is run; the engine saves it by itself.
    #[serde(skip)]
    pub run: RunSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            routes: ServiceSettings::default(),
            health: HealthCheck::default(),
            kept_headers: Vec::new(),
            port: None,
            deadline: defaults::DEADLINE,
            image_health: ImageHealth::default(),
            before: None,
            before_timeout: BEFORE_TIMEOUT,
            drain: defaults::DRAIN,
            drain_tunnels: None,
            bake: defaults::BAKE,
            margins: Margins::default(),
            keep: Keep::default(),
            stop_grace: engine::STOP_GRACE,
            keep_images: KEEP_IMAGES,
            replicas: 1,
            no_port: false,
            stop_first: false,
            secrets: Vec::new(),
            run: RunSettings::default(),
        }
    }
}

impl Settings {
    /// Returns what an instance was deployed with; the defaults where its note can't be read.
    pub fn of(instance: &Instance) -> Self {
        let note = instance.notes.iter().find(|(name, _)| name == NOTE);
        let saved: Self = note.and_then(|(_, text)| serde_json::from_str(text).ok()).unwrap_or_default();
        Self { port: saved.port.or(Some(instance.endpoint.port())), run: instance.run.clone(), ..saved }
    }

    /// Returns the note that [`Settings::of`] reads back. It becomes a label, which goes wherever logs and metrics go: so of the probe's
    /// header fields it has the names alone, and the proxy keeps the values.
    pub fn note(&self) -> (String, String) {
        let mut public = self.clone();
        public.kept_headers = self.header_names();
        public.health.headers.clear();
        (NOTE.to_owned(), serde_json::to_string(&public).expect("our own types are JSON"))
    }

    /// Returns the names of the probe's header fields, whoever has their values.
    pub fn header_names(&self) -> Vec<String> {
        let given = self.health.headers.iter().map(|(name, _)| name);
        given.chain(&self.kept_headers).cloned().collect()
    }

    /// Returns the same without what may be a secret, for printing.
    #[must_use]
    pub fn masked(mut self) -> Self {
        self.health.headers = self.header_names().into_iter().map(|name| (name, MASK.to_owned())).collect();
        self.kept_headers.clear();
        self.health.path = mask::line(&self.health.path);
        self.before = self.before.as_deref().map(mask::line);
        self
    }

    /// Returns the port: the one set or kept from before, else the image's only one, else 8080.
    ///
    /// # Errors
    /// Wrong usage where the image exposes several.
    pub fn port_for(&self, image: &Image) -> Result<u16, Error> {
        match (self.port, image.exposed_ports.as_slice()) {
            // Nobody asks for it.
            (None, _) if self.no_port => Ok(PORT),
            (Some(port), _) => Ok(port),
            (None, []) => Ok(PORT),
            (None, [port]) => Ok(*port),
            (None, ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                Err(Error::usage(format!("{} exposes several ports: {}", image.reference, ports.join(", ")))
                    .hint(format!("name the one that answers HTTP: --port {}", ports[0])))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(ports: &[u16]) -> Image {
        Image {
            reference: "shop:2".to_owned(),
            id: "x".to_owned(),
            exposed_ports: ports.to_vec(),
            entrypoint: Vec::new(),
            revision: None,
            health_command: None,
        }
    }

    #[test]
    fn the_port_is_the_one_set_else_the_only_exposed_one_else_8080() {
        let settings = Settings::default();
        assert_eq!(settings.port_for(&image(&[])).unwrap(), 8080);
        assert_eq!(settings.port_for(&image(&[9000])).unwrap(), 9000);
        assert!(settings.port_for(&image(&[80, 443])).unwrap_err().hints[0].contains("--port 80"));
        let sticky = Settings { port: Some(5), ..Settings::default() };
        assert_eq!(sticky.port_for(&image(&[80, 443])).unwrap(), 5);
    }

    #[test]
    fn settings_are_read_back_from_their_note_and_masked_for_printing() {
        let mut settings = Settings { bake: Duration::from_secs(3), keep: Keep::Warm, ..Settings::default() };
        settings.health.headers.push(("Authorization".to_owned(), "hunter2".to_owned()));
        settings.health.path = "/health?token=hunter2".to_owned();
        settings.before = Some("DB=x://u:hunter2@db/x ./migrate --password hunter2".to_owned());
        let (name, text) = settings.note();
        assert_eq!(name, NOTE);
        let mut read = serde_json::from_str::<Settings>(&text).unwrap();
        assert_eq!(read.kept_headers, ["Authorization"]);
        assert_eq!(read.note(), (name, text.clone()), "names go on from deployment to deployment");
        let shown = read.clone().masked().health.headers;
        assert_eq!(shown, [("Authorization".to_owned(), MASK.to_owned())]);
        read.health.headers = settings.health.headers.clone();
        read.kept_headers.clear();
        assert_eq!(read, settings);
        assert!(
            !text.replace("?token=hunter2", "").replace(":hunter2@", "").replace(" hunter2", "").contains("hunter2")
        );
        assert!(!serde_json::to_string(&settings.masked()).unwrap().contains("hunter2"));
    }
}
