//! A gateway put in the place of the recipe's nginx: tried beside it first, then given its ports.
//!
//! The trial runs a proxy of ours without a port, on the network and on the state that the real one will have: what is staged and
//! flipped there is saved. Then everything is created that can be without a port, nginx is asked to end, and ours is started. What
//! fails before that is taken back while nginx serves; what fails after it gives nginx its ports back.

use std::time::Duration;

use bollard::models::{ContainerCreateBody, RestartPolicyNameEnum};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, StartContainerOptions, StopContainerOptions,
};
use tokio::time::{Instant, sleep};

use super::names::Names;
use super::parts::trusted_proxies;
use super::ports::Published;
use super::program_image::ProgramImage;
use super::raising::{Made, Raising, Started, id_of, is_running, no_proxy};
use super::recipe::{Part, Recipe};
use super::refusal::{refusal, status};
use super::spec::{log_config, restart_policy};
use super::{Docker, adopted, labels, mend, sight};
use crate::engine::{EngineError, Gateway, GatewaySpec, Instance};

/// How long nginx may answer what it has, once it is asked to end: nobody else is answered meanwhile.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A proxy that is tried beside the one that serves.
pub struct Rehearsal {
    image: ProgramImage,
    trusted: Vec<String>,
    volumes: Vec<String>,
    log_driver: String,
    made: Vec<Made>,
}

impl Docker {
    /// Returns the same engine, with holder and proxy under names that nobody else has.
    #[must_use]
    pub fn moving(&self) -> Self {
        Self { place: self.place.clone(), handles: self.handles.clone(), names: self.names.moving() }
    }

    /// Starts a proxy beside the one that serves; it has no port, and the state that the real one will have.
    ///
    /// # Errors
    /// As of `up`; nothing of it is left then.
    pub async fn rehearse(&self, spec: &GatewaySpec) -> Result<Rehearsal, EngineError> {
        let trusted = trusted_proxies(&spec.trusted_proxies, None)?;
        let volumes = sight::volumes(&spec.volumes, None)?;
        let image = self.proxy_image(spec.proxy_binary.as_deref(), trusted.clone()).await?;
        let mut raising = Raising::new(self, spec, Vec::new());
        raising.trusted.clone_from(&trusted);
        raising.volumes.clone_from(&volumes);
        let raised = async {
            raising.ensure_network().await?;
            raising.ensure_volume().await?;
            raising.load(&image).await?;
            let mut body = raising.holder_body(&image, &[]);
            // The name by which containers call nginx is not the trial's: it would take requests that it can't answer yet.
            body.networking_config = None;
            let holder = raising.start_new(&self.names.holder(), body, None).await?;
            raising.create_proxy(&image, &holder).await?;
            Ok(holder.log_driver)
        };
        let raised = raised.await;
        match raised {
            Ok(log_driver) => Ok(Rehearsal { image, trusted, volumes, log_driver, made: raising.into_made() }),
            Err(error) => {
                raising.take_back().await;
                Err(error)
            }
        }
    }

    /// Ends a trial that came to nothing.
    pub async fn give_up(&self, rehearsal: Rehearsal) {
        let spec = GatewaySpec::default();
        Raising::new(self, &spec, rehearsal.made).take_back().await;
    }

    /// Takes the ports over, and makes the recipe's containers known as ours.
    ///
    /// # Errors
    /// [`EngineError::NoProxy`] with the reason; nginx has its ports back then, or the words say that it has not.
    ///
    /// # Cancel safety
    /// Not to be dropped: for a moment nobody serves.
    pub async fn take_over(
        &self,
        recipe: &Recipe,
        rehearsal: Rehearsal,
        instances: &[Instance],
    ) -> Result<Gateway, EngineError> {
        let spec = GatewaySpec { publish: recipe.publish.clone(), ..GatewaySpec::default() };
        let Rehearsal { image, trusted, volumes, log_driver, made } = rehearsal;
        // The trial's containers go; network and volume stay.
        let (trial, kept) = made.into_iter().partition::<Vec<_>, _>(|made| matches!(made, Made::Container(_)));
        let mut raising = Raising::new(self, &spec, kept);
        raising.trusted = trusted;
        raising.volumes = volumes;
        let prepared = async {
            let nothing = GatewaySpec::default();
            Raising::new(self, &nothing, trial).take_back().await;
            let published = spec.publish.iter().map(|text| Published::parse(text)).collect::<Result<Vec<_>, _>>()?;
            let mut holder = raising.holder_body(&image, &published);
            let own_labels = holder.labels.get_or_insert_default();
            own_labels.insert(adopted::LABEL.to_owned(), adopted::label(instances));
            own_labels.insert(mend::POLICIES.to_owned(), mend::policies(recipe));
            let holder = self.create_part(&self.names.holder(), holder, &log_driver).await?;
            let holder = Started { id: holder, log_driver: log_driver.clone() };
            let body = raising.proxy_body(&image, &holder);
            let proxy = self.create_part(&self.names.proxy(), body, &log_driver).await?;
            Ok((holder.id, proxy))
        };
        let prepared: Result<(String, String), EngineError> = prepared.await;
        let taken = match prepared {
            Ok((holder, proxy)) => self.exchange(recipe, &raising, &holder, &proxy).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(gap) => {
                // What an earlier `down` kept is of another time; should it stay, the next one writes it anew.
                let _stale = self.forget_adopted().await;
                let (old, new) = (&recipe.nginx.name, self.names.settled().proxy());
                raising.report.changed = true;
                raising.report.addresses = spec
                    .publish
                    .iter()
                    .filter_map(|text| Published::parse(text).ok())
                    .map(|port| port.url(self.place.host()))
                    .collect();
                raising.report.done.push(format!(
                    "{new} has the ports of {old}; new connections were refused for at most {} ms",
                    gap.as_millis()
                ));
                raising
                    .report
                    .done
                    .push(format!("{} waits, stopped: `docker rm {0}` when nobody wants it back", Names::before(old)));
                Ok(raising.report)
            }
            Err(error) => Err(self.give_back(recipe, raising, error).await),
        }
    }

