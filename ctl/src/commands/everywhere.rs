//! A deployment to several hosts, of several services, or both: prepared side by side, flipped when all are healthy; and where one
//! goes back, all do.

use ::config::name::ServiceName;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

use super::order::{self, Order, try_switch};
use super::rollback::Rollback;
use super::together::{orders, words};
use crate::context::Context;
use crate::deploy::report::{Failure, Report};
use crate::deploy::together::{Member, Party};
use crate::error::{Error, ExitCode};
use crate::ui::Ui;

/// What a command is run for, once for each.
struct Place {
    host: Option<String>,
    /// None: the command says which.
    service: Option<ServiceName>,
    /// Others of its host begin only behind it.
    leads: bool,
}

impl Place {
    fn label(&self) -> String {
        let service = self.service.as_ref().map(ServiceName::as_str);
        [self.host.as_deref(), service].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn printer(&self, ui: &Ui) -> Ui {
        ui.labelled_as(&self.label(), self.host.as_deref())
    }

    fn member(&self) -> Member {
        Member { label: self.label(), host: self.host.clone(), leads: self.leads }
    }
}

/// How a command ended for one of the places.
struct Ended {
    host: Option<String>,
    label: String,
    service: ServiceName,
    leads: bool,
    report: Value,
    /// The new version was flipped to, whether or not requests were lost by it.
    has_flipped: bool,
    /// It was live there and was taken back, since another failed.
    taken_back: bool,
}

/// Returns the hosts that a command names, where there are several.
pub(crate) fn hosts(context: &Context<'_>) -> Result<Option<Vec<String>>, Error> {
    let Some(list) = context.global.host.as_deref().filter(|host| host.contains(',')) else { return Ok(None) };
    let hosts: Vec<String> = list.split(',').map(|host| host.trim().to_owned()).collect();
    for (number, host) in hosts.iter().enumerate() {
        if host.is_empty() || hosts[..number].contains(host) {
            return Err(Error::usage(format!("`{list}` is no list of hosts: each once, with commas between them")));
        }
    }
    Ok(Some(hosts))
}

/// Runs a command once for each host, all at the same time, with what each says marked by its name. Returns how each
/// ended, and the failure that the others follow from.
pub(crate) async fn each<T>(
    context: &Context<'_>,
    hosts: &[String],
    command: impl AsyncFn(&Context<'_>) -> Result<T, Error>,
) -> (Vec<Result<T, Error>>, Option<Error>) {
    let place = |host: &String| Place { host: Some(host.clone()), service: None, leads: true };
    let places: Vec<Place> = hosts.iter().map(place).collect();
    among(context, &places, async |context, _| command(context).await).await
}

/// Does so for each place, of which the command is told the number.
async fn among<T>(
    context: &Context<'_>,
    places: &[Place],
    command: impl AsyncFn(&Context<'_>, usize) -> Result<T, Error>,
) -> (Vec<Result<T, Error>>, Option<Error>) {
    let printers: Vec<Ui> = places.iter().map(|place| place.printer(context.ui)).collect();
    let members: Vec<Member> = places.iter().map(Place::member).collect();
    let parts = places.iter().zip(&printers).zip(Party::of(&members));
    let contexts: Vec<_> = parts.map(|((place, ui), party)| context.within(place.host.as_deref(), ui, party)).collect();
    let ended = join_all(contexts.iter().enumerate().map(async |(number, context)| {
        let Some(party) = &context.together else { return command(context, number).await };
        let ended = match context.interrupt.beside(party.turn()).await.flatten() {
            Ok(()) => command(context, number).await,
            // Why is said where it happened.
            Err(error) => Err(error),
        };
        party.left(ended.is_err());
        ended
    }))
    .await;
    let cause = contexts.iter().find_map(|context| context.together.as_ref()?.failed());
    let of_cause = places.iter().zip(&ended).filter(|(place, _)| Some(place.label()) == cause);
    let first = of_cause.map(|(_, ended)| ended).chain(&ended).find_map(|ended| ended.as_ref().err()).cloned();
    (ended, first)
}

/// Switches on the host of this run, or on all of several, with the services that go together, and prints the report.
pub(crate) async fn switch(context: &Context<'_>, order: Order) -> Result<ExitCode, Error> {
    let hosts = hosts(context)?;
    let orders = orders(context, order)?;
    let Some((first, with)) = orders.split_first().filter(|(_, with)| hosts.is_some() || !with.is_empty()) else {
        return match orders.into_iter().next() {
            Some(order) => order::switch(context, order).await,
            None => Ok(ExitCode::DONE),
        };
    };
    if !with.is_empty() {
        let names: Vec<&ServiceName> = with.iter().map(|order| &order.service).collect();
        context.ui.say(&words(&first.service, &names));
    }
    let (mut places, mut parts) = (Vec::new(), Vec::new());
    for host in hosts.map_or_else(|| vec![None], |hosts| hosts.into_iter().map(Some).collect()) {
        for order in &orders {
            let service = (!with.is_empty()).then(|| order.service.clone());
            places.push(Place { host: host.clone(), service, leads: !order.company.follows });
            parts.push(order);
        }
    }
    if first.options.dry_run && !with.is_empty() {
        // One after the other, so that each list of steps stays in one piece.
        for (place, order) in places.iter().zip(parts) {
            let ui = place.printer(context.ui);
            try_switch(&context.alone_on(place.host.as_deref(), &ui), order.clone()).await?;
        }
        return Ok(ExitCode::DONE);
    }
    let (reports, first_failure) = among(context, &places, async |context, number| {
        let report = try_switch(context, parts[number].clone()).await;
        if let Err(error) = &report {
            context.ui.error(error);
        }
        report
    })
    .await;
    let services: Vec<&ServiceName> = parts.iter().map(|order| &order.service).collect();
    let wait = first.options.rollout.lock_wait.unwrap_or_default();
    conclude(context, &places, &services, Reports { reports, first_failure, wait }).await
}

/// Goes back to the previous deployment, with the services that became live together with the one that is named.
pub(crate) async fn rollback(context: &Context<'_>, rollback: Rollback) -> Result<ExitCode, Error> {
    let with = context.interrupt.beside(rollback.company(context)).await??;
    if with.is_empty() {
        return rollback.run(context).await;
    }
    let names: Vec<&ServiceName> = with.iter().map(Rollback::service).collect();
    context.ui.say(&words(rollback.service(), &names));
    let wait = rollback.lock_wait();
    let all: Vec<Rollback> = std::iter::once(rollback).chain(with).collect();
    let place = |(number, one): (usize, &Rollback)| {
        let service = Some(one.service().clone());
        Place { host: None, service, leads: number == 0 }
    };
    let places: Vec<Place> = all.iter().enumerate().map(place).collect();
    let (reports, first_failure) = among(context, &places, async |context, number| {
        let report = all[number].clone().try_run(context).await;
        if let Err(error) = &report {
            context.ui.error(error);
        }
        report
    })
    .await;
    let services: Vec<&ServiceName> = all.iter().map(Rollback::service).collect();
    conclude(context, &places, &services, Reports { reports, first_failure, wait }).await
}

/// How all of it ended.
struct Reports {
    reports: Vec<Result<Option<Report>, Error>>,
    /// The failure that the others follow from.
    first_failure: Option<Error>,
    /// How long a lock is waited for.
    wait: Duration,
}

/// Takes back what flipped while another failed, and prints the reports.
async fn conclude(
    context: &Context<'_>,
    places: &[Place],
    services: &[&ServiceName],
    ended: Reports,
) -> Result<ExitCode, Error> {
    let Reports { reports, first_failure, wait } = ended;
    let (mut all, mut exit) = (Vec::new(), ExitCode::DONE);
    for ((place, &service), report) in places.iter().zip(services).zip(reports) {
        let has_flipped = matches!(report, Ok(Some(_)));
        let taken_back = has_flipped && first_failure.is_some() && take_back(context, place, service, wait).await;
        let report = match report {
            Ok(Some(report)) => {
                exit = if exit == ExitCode::DONE { report.exit() } else { exit };
                tell(context, place, &report);
                serde_json::to_value(&report).unwrap_or_default()
            }
            // A dry run, or a version that waits for its flip: it has been told.
            Ok(None) => Value::Null,
            Err(error) => {
                let error = match &place.host {
                    Some(host) => error.led(&context.way().to(host)),
                    None => error,
                };
                serde_json::to_value(Failure::of(service, &error)).unwrap_or_default()
            }
        };
        let (host, label, leads) = (place.host.clone(), place.label(), place.leads);
        all.push(Ended { host, label, service: service.clone(), leads, report, has_flipped, taken_back });
    }
    let failed = first_failure.map(|first| all_failed(&all, first));
    let exit_code = failed.as_ref().map_or(exit, |error| error.kind.exit_code());
    context.ui.event(&whole(&all, exit_code));
    failed.map_or(Ok(exit), Err)
}

/// Returns the report of all: of one host that of the service which was asked for, with those that went with it; of several
/// hosts one that has such a report of each.
fn whole(all: &[Ended], exit_code: ExitCode) -> Value {
    let of_host = |first: &Ended| {
        let mut report = first.report.clone();
        let with = all
            .iter()
            .filter(|one| !one.leads && one.host == first.host)
            .map(|one| json!({ "service": one.service, "report": one.report, "taken_back": one.taken_back }));
        let with: Vec<Value> = with.collect();
        if !with.is_empty() {
            if !report.is_object() {
                report = json!({ "event": "report", "service": first.service });
            }
            report["with"] = with.into();
        }
        report
    };
    let mut firsts = all.iter().filter(|one| one.leads).peekable();
    match firsts.peek() {
        Some(first) if first.host.is_none() => {
            let mut report = of_host(first);
            report["taken_back"] = first.taken_back.into();
            report["exit_code"] = exit_code.0.into();
            report
        }
        first => {
            let service = first.map(|first| first.service.clone());
            let of_each =
                |one: &Ended| json!({ "host": one.host, "report": of_host(one), "taken_back": one.taken_back });
            let hosts: Vec<Value> = firsts.map(of_each).collect();
            json!({ "event": "report", "service": service, "hosts": hosts, "exit_code": exit_code.0 })
        }
    }
}

/// Says what a deployment did in one of the places; of one host the words name the service by themselves.
fn tell(context: &Context<'_>, place: &Place, report: &Report) {
    if !context.ui.tone().json {
        let marked = place.host.as_ref().map(|host| context.ui.labelled(host));
        let ui = marked.as_ref().unwrap_or(context.ui);
        report.words().iter().for_each(|line| ui.data(line));
    }
}

/// Returns the failure of the whole: that of the first.
fn all_failed(ended: &[Ended], first: Error) -> Error {
    let live: Vec<&str> =
        ended.iter().filter(|one| one.has_flipped && !one.taken_back).map(|one| one.label.as_str()).collect();
    let what = if ended.iter().all(|one| one.host.is_some()) { "host" } else { "service" };
    let message = match live.as_slice() {
        [] => format!("no {what} has the new version"),
        live => format!("not every {what} has the old version: {} could not be taken back", live.join(", ")),
    };
    Error::new(first.kind, message).detail(first.message)
}

/// Goes back where the new version is live while another place failed; tells whether that was done.
async fn take_back(context: &Context<'_>, place: &Place, service: &ServiceName, wait: Duration) -> bool {
    let ui = place.printer(context.ui);
    let there = context.alone_on(place.host.as_deref(), &ui);
    let kind = if place.service.is_some() { "service" } else { "host" };
    ui.say(&format!("another {kind} failed, so this one goes back"));
    match Rollback::of(service.clone(), wait).run(&there).await {
        Ok(_) => true,
        Err(error) => {
            ui.error(&error);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn ended(place: (Option<&str>, &str), exit_code: u8, has_flipped: bool, taken_back: bool) -> Ended {
        let (host, service) = place;
        Ended {
            host: host.map(str::to_owned),
            label: host.unwrap_or(service).to_owned(),
            service: service.parse().unwrap(),
            leads: service == "web",
            report: json!({ "event": "report", "service": service, "exit_code": exit_code }),
            has_flipped,
            taken_back,
        }
    }

    #[test]
    fn a_host_that_could_not_be_taken_back_is_named_also_where_requests_were_lost_there() {
        let host =
            |name, exit_code, has_flipped, taken_back| ended((Some(name), "web"), exit_code, has_flipped, taken_back);
        let first = || Error::new(Kind::NoFlip, "web2 was flipped back");
        let failed = all_failed(&[host("web1", 0, true, true), host("web2", 4, false, false)], first());
        assert_eq!((failed.kind, failed.message.as_str()), (Kind::NoFlip, "no host has the new version"));
        let failed = all_failed(&[host("web1", 7, true, false), host("web2", 4, false, false)], first());
        assert!(failed.message.contains("web1 could not be taken back"), "{}", failed.message);
        assert_eq!(failed.details, ["web2 was flipped back"]);
    }

    #[test]
    fn the_report_is_that_of_the_service_asked_for_with_those_that_went_with_it() {
        let services = [ended((None, "web"), 0, true, false), ended((None, "worker"), 0, true, false)];
        let report = whole(&services, ExitCode(7));
        assert_eq!(
            (&report["event"], &report["service"], &report["exit_code"]),
            (&json!("report"), &json!("web"), &json!(7))
        );
        assert_eq!(report["with"][0]["report"]["service"], "worker");
        let both = [ended((Some("a"), "web"), 0, true, false), ended((Some("a"), "worker"), 0, true, true)];
        let report = whole(&both, ExitCode::DONE);
        assert_eq!(report["hosts"].as_array().unwrap().len(), 1);
        assert_eq!(report["hosts"][0]["report"]["with"][0]["taken_back"], true);
    }
}
