//! Laws of control, over random sequences of calls and crashes: the clock, the disk and the probes are the test's own.

use std::path::Path;

use config::admin::request::{Flip, ServiceSettings, Stage};
use config::health::HealthCheck;

use super::*;

const ANY: Change = Change { if_match: IfMatch::Any, lease: None };

fn open(dir: &Path) -> Control {
    let (store, restored) = Store::open(dir).unwrap();
    Control::open(store, restored, 1).0
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn settings(domain: &str) -> ServiceSettings {
    ServiceSettings { domains: vec![domain.parse().unwrap()], ..ServiceSettings::default() }
}

fn staged(domain: &str, probed: bool) -> Stage {
    Stage {
        endpoints: vec!["127.0.0.1:8001".parse().unwrap()],
        health: HealthCheck { enabled: probed, ..HealthCheck::default() },
        settings: Some(settings(domain)),
        ..Stage::default()
    }
}

fn finds(control: &Control, host: &str) -> Option<(String, bool)> {
    let table = control.live.current();
    table.find(host, "/").map(|found| (found.service.name.to_string(), found.service.live.is_some()))
}

#[test]
fn a_new_service_takes_no_route_before_its_first_flip() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    for (service, domain) in [("a", "a.example"), ("b", "b.example")] {
        control.stage(&name(service), staged(domain, false), &ANY).unwrap();
    }
    assert_eq!(finds(&control, "a.example"), None);
    assert_eq!(finds(&control, "anything"), None);
    control.flip(&name("b"), &Flip::default(), &ANY).unwrap();
    assert_eq!(finds(&control, "b.example"), Some(("b".to_owned(), true)));
    assert_eq!(finds(&control, "a.example"), None);
}

#[test]
fn a_slot_that_is_not_healthy_is_flipped_to_by_force_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    control.stage(&name("a"), staged("a.example", true), &ANY).unwrap();
    let refused = control.flip(&name("a"), &Flip::default(), &ANY).err().unwrap();
    assert_eq!(refused.code, ErrorCode::NotHealthy);
    assert!(refused.message.contains("127.0.0.1:8001"), "{refused}");
    control.flip(&name("a"), &Flip { force: true, ..Flip::default() }, &ANY).unwrap();
}

#[test]
fn a_change_for_another_generation_or_without_the_lease_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    let shop = name("shop");
    let seen = control.put(&shop, settings("a.example"), &ANY).unwrap().generation;
    let change = Change { if_match: IfMatch::Generation(seen + 1), lease: None };
    assert_eq!(control.put(&shop, settings("a.example"), &change).unwrap_err().code, ErrorCode::Stale);
    let lease = request::Lease::Acquire { who: "alice@laptop".to_owned(), what: String::new() };
    let lease = control.lease(&shop, lease).unwrap().lease;
    let locked = control.put(&shop, settings("a.example"), &ANY).unwrap_err();
    assert_eq!(locked.code, ErrorCode::Locked);
    assert!(locked.message.starts_with("alice@laptop holds the lock since "), "{locked}");
    let change = Change { if_match: IfMatch::Generation(seen), lease: Some(lease) };
    control.put(&shop, settings("a.example"), &change).unwrap();
}

#[test]
fn a_route_of_another_service_is_refused_with_its_name_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    control.put(&name("a"), settings("x.example"), &ANY).unwrap();
    let taken = control.put(&name("b"), settings("x.example"), &ANY).unwrap_err();
    assert_eq!((taken.code, taken.message.as_str()), (ErrorCode::RouteTaken, "x.example/ belongs to service a"));
    assert_eq!(control.services().len(), 1);
}

#[test]
fn a_worker_is_flipped_to_without_endpoints_and_takes_no_route_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    control
        .stage(&name("site"), Stage { settings: Some(ServiceSettings::default()), ..staged("x", false) }, &ANY)
        .unwrap();
    control.flip(&name("site"), &Flip::default(), &ANY).unwrap();
    // It would take every request as well, and is refused for that, were it not a worker.
    let everywhere = ServiceSettings::default();
    let worker = |settings| Stage { no_endpoints: true, settings: Some(settings), ..Stage::default() };
    assert_eq!(
        control.stage(&name("mailer"), worker(everywhere.clone()), &ANY).unwrap_err().code,
        ErrorCode::RouteTaken
    );
    let nowhere = ServiceSettings { no_route: Some(true), ..everywhere };
    control.stage(&name("mailer"), worker(nowhere), &ANY).unwrap();
    control.flip(&name("mailer"), &Flip::default(), &ANY).unwrap();
    let both = Stage { no_endpoints: true, ..staged("x", false) };
    assert_eq!(control.stage(&name("mailer"), both, &ANY).unwrap_err().code, ErrorCode::BadRequest);
    for control in [control, open(dir.path())] {
        let mailer = control.service(&name("mailer")).unwrap();
        assert_eq!((mailer.live, mailer.slots.blue.endpoints.len()), (Some(Slot::Blue), 0));
        assert_eq!(finds(&control, "anything"), Some(("site".to_owned(), true)));
    }
}
