//! `bgctl status`: services, slots, health.

use ::config::admin::response::{DomainTls, ServiceStatus, SlotState, SlotStatus};
use ::config::name::{ServiceName, Slot};
use clap::Args;

use super::complete::remember;
use super::{missing, no_such_service, unseen};
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::ui::Table;

/// Services, slots, health, what is in flight, images, since when
#[derive(Debug, Args)]
pub struct Status {
    /// One service only
    service: Option<ServiceName>,
}

impl Status {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let mut status = context.admin().await?.status().await?;
        remember(&context.global, &status.services);
        if let Some(name) = &self.service {
            status.services.retain(|service| service.name == *name);
            if status.services.is_empty() {
                return Err(no_such_service(name));
            }
        }
        if let Some(engine) = context.slots_engine().await? {
            // The proxy has answered; what the engine would say of itself is an extra.
            status.warnings.extend(engine.warnings().await.unwrap_or_default());
            let missing = missing::look(engine, &status.services).await.unwrap_or_default();
            status.warnings.extend(missing.iter().map(ToString::to_string));
            let unseen = unseen::look(engine, &status.services).await.unwrap_or_default();
            status.warnings.extend(unseen.iter().map(ToString::to_string));
        }
        let way = context.way();
        status.warnings.iter_mut().for_each(|line| *line = way.complete(line).into_owned());
        if context.ui.tone().json {
            let mut document = serde_json::to_value(&status).expect("a status is JSON");
            document["bgctl"] = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
            context.ui.document(&document);
            return Ok(ExitCode::DONE);
        }
        let tls = status.tls_listeners.iter().map(|address| format!("{address} (TLS)"));
        let listeners: Vec<String> = status.listeners.iter().cloned().chain(tls).collect();
        context.ui.data(&format!(
            "bgproxy {} since {}, bgctl {}, at {}",
            status.version.version,
            status.started,
            env!("CARGO_PKG_VERSION"),
            listeners.join(", ")
        ));
        if status.services.is_empty() {
            context.ui.data("no services yet");
        } else {
            table(&status.services).lines().iter().for_each(|line| context.ui.data(line));
        }
        for service in &status.services {
            notes(service).iter().for_each(|note| context.ui.data(note));
        }
        for certificate in &status.certificates {
            let names = certificate.names.join(", ");
            context.ui.data(&format!("certificate for {names}, until {}", certificate.not_after));
        }
        for lost in &status.state_lost {
            context.ui.warn(&format!("the saved state of {lost} could not be read: it answers 503"));
        }
        status.warnings.iter().for_each(|line| context.ui.warn(line));
        Ok(ExitCode::DONE)
    }
}

/// Says what a table has no column for.
pub(crate) fn notes(service: &ServiceStatus) -> Vec<String> {
    let name = &service.name;
    let mut notes = Vec::new();
    if let Some(paused) = &service.paused {
        let left = paused.left.as_secs();
        notes.push(format!(
            "{name} is paused since {}: {} requests wait, for {left} s more at most",
            paused.since, paused.waiting
        ));
    }
    if let Some(maintenance) = &service.maintenance {
        notes.push(format!("{name} is under maintenance since {}", maintenance.since));
    }
    for slot in Slot::BOTH {
        if let Some(long) = service.slots.get(slot).long_lived {
            let oldest = ::config::duration::format(std::time::Duration::from_secs(long.oldest.as_secs()));
            notes.push(format!(
                "{name} has {} WebSockets and event streams on {slot}, the oldest for {oldest}",
                long.count
            ));
        }
    }
    if let Some(canary) = &service.canary {
        let waits = if canary.waiting { ", once that is found healthy again" } else { "" };
        notes.push(format!("{} of 100 visitors of {name} are on {}{waits}", canary.percent, canary.slot));
    }
    if let Some(preview) = &service.preview {
        let waits = if preview.waiting { ", once that is found healthy again" } else { "" };
        let left = preview.left.as_secs();
        notes.push(format!("whoever has a link sees {} of {name}{waits}, for {left} s more", preview.slot));
    }
    notes.extend(service.tls.iter().filter_map(|domain| tls_note(name, domain)));
    if let Some(bake) = &service.bake {
        let left = bake.left.as_secs();
        notes.push(format!("{} of {name} is watched for {left} s more; {} stays warm", bake.back.other(), bake.back));
    }
    if let Some(lease) = &service.lease {
        notes.push(format!("{name} is locked by {} since {}: {}", lease.who, lease.since, lease.what));
    }
    notes
}

/// Says what is wrong with the certificate of a domain.
pub(crate) fn tls_note(service: &ServiceName, domain: &DomainTls) -> Option<String> {
    let DomainTls { domain, not_after, problem, next } = domain;
    let problem = problem.as_ref()?;
    let next = next.as_ref().map(|next| format!("; it is tried again at {next}")).unwrap_or_default();
    Some(match not_after {
        None => format!("{service} has no https for {domain} yet, and plain HTTP serves: {problem}{next}"),
        Some(end) => {
            format!("{service}: the certificate for {domain} ends at {end} and was not renewed: {problem}{next}")
        }
    })
}

fn table(services: &[ServiceStatus]) -> Table {
    let mut table = Table::new(&["SERVICE", "SLOT", "STATE", "HEALTH", "IN FLIGHT", "IMAGE", "SINCE"]);
    for service in services {
        for slot in Slot::BOTH {
            let status = service.slots.get(slot);
            table.row(vec![
                service.name.to_string(),
                slot.to_string(),
                status.state.as_str().to_owned(),
                health(status),
                status.in_flight.to_string(),
                status.image.clone().unwrap_or_else(|| "-".to_owned()),
                status.since.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
    }
    table
}

fn health(slot: &SlotStatus) -> String {
    if slot.state == SlotState::Empty {
        return "-".to_owned();
    }
    let count = slot.endpoints.len();
    let healthy = slot.endpoints.iter().filter(|endpoint| endpoint.healthy).count();
    let sick = slot.endpoints.iter().find(|endpoint| !endpoint.healthy);
    let reason = sick.map(|endpoint| endpoint.reason.clone().unwrap_or_else(|| "not healthy".to_owned()));
    match (reason, count) {
        (None, 0) => "no port".to_owned(),
        (None, 1) => "healthy".to_owned(),
        (None, _) => format!("{count} healthy"),
        (Some(reason), 0 | 1) => reason,
        (Some(reason), _) => format!("{healthy} of {count} healthy: {reason}"),
    }
}
