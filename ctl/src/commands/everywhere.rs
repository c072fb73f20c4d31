//! A deployment to several hosts: pushed side by side, prepared everywhere, flipped when all are healthy; and where one goes back,
//! all do.

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;

use super::order::{self, Order, try_switch};
use super::rollback::Rollback;
use crate::context::Context;
use crate::deploy::report::{Failure, Report};
use crate::deploy::together::Party;
use crate::error::{Error, ExitCode};
use crate::ui::Ui;

/// The end of a deployment to several hosts, as it is told to programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "report")]
struct Everywhere<'a> {
    service: &'a str,
    hosts: Vec<Host>,
    exit_code: u8,
}

#[derive(Serialize)]
struct Host {
    host: String,
    report: Value,
    /// The new version was flipped to, whether or not requests were lost by it.
    #[serde(skip)]
    has_flipped: bool,
    /// It was live there and was taken back, since another host failed.
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
    let printers: Vec<Ui> = hosts.iter().map(|host| context.ui.labelled(host)).collect();
    let places = hosts.iter().zip(&printers).zip(Party::of(hosts));
    let contexts: Vec<_> = places.map(|((host, ui), party)| context.on(host, ui, party)).collect();
    let ended = join_all(contexts.iter().map(async |context| {
        let ended = command(context).await;
        if let Some(party) = &context.together {
            party.left(ended.is_err());
        }
        ended
    }))
    .await;
    let cause = contexts.iter().find_map(|context| context.together.as_ref()?.failed());
    let of_cause = hosts.iter().zip(&ended).filter(|(host, _)| Some(*host) == cause.as_ref());
    let first = of_cause.map(|(_, ended)| ended).chain(&ended).find_map(|ended| ended.as_ref().err()).cloned();
    (ended, first)
}

/// Switches on the host of this run, or on all of several, and prints the report.
pub(crate) async fn switch(context: &Context<'_>, order: Order) -> Result<ExitCode, Error> {
    let Some(hosts) = hosts(context)? else {
        return order::switch(context, order).await;
    };
    let service = order.service.clone();
    let (reports, first_failure) = each(context, &hosts, async |context| {
        let report = try_switch(context, order.clone()).await;
        if let Err(error) = &report {
            context.ui.error(error);
        }
        report
    })
    .await;
    let mut ended = Vec::new();
    let mut exit = ExitCode::DONE;
    for (host, report) in hosts.iter().zip(reports) {
        let has_flipped = matches!(report, Ok(Some(_)));
        let taken_back = has_flipped && first_failure.is_some() && take_back(context, host, &order).await;
        let report = match report {
            Ok(Some(report)) => {
                exit = if exit == ExitCode::DONE { report.exit() } else { exit };
                tell(context, host, &report);
                serde_json::to_value(&report).unwrap_or_default()
            }
            // A dry run, or a version that waits for its flip: it has been told.
            Ok(None) => Value::Null,
            Err(error) => serde_json::to_value(Failure::of(&service, &error)).unwrap_or_default(),
        };
        ended.push(Host { host: host.clone(), report, has_flipped, taken_back });
    }
    let failed = first_failure.map(|first| all_failed(&ended, first));
    let exit_code = failed.as_ref().map_or(exit, |error| error.kind.exit_code());
    context.ui.event(&Everywhere { service: service.as_str(), hosts: ended, exit_code: exit_code.0 });
    failed.map_or(Ok(exit), Err)
}

/// Says what a deployment did on one of the hosts.
fn tell(context: &Context<'_>, host: &str, report: &Report) {
    if !context.ui.tone().json {
        let ui = context.ui.labelled(host);
        report.words().iter().for_each(|line| ui.data(line));
    }
}

/// Returns the failure of the whole: that of the first host.
fn all_failed(ended: &[Host], first: Error) -> Error {
    let live: Vec<&str> =
        ended.iter().filter(|host| host.has_flipped && !host.taken_back).map(|host| host.host.as_str()).collect();
    let message = match live.as_slice() {
        [] => "no host has the new version".to_owned(),
        live => format!("not every host has the old version: {} could not be taken back", live.join(", ")),
    };
    Error::new(first.kind, message).detail(first.message)
}

/// Goes back on a host that flipped while another failed; tells whether that was done.
async fn take_back(context: &Context<'_>, host: &str, order: &Order) -> bool {
    let ui = context.ui.labelled(host);
    let there = context.alone_on(host, &ui);
    ui.say("another host failed, so this one goes back");
    let back =
        Rollback::of(order.service.clone(), order.options.rollout.lock_wait.unwrap_or_default()).run(&there).await;
    match back {
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

    #[test]
    fn a_host_that_could_not_be_taken_back_is_named_also_where_requests_were_lost_there() {
        let host = |name: &str, exit_code: u8, has_flipped, taken_back| Host {
            host: name.to_owned(),
            report: serde_json::json!({ "event": "report", "exit_code": exit_code }),
            has_flipped,
            taken_back,
        };
        let first = || Error::new(Kind::NoFlip, "web2 was flipped back");
        let failed = all_failed(&[host("web1", 0, true, true), host("web2", 4, false, false)], first());
        assert_eq!((failed.kind, failed.message.as_str()), (Kind::NoFlip, "no host has the new version"));
        let failed = all_failed(&[host("web1", 7, true, false), host("web2", 4, false, false)], first());
        assert!(failed.message.contains("web1 could not be taken back"), "{}", failed.message);
        assert_eq!(failed.details, ["web2 was flipped back"]);
    }
}
