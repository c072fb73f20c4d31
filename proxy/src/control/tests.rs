//! Laws of control, over random sequences of calls and crashes: the clock, the disk and the probes are the test's own.

use std::path::Path;

use config::admin::request::{Flip, ServiceSettings, Stage};
use config::health::HealthCheck;
use proptest::prelude::*;

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

#[derive(Debug, Clone, Copy)]
enum Call {
    Put,
    Stage(Slot),
    Clear(Slot),
    Flip(Slot),
    Crash,
}

fn call() -> impl Strategy<Value = Call> {
    let slot = || prop_oneof![Just(Slot::Blue), Just(Slot::Green)];
    prop_oneof![
        Just(Call::Put),
        slot().prop_map(Call::Stage),
        slot().prop_map(Call::Clear),
        slot().prop_map(Call::Flip),
        Just(Call::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn once_a_slot_was_live_exactly_one_is_in_the_proxy_and_on_disk(calls in proptest::collection::vec(call(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let mut control = open(dir.path());
        let shop = name("shop");
        let mut live = None;
        for call in calls {
            match call {
                Call::Put => drop(control.put(&shop, settings("a.example"), &ANY)),
                Call::Stage(slot) => {
                    let stage = Stage { slot: Some(slot), ..staged("a.example", false) };
                    let outcome = control.stage(&shop, stage, &ANY);
                    prop_assert_eq!(outcome.is_ok(), live != Some(slot));
                }
                Call::Clear(slot) => {
                    let stage = Stage { slot: Some(slot), settings: None, ..Stage::default() };
                    drop(control.stage(&shop, stage, &ANY));
                }
                Call::Flip(slot) => {
                    if let Ok((flipped, _)) = control.flip(&shop, &Flip { to: Some(slot), ..Flip::default() }, &ANY) {
                        prop_assert_eq!(flipped.old, live);
                        live = Some(slot);
                    }
                }
                Call::Crash => control = open(dir.path()),
            }
            let status = control.service(&shop).ok();
            prop_assert_eq!(status.as_ref().and_then(|status| status.live), live);
            if let Some(live) = live {
                prop_assert_eq!(finds(&control, "a.example"), Some(("shop".to_owned(), true)));
                prop_assert!(!status.unwrap().slots.get(live).endpoints.is_empty());
                let saved = Store::open(&clone_state(dir.path())).unwrap().1.services;
                prop_assert_eq!(saved[0].live, Some(live));
            }
        }
    }
}

/// Opening the store forgets what a flip has prepared, so a look at the disk is a look at a copy.
fn clone_state(dir: &Path) -> std::path::PathBuf {
    let copy = dir.join("copy");
    _ = std::fs::remove_dir_all(&copy);
    std::fs::create_dir_all(copy.join("services")).unwrap();
    for entry in std::fs::read_dir(dir.join("services")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join("services").join(path.file_name().unwrap())).unwrap();
    }
    copy
}
