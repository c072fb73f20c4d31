//! What happened, a line each.

use std::time::SystemTime;

use config::admin::Event;
use config::admin::journal::{Entry, Outcome};
use config::name::ServiceName;

/// Returns an event as a line, `None` for one that the rest of the view tells better.
pub fn of_event(at: SystemTime, event: &Event) -> Option<String> {
    let what = match event {
        Event::Staged { service, slot, .. } => format!("{service}: {slot} is being tried"),
        Event::Healthy { service, slot, seconds } => format!("{service}: {slot} is healthy after {seconds:.1} s"),
        Event::Flipped { service, live, old: Some(old), .. } => format!("{service}: {live} is live, {old} drains"),
        Event::Flipped { service, live, old: None, .. } => format!("{service}: {live} is live"),
        Event::Drained { service, slot, seconds, counts } => {
            format!("{service}: {slot} is drained after {seconds:.1} s, {} cut", counts.cut)
        }
        Event::Baked { service, live, .. } => format!("{service}: {live} stays live"),
        Event::FlippedBack { service, live, reason, .. } => format!("{service}: FLIPPED BACK to {live}: {reason}"),
        Event::Paused { service } => format!("{service}: requests are held"),
        Event::Resumed { service } => format!("{service}: requests go on"),
        Event::Maintenance { service, on: true } => format!("{service}: maintenance began"),
        Event::Maintenance { service, on: false } => format!("{service}: maintenance is over"),
        Event::Canary { service, slot, percent, reason } => {
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{service}: {percent} of 100 visitors on {slot}{why}")
        }
        Event::Endpoints { service, slot, .. } => format!("{service}: {slot} has other endpoints"),
        Event::Health { service, slot, address, healthy, outcome } => {
            let verdict = if *healthy { "is healthy again" } else { "is not healthy" };
            format!("{service}: {address} of {slot} {verdict}: {outcome}")
        }
        Event::Removed { service } => format!("{service}: removed"),
        Event::Configured { .. } => "the proxy's own settings changed".to_owned(),
        Event::Certificate { domain, problem: Some(problem), .. } => format!("no certificate for {domain}: {problem}"),
        Event::Certificate { domain, .. } => format!("a certificate for {domain} came"),
        Event::Reloaded { problems } if problems.is_empty() => "the configuration was read again".to_owned(),
        Event::Reloaded { problems } => format!("the configuration is refused: {}", problems.join("; ")),
        Event::Probe { .. }
        | Event::Draining { .. }
        | Event::Cleared { .. }
        | Event::Changed { .. }
        | Event::Error(_) => return None,
    };
    Some(format!("{}  {what}", stamp(&humantime::format_rfc3339_seconds(at).to_string())))
}

/// Returns what was done to a service before as a line.
pub fn of_history(service: &ServiceName, entry: &Entry) -> String {
    let outcome = entry.outcome.map_or("under way", Outcome::as_str);
    format!("{}  {service}: {} by {}: {outcome}", stamp(&entry.began), entry.work.what, entry.work.who)
}

/// Shortens a time to day and second.
fn stamp(rfc3339: &str) -> String {
    rfc3339.get(5..19).unwrap_or(rfc3339).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::name::Slot;

    use super::*;

    #[test]
    fn a_flip_is_told_and_a_probe_is_not() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let service: ServiceName = "shop".parse().unwrap();
        let flip =
            Event::Flipped { service: service.clone(), live: Slot::Green, old: Some(Slot::Blue), flip_micros: 41 };
        assert_eq!(of_event(at, &flip).unwrap(), "11-14 22:13:20  shop: GREEN is live, BLUE drains");
        assert_eq!(of_event(at, &Event::Draining { service, slot: Slot::Blue, in_flight: 2 }), None);
    }
}
