//! Laws of control, over random sequences of calls and crashes: the clock, the disk and the probes are the test's own.

use std::path::Path;

use config::admin::LOG_BYTES;
use config::admin::journal::{Journal, Outcome};
use config::admin::request::{self, Flip, ServiceSettings, Stage};
use config::health::HealthCheck;
use config::name::Slot;

use super::*;
use crate::telemetry::counters::Ended;

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

/// Tells whether the slot that was live before is asked for what the live one lacks, and lets requests in for it.
fn is_asked(control: &Control) -> bool {
    let table = control.live.current();
    let service = table.find("a.example", "/").unwrap().service;
    service.other.as_ref().is_some_and(|other| {
        let minutes = other.until.duration_since(Instant::now()).as_secs_f64() / 60.0;
        assert!((9.0..=10.0).contains(&minutes), "{minutes} minutes");
        other.target.run.claim_asset(0).is_some()
    })
}

#[test]
fn an_old_slot_is_asked_for_assets_from_its_flip_and_for_so_many_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    let a = name("a");
    let mut first = staged("a.example", false);
    let options = r#"{"old_assets":{"paths":["/assets/*"],"minutes":10}}"#;
    first.settings.as_mut().unwrap().options = serde_json::from_str(options).unwrap();
    control.stage(&a, first, &ANY).unwrap();
    control.flip(&a, &Flip::default(), &ANY).unwrap();
    control.stage(&a, staged("a.example", false), &ANY).unwrap();
    assert!(!is_asked(&control), "a slot that was never live has no old pages");
    // However long it was live.
    let set_since = |control: &mut Control, slot: Slot, minutes: u64| {
        let service = control.services.get_mut(&a).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(minutes * 60);
        service.slot_mut(slot).as_mut().unwrap().since = humantime::format_rfc3339_seconds(then).to_string();
        service.compile();
        control.publish();
    };
    set_since(&mut control, Slot::Blue, 3 * 24 * 60);
    control.flip(&a, &Flip::default(), &ANY).unwrap();
    assert!(is_asked(&control));
    drop(control);
    // A kill forgets nothing of it.
    let mut control = open(dir.path());
    assert!(is_asked(&control));
    set_since(&mut control, Slot::Green, 11);
    assert!(!is_asked(&control));
    set_since(&mut control, Slot::Green, 0);
    let run = Arc::clone(&control.services[&a].slot(Slot::Blue).unwrap().run);
    assert!(run.claim_asset(0).is_some());
    control.stage(&a, Stage::default(), &ANY).unwrap();
    assert!(!is_asked(&control) && run.claim_asset(0).is_none(), "its container may be stopped now");
}

/// Memory and disk say the same, whatever a folder that can't be synced does to a change.
#[test]
fn a_change_whose_folder_can_not_be_synced_is_in_force_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    let (a, b) = (name("a"), name("b"));
    control.put(&b, settings("b.example"), &ANY).unwrap();
    control.store.is_unsyncable = true;
    let put = control.put(&a, settings("a.example"), &ANY).unwrap();
    let settings: config::settings::ProxySettings = serde_json::from_str(r#"{"log":{"access":"json"}}"#).unwrap();
    control.put_proxy(settings.clone()).unwrap();
    control.delete(&b, &ANY).unwrap();
    assert!(control.warnings()[0].contains("may not outlive a power cut"), "{:?}", control.warnings());
    // A kill finds what was said.
    let again = open(dir.path());
    for control in [&control, &again] {
        assert_eq!(control.service(&a).unwrap().generation, put.generation);
        assert_eq!(finds(control, "a.example"), Some(("a".to_owned(), false)));
        assert!(control.service(&b).is_err());
        assert_eq!(*control.proxy_settings(), settings);
    }
    assert!(again.warnings().is_empty(), "what outlived it is synced at the start");
    control.store.is_unsyncable = false;
    control.put(&a, self::settings("c.example"), &ANY).unwrap();
    assert!(control.warnings().is_empty(), "{:?}", control.warnings());
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

#[test]
fn the_last_fifty_entries_of_a_journal_and_the_last_mebibyte_of_a_log_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = open(folder.path());
    let work = |number: usize| {
        let work =
            format!(r#"{{"id":"{number}","deployment":"d","what":"w","who":"a@b","slot":"blue","endpoints":[]}}"#);
        serde_json::from_str(&work).unwrap()
    };
    for number in 0..60 {
        control.journal(&name("shop"), Journal::Begin { work: work(number) }, None).unwrap();
    }
    let log = format!("gone{}", "x".repeat(LOG_BYTES));
    let end = Journal::End { id: "59".to_owned(), outcome: Outcome::Undone, report: Box::default(), log: Some(log) };
    control.journal(&name("shop"), end, None).unwrap();
    let control = open(folder.path());
    let ids: Vec<String> = control.history(&name("shop")).unwrap().entries.into_iter().map(|e| e.work.id).collect();
    assert_eq!(ids, (10..60).rev().map(|number| number.to_string()).collect::<Vec<_>>());
    let log = control.failed_log(&name("shop")).unwrap();
    assert!(log.len() == LOG_BYTES && !log.contains("gone"), "{}", log.len());
}

/// Two that judge would each send visitors where the other does not.
#[test]
fn a_canary_is_judged_by_the_process_that_has_the_state_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = open(dir.path());
    let a = name("a");
    control.stage(&a, staged("a.example", false), &ANY).unwrap();
    control.flip(&a, &Flip::default(), &ANY).unwrap();
    control.stage(&a, staged("a.example", false), &ANY).unwrap();
    let wanted = request::Canary { percent: 50, ..request::Canary::default() };
    let run = control.set_canary(&a, &wanted, &ANY).unwrap().unwrap();
    // Far worse than the live slot: every request fails.
    let took = std::time::Duration::from_millis(1);
    for (slot, status) in [(Slot::Blue, 200), (Slot::Green, 500)] {
        let ended = Ended { status, took, upstream: Some(took), bytes: 0 };
        (0..1000).for_each(|_| control.services[&a].counters.end(0, slot, ended));
    }
    control.give_state(true);
    assert!(control.look_at_canary(&a, run) && control.is_canary(run), "the successor judges");
    control.give_state(false);
    assert!(!control.look_at_canary(&a, run) && !control.is_canary(run));
}
