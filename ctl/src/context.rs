//! What every command shares: options, printer, signals, and the way to the engine and to the proxy.

use std::sync::Arc;

use config::name::ServiceName;
use tokio::sync::OnceCell;

use crate::admin::{self, Client, Door};
use crate::deploy::together::Party;
use crate::engine::docker::Docker;
use crate::engine::process::Process;
use crate::engine::{Engine, GatewaySpec};
use crate::error::{Error, Kind};
use crate::global::{EngineKind, Global};
use crate::interrupt::Interrupt;
use crate::ui::Ui;
use crate::way::Way;

/// What every command shares.
pub struct Context<'a> {
    /// The options of every command.
    pub global: Global,
    /// The printer.
    pub ui: &'a Ui,
    /// Ctrl-C and its kin.
    pub interrupt: Interrupt,
    /// Its part in a deployment to several hosts or of several services.
    pub(crate) together: Option<Party>,
    engine: OnceCell<Arc<Engine>>,
}

impl<'a> Context<'a> {
    /// Returns the context of a run; nothing is reached yet.
    pub fn new(global: Global, ui: &'a Ui, interrupt: Interrupt) -> Self {
        Self { global, ui, interrupt, together: None, engine: OnceCell::new() }
    }

    /// Returns the context of one host or service of several, which flips when all do.
    pub(crate) fn within<'u>(&self, host: Option<&str>, ui: &'u Ui, party: Party) -> Context<'u> {
        Context { together: Some(party), ..self.alone_on(host, ui) }
    }

    /// Returns the context of one of several, by itself; without a host on that of this run.
    pub(crate) fn alone_on<'u>(&self, host: Option<&str>, ui: &'u Ui) -> Context<'u> {
        let host = host.map(str::to_owned).or_else(|| self.global.host.clone());
        Context::new(Global { host, ..self.global.clone() }, ui, self.interrupt.clone())
    }

    /// Returns the engine, connecting to it at the first call.
    ///
    /// # Errors
    /// Where it can't be reached.
    pub async fn engine(&self) -> Result<&Arc<Engine>, Error> {
        let connect = async || -> Result<Arc<Engine>, Error> {
            let gateway = self.global.gateway.as_deref();
            let engine = match self.global.engine() {
                EngineKind::Docker => Engine::Docker(Docker::connect(self.global.host.as_deref(), gateway).await?),
                EngineKind::Process => match &self.global.host {
                    None => Engine::Process(Process::connect(gateway)?),
                    // Else it would be deployed here, where nobody meant it.
                    Some(host) => {
                        return Err(Error::usage(format!(
                            "--engine process runs slots on this machine, not on {host}"
                        ))
                        .hint("leave out the host (--host, BGCTL_HOST), or the engine"));
                    }
                },
            };
            Ok(Arc::new(engine))
        };
        self.engine.get_or_try_init(connect).await
    }

    /// Returns the engine where slots may be run by one: `None` with `--admin` alone, which needs none.
    ///
    /// # Errors
    /// As of [`Context::engine`].
    pub async fn slots_engine(&self) -> Result<Option<&Arc<Engine>>, Error> {
        if self.global.admin.is_some() && self.global.engine() == EngineKind::Docker {
            return Ok(None);
        }
        self.engine().await.map(Some)
    }

    /// Connects to the proxy.
    ///
    /// # Errors
    /// Kind [`Kind::NoProxy`] where none runs.
    pub async fn admin(&self) -> Result<Client, Error> {
        match Client::open(self.door().await?).await {
            Ok(client) => Ok(client),
            Err(admin::Error::NoProxy) => {
                Err(Error::new(Kind::NoProxy, format!("no proxy runs at {}", self.target().await?))
                    .hint("`bgctl up` starts one; `switch`, `deploy` and `route` do it by themselves"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Connects to the proxy, starting one where there is none.
    ///
    /// # Errors
    /// Kind [`Kind::NoProxy`] where it can't be made to run.
    pub async fn admin_or_up(&self) -> Result<Client, Error> {
        match Client::open(self.door().await?).await {
            Ok(client) => Ok(client),
            Err(admin::Error::NoProxy) => {
                let gateway = self.engine().await?.up(&GatewaySpec::default()).await?;
                gateway.done.iter().for_each(|line| self.ui.say(line));
                gateway.warnings.iter().for_each(|line| self.ui.warn(line));
                self.admin().await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says where a command that changes something works, as its first line.
    ///
    /// # Errors
    /// As of [`Context::engine`].
    pub async fn say_target(&self, what: &str) -> Result<(), Error> {
        self.ui.say(&format!("{what} at {}", self.target().await?));
        Ok(())
    }

    /// Returns where the command works, in words.
    ///
    /// # Errors
    /// As of [`Context::engine`].
    pub async fn target(&self) -> Result<String, Error> {
        match &self.global.admin {
            Some(path) => Ok(format!("the proxy on {}", path.display())),
            None => Ok(self.engine().await?.target()),
        }
    }

    /// Returns the words that lead back, for hints: `bgctl rollback shop`, with the options that name the place.
    pub fn line(&self, command: &str, service: &ServiceName) -> String {
        self.way().line(&format!("bgctl {command} {service}"))
    }

    /// The same of a command that is told more than the service: `bgctl canary shop 10`.
    pub fn line_with(&self, command: &str, service: &ServiceName, more: &str) -> String {
        self.way().line(&format!("bgctl {command} {service} {more}"))
    }

    /// Returns the options that lead back to where this run works.
    pub fn way(&self) -> Way {
        Way::of(&self.global)
    }

    /// Returns the way to the proxy, for what connects by itself.
    ///
    /// # Errors
    /// As of [`Context::engine`].
    pub(crate) async fn door(&self) -> Result<Door, Error> {
        match &self.global.admin {
            Some(path) => Ok(Door::Socket(path.clone())),
            None => Ok(Door::Engine(Arc::clone(self.engine().await?))),
        }
    }
}

/// Returns who runs this, as `alice@laptop`.
pub fn who() -> String {
    let user = config::paths::variable("USER").or_else(|| config::paths::variable("LOGNAME"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let user = user.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", if host.is_empty() { "localhost" } else { host })
}