    /// Creates a part without starting it.
    async fn create_part(
        &self,
        name: &str,
        mut body: ContainerCreateBody,
        driver: &str,
    ) -> Result<String, EngineError> {
        if let Some(host) = &mut body.host_config {
            host.log_config = Some(log_config(driver));
        }
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let created = self.handles.call.create_container(Some(options), body).await;
        created.map(|created| created.id).map_err(|error| refusal(&format!("create {name}"), error))
    }

    /// Stops nginx and starts ours; returns for how long at most nobody listened.
    async fn exchange(
        &self,
        recipe: &Recipe,
        raising: &Raising<'_>,
        holder: &str,
        proxy: &str,
    ) -> Result<Duration, EngineError> {
        let olds = [Some(&recipe.nginx), recipe.holder.as_ref()];
        for old in olds.into_iter().flatten() {
            // Else the engine would start it again.
            self.set_policy(old, Some(restart_policy(RestartPolicyNameEnum::NO))).await?;
        }
        let began = Instant::now();
        self.end(&recipe.nginx).await?;
        if let Some(old) = &recipe.holder {
            self.stop_part(old).await?;
        }
        for (name, id) in [(self.names.holder(), holder), (self.names.proxy(), proxy)] {
            let answer = self.handles.call.start_container(id, None::<StartContainerOptions>).await;
            answer.map_err(|error| no_proxy(&refusal(&format!("start {name}"), error)))?;
        }
        raising.wait_ready(proxy).await?;
        let gap = began.elapsed();
        self.rename_all().await?;
        Ok(gap)
    }

    /// Lets nginx answer what it has, and stops it.
    async fn end(&self, nginx: &Part) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: "QUIT".to_owned() };
        // One that runs no more has nothing to answer.
        let _gone = self.handles.call.kill_container(&nginx.id, Some(options)).await;
        let deadline = Instant::now() + LAST_ANSWERS;
        while Instant::now() < deadline && self.inspect(&nginx.id).await?.as_ref().is_some_and(is_running) {
            sleep(LOOK).await;
        }
        self.stop_part(nginx).await
    }

    async fn stop_part(&self, part: &Part) -> Result<(), EngineError> {
        let options = StopContainerOptions { signal: None, t: Some(0) };
        match self.handles.long.stop_container(&part.id, Some(options)).await {
            Err(error) if status(&error) != Some(304) => Err(refusal(&format!("stop {}", part.name), error)),
            _ => Ok(()),
        }
    }

    /// Gives ours the names, and what had them others.
    pub(super) async fn rename_all(&self) -> Result<(), EngineError> {
        let (moving, settled) = (self.names.moving(), self.names.settled());
        for (now, wanted) in [(moving.holder(), settled.holder()), (moving.proxy(), settled.proxy())] {
            let Some(ours) = self.inspect(&now).await? else { continue };
            if let Some(old) = self.inspect(&wanted).await? {
                let before = Names::before(&wanted);
                if let Some(older) = self.inspect(&before).await? {
                    return Err(EngineError::NoProxy(format!(
                        "`{before}` is {} already\nhint: `docker rm {before}`, then `bgctl up{} --replace` again",
                        super::container::describe(&older),
                        settled.flag()
                    )));
                }
                self.rename(&id_of(&old)?, &before).await?;
            }
            self.rename(&id_of(&ours)?, &wanted).await?;
        }
        Ok(())
    }

    /// Takes everything back, and gives nginx its ports.
    async fn give_back(&self, recipe: &Recipe, mut raising: Raising<'_>, error: EngineError) -> EngineError {
        let names = [self.names.clone(), self.names.settled()];
        for name in names.iter().flat_map(|names| [names.proxy(), names.holder()]) {
            if let Ok(Some(part)) = self.inspect(&name).await {
                let own_labels = part.config.as_ref().and_then(|config| config.labels.as_ref());
                if let (true, Ok(id)) = (labels::is_ours(own_labels, &self.names.network()), id_of(&part)) {
                    let _ = self.discard(&id).await;
                }
            }
        }
        let mut words = vec![error.to_string()];
        for old in [recipe.holder.as_ref(), Some(&recipe.nginx)].into_iter().flatten() {
            // It has this name unless the failure came after it was renamed.
            let _same = self.rename(&old.id, &old.name).await;
            let answer = self.handles.call.start_container(&old.id, None::<StartContainerOptions>).await;
            let started = answer.map_err(|error| refusal(&format!("start {}", old.name), error));
            let restored = self.set_policy(old, old.restart.clone()).await;
            words.extend([started, restored].into_iter().filter_map(Result::err).map(|error| error.to_string()));
        }
        raising.take_back().await;
        words.push(match words.len() {
            1 => format!("{} serves again, as before", recipe.nginx.name),
            _ => format!("{} does NOT serve: `docker start {0}` starts it", recipe.nginx.name),
        });
        EngineError::NoProxy(words.join("\n"))
    }
}
