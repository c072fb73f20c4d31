//! What follows the flip, which stands whatever happens: restart policies, drain, bake, and the old version put away.

use config::admin::Event;
use config::admin::request::Drain;
use config::admin::response::Counts;
use config::name::Slot;
use tokio::time::Instant;

use super::execute::{Live, Rollout};
use super::lease::{RENEW, leased};
use super::report::{Report, Version};
use super::settings::Keep;
use crate::engine::Restart;
use crate::error::{Error, Kind};

impl Rollout<'_> {
    pub(super) async fn after_flip(&mut self, live: Live) -> Result<Report, Error> {
        let slot = live.flipped.live;
        let name = self.images.0.as_deref().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag);
        let took =
            if live.timed { format!("{} us", live.flipped.flip_micros) } else { "its answer was lost".to_owned() };
        let rest = match (live.flipped.old, self.settings.bake.is_zero()) {
            (None, _) => String::new(),
            (Some(_), true) => "; old slot drains".to_owned(),
            (Some(_), false) => {
                format!("; old slot drains, watching {}", humane(self.settings.bake))
            }
        };
        let words = [self.service.as_str(), name, "on", slot.upper()];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        self.context.ui.announce(&format!("LIVE: {} ({took}){rest}", words.join(" ")));
        self.context.ui.event(&Event::Flipped {
            service: self.service.clone(),
            live: slot,
            old: live.flipped.old,
            flip_micros: live.flipped.flip_micros,
        });
        // A reboot from here on brings back exactly the new version.
        for (instance, restart) in [(&live.instance, Restart::Always), (&self.plan.old, Restart::No)] {
            if let (Some(engine), Some(instance)) = (self.engine, instance)
                && let Err(error) = engine.set_restart(instance, restart).await
            {
                self.context.ui.warn(&format!("the restart policy of {} is not set: {error}", instance.name));
            }
        }
        let interrupt = self.context.interrupt.clone();
        let retired = interrupt.beside(self.retire(&live)).await;
        let (counts, drain_seconds) = retired.and_then(|retired| retired).map_err(|error| {
            let back = self.context.line("rollback", self.service);
            error
                .hint(format!("{slot} is live and stays so; the proxy drains the old slot by itself"))
                .hint(format!("the way back: {back}"))
        })?;
        let old = live.flipped.old.map(|slot| Version { slot, image: self.images.1.clone() });
        let mut report = Report {
            service: self.service.clone(),
            deployment: self.deployment.clone(),
            kept: if old.is_some() { self.kept().as_str() } else { Keep::None.as_str() },
            old,
            new: Version { slot, image: self.images.0.clone() },
            healthy_seconds: live.healthy.map(|healthy| healthy.seconds),
            flip_micros: live.timed.then_some(live.flipped.flip_micros),
            requests: counts,
            drain_seconds,
            exit_code: 0,
        };
        report.exit_code = report.exit().0;
        Ok(report)
    }

    /// Addresses that we don't manage stay staged: nobody could start them again.
    fn kept(&self) -> Keep {
        if self.plan.old.is_some() { self.settings.keep } else { Keep::Warm }
    }

    async fn retire(&mut self, live: &Live) -> Result<(Counts, f64), Error> {
        let Some(old) = live.flipped.old else { return Ok((Counts::default(), 0.0)) };
        let drained = self.drained(old).await?;
        let bake_ends = live.at + self.settings.bake;
        while Instant::now() < bake_ends {
            let rest = bake_ends.saturating_duration_since(Instant::now());
            self.context.ui.progress(&format!("{old} stays warm for {} s more", rest.as_secs_f64().ceil()));
            tokio::time::sleep(rest.min(RENEW)).await;
            self.client.renew().await?;
        }
        self.put_away(old).await;
        Ok(drained)
    }

    /// Stops or removes what is of no use any more; what fails is a warning, since the new version serves.
    async fn put_away(&mut self, slot: Slot) {
        let Some(engine) = self.engine else { return };
        if let Some(old) = self.plan.old.clone()
            && self.settings.keep != Keep::Warm
        {
            if let Err(error) = self.clear(slot).await {
                self.context.ui.warn(&format!("{slot} is not cleared in the proxy: {error}"));
            }
            let mut put_away = self.stop(&old).await;
            if self.settings.keep == Keep::None && put_away.is_ok() {
                put_away = self.remove(&old).await;
            }
            if let Err(error) = put_away {
                self.context.ui.warn(&format!("{} still runs: {error}", old.name));
            }
        }
        for stale in &self.plan.stale {
            if let Err(error) = leased(self.client, engine.remove(stale)).await {
                self.context.ui.warn(&format!("{} is not removed: {error}", stale.name));
            }
        }
    }

    /// Waits until nothing is in flight on a slot that was live; returns what was counted and the seconds it took.
    pub(super) async fn drained(&mut self, slot: Slot) -> Result<(Counts, f64), Error> {
        let mut events = self.client.drain(self.service, &Drain { slot: Some(slot) }).await?;
        while let Some(event) = events.next().await? {
            self.context.ui.event(&event);
            match event {
                Event::Draining { in_flight, .. } => {
                    self.context.ui.progress(&format!("{slot} drains: {in_flight} in flight"));
                }
                Event::Drained { counts, seconds, .. } => {
                    events.finish().await;
                    return Ok((counts, seconds));
                }
                Event::Error(refusal) => return Err(refusal.into()),
                Event::Staged { .. }
                | Event::Probe { .. }
                | Event::Healthy { .. }
                | Event::Flipped { .. }
                | Event::Cleared { .. }
                | Event::Health { .. }
                | Event::Changed { .. }
                | Event::Removed { .. }
                | Event::Reloaded { .. } => {}
            }
        }
        Err(Error::new(Kind::NoProxy, "the proxy ended the drain without a verdict"))
    }
}

/// Returns a duration as people say it in a sentence: `10 s`.
fn humane(duration: std::time::Duration) -> String {
    if duration.subsec_nanos() == 0 { format!("{} s", duration.as_secs()) } else { config::duration::format(duration) }
}
