//! What is done about every way in which work can be left open.

use std::time::Duration;

use config::admin::journal::{Step, StepState, Work};
use config::admin::request::ServiceSettings;
use config::admin::response::{EndpointStatus, Origin, PauseStatus, SlotStatus, Slots};

use super::*;
use crate::deploy::settings::NOTE;
use crate::engine::RunSettings;

fn instance(name: &str, slot: Slot, deployment: &str, keep: Keep) -> Instance {
    let settings = Settings { keep, stop_grace: Duration::from_secs(1), ..Settings::default() };
    Instance {
        id: name.to_owned(),
        name: name.to_owned(),
        service: "shop".parse().unwrap(),
        slot,
        replica: if name.contains("_2") { 2 } else { 1 },
        kept: name.ends_with("_kept"),
        running: true,
        endpoint: format!("{name}:8080").parse().unwrap(),
        deployment: deployment.to_owned(),
        image: "shop:1".to_owned(),
        image_id: "x".to_owned(),
        run: RunSettings::default(),
        notes: vec![(NOTE.to_owned(), serde_json::to_string(&settings).unwrap())],
        created: String::new(),
    }
}

fn entry(steps: &[&str]) -> Entry {
    let step = |step: &&str| Step { step: (*step).to_owned(), state: StepState::Begun, at: String::new() };
    let work = Work {
        id: "w".to_owned(),
        deployment: "new".to_owned(),
        what: "switch to shop:2".to_owned(),
        who: "alice@laptop".to_owned(),
        note: None,
        slot: Slot::Green,
        image: None,
        image_id: None,
        revision: None,
        old_image: None,
        with: Vec::new(),
        scale: None,
    };
    let steps = steps.iter().map(step).collect();
    Entry { work, began: "then".to_owned(), steps, flipped_back: None, ended: None, outcome: None, report: None }
}

fn service(live: Slot, green: SlotState, blue: SlotState, deployment: &str) -> ServiceStatus {
    let slot = |state, deployment: &str| SlotStatus {
        state,
        endpoints: Vec::new(),
        in_flight: 0,
        long_lived: None,
        image: None,
        deployment: Some(deployment.to_owned()),
        since: None,
    };
    ServiceStatus {
        name: "shop".parse().unwrap(),
        generation: 1,
        origin: Origin::Admin,
        live: Some(live),
        slots: Slots { blue: slot(blue, "old"), green: slot(green, deployment) },
        settings: ServiceSettings::default(),
        lease: None,
        paused: None,
        maintenance: None,
        canary: None,
        preview: None,
        tls: Vec::new(),
        bake: None,
    }
}

/// What is done, in words, the restart policies apart.
fn actions(entry: &Entry, service: &ServiceStatus, instances: &[Instance]) -> Vec<String> {
    let found = Found { entry, service: Some(service), instances };
    let words = |action: Action| match action {
        Action::Resume => "resume".to_owned(),
        Action::EndOnce => "end once".to_owned(),
        Action::AwaitBake(slot) => format!("await {slot}"),
        Action::Clear(slot) => format!("clear {slot}"),
        Action::Remove(instance) => format!("remove {}", instance.name),
        Action::Stop(instance) => format!("stop {}", instance.name),
        Action::Name(instance, kept) => format!("{} {}", if kept { "keep" } else { "give back" }, instance.name),
        Action::Start(instance) => format!("start {}", instance.name),
        Action::AwaitHealth(_) => "await health".to_owned(),
        Action::Warm(slot) => format!("warm {slot}"),
        Action::Endpoints(endpoints) => format!("endpoints {}", endpoints.len()),
        Action::Restart(instance, Restart::Always) => format!("always {}", instance.name),
        Action::Restart(instance, Restart::No) => format!("no {}", instance.name),
    };
    found.actions(Aim::End).into_iter().map(words).collect()
}

#[test]
fn before_the_flip_everything_is_undone_and_the_version_before_is_there_to_go_back_to() {
    let old = || instance("shop_BLUE", Slot::Blue, "old", Keep::Stopped);
    let new = || instance("shop_GREEN", Slot::Green, "new", Keep::Stopped);
    let kept = || instance("shop_GREEN_kept", Slot::Green, "older", Keep::Stopped);
    let before = service(Slot::Blue, SlotState::Empty, SlotState::Live, "none");
    let staged = service(Slot::Blue, SlotState::Starting, SlotState::Live, "new");
    let always = "always shop_BLUE";
    assert_eq!(actions(&entry(&[]), &before, &[old()]), [always]);
    assert_eq!(actions(&entry(&["before"]), &before, &[old()]), [always, "end once"]);
    let smoked = ["create", "stage", "before_flip"];
    let undone = [always, "no shop_GREEN", "end once", "clear GREEN", "remove shop_GREEN"];
    assert_eq!(actions(&entry(&smoked), &staged, &[old(), new()]), undone);
    assert_eq!(actions(&entry(&["park"]), &before, &[old(), kept()]), [always, "give back shop_GREEN_kept"]);
    let tried = ["park", "create"];
    assert_eq!(
        actions(&entry(&tried), &before, &[old(), new(), kept()]),
        [always, "no shop_GREEN", "remove shop_GREEN", "give back shop_GREEN_kept"]
    );
    assert_eq!(
        actions(&entry(&["create", "stage"]), &staged, &[old(), new()]),
        [always, "no shop_GREEN", "clear GREEN", "remove shop_GREEN"]
    );
    // A version that was there before is not removed: it is put back where it was.
    assert_eq!(
        actions(&entry(&["unpark", "start", "stage"]), &staged, &[old(), new()]),
        [always, "no shop_GREEN", "clear GREEN", "stop shop_GREEN", "keep shop_GREEN"]
    );
}

#[test]
fn what_was_stopped_first_is_brought_back_before_held_visitors_are_let_go() {
    let old = Instance { running: false, ..instance("shop_BLUE", Slot::Blue, "old", Keep::Stopped) };
    let new = instance("shop_GREEN", Slot::Green, "new", Keep::Stopped);
    let held = |mut service: ServiceStatus| {
        let left = Duration::from_secs(9);
        service.paused = Some(PauseStatus { since: String::new(), waiting: 3, left });
        service
    };
    let before = held(service(Slot::Blue, SlotState::Starting, SlotState::Live, "new"));
    assert_eq!(
        actions(&entry(&["stop_first", "create", "stage"]), &before, &[old.clone(), new.clone()])[2..],
        ["clear GREEN", "remove shop_GREEN", "start shop_BLUE", "await health", "resume"]
    );
    let running = Instance { running: true, ..old.clone() };
    assert_eq!(
        actions(
            &entry(&["stop_first"]),
            &held(service(Slot::Blue, SlotState::Empty, SlotState::Live, "none")),
            &[running]
        ),
        ["always shop_BLUE", "resume"]
    );
    let after = held(service(Slot::Green, SlotState::Live, SlotState::Warm, "new"));
    let done = actions(&entry(&["stop_first", "create", "stage", "flip"]), &after, &[old, new]);
    assert_eq!(done, ["resume", "no shop_BLUE", "always shop_GREEN", "clear BLUE", "stop shop_BLUE"]);
}

#[test]
fn after_the_flip_it_is_finished_as_the_new_version_was_told() {
    let new = |keep| instance("shop_GREEN", Slot::Green, "new", keep);
    let old = || instance("shop_BLUE", Slot::Blue, "old", Keep::Stopped);
    let kept = || instance("shop_GREEN_kept", Slot::Green, "older", Keep::Stopped);
    let done = ["create", "stage", "flip"];
    let flipped = service(Slot::Green, SlotState::Live, SlotState::Warm, "new");
    assert_eq!(
        actions(&entry(&done), &flipped, &[old(), new(Keep::Stopped), kept()]),
        ["no shop_BLUE", "always shop_GREEN", "clear BLUE", "stop shop_BLUE", "remove shop_GREEN_kept"]
    );
    assert_eq!(
        actions(&entry(&done), &flipped, &[old(), new(Keep::None)]),
        ["no shop_BLUE", "always shop_GREEN", "clear BLUE", "stop shop_BLUE", "remove shop_BLUE"]
    );
    assert_eq!(actions(&entry(&done), &flipped, &[old(), new(Keep::Warm)]), ["no shop_BLUE", "always shop_GREEN"]);
    let draining = service(Slot::Green, SlotState::Live, SlotState::Draining, "new");
    assert_eq!(actions(&entry(&done), &draining, &[old(), new(Keep::Stopped)]), ["no shop_BLUE", "always shop_GREEN"]);
}

#[test]
fn every_replica_of_a_version_is_undone_and_finished_with_the_others() {
    let blue = |name| instance(name, Slot::Blue, "old", Keep::Stopped);
    let green = |name, deployment| instance(name, Slot::Green, deployment, Keep::Stopped);
    let before = service(Slot::Blue, SlotState::Empty, SlotState::Live, "none");
    let undone = |steps: &[&str], instances: &[Instance]| {
        let actions = actions(&entry(steps), &before, instances);
        actions
            .into_iter()
            .filter(|words| !words.starts_with("no ") && !words.starts_with("always "))
            .collect::<Vec<_>>()
    };
    // Killed between two renames: what was not parked yet is of the same version.
    let half = [blue("shop_BLUE"), green("shop_GREEN_kept", "older"), green("shop_GREEN_2", "older")];
    assert_eq!(undone(&["park"], &half), ["give back shop_GREEN_kept"]);
    // Killed after the first of its replicas was created.
    let tried = [green("shop_GREEN", "new"), green("shop_GREEN_kept", "older"), green("shop_GREEN_2_kept", "older")];
    assert_eq!(
        undone(&["park", "create"], &tried),
        ["remove shop_GREEN", "give back shop_GREEN_kept", "give back shop_GREEN_2_kept"]
    );
    assert_eq!(undone(&["park", "create"], &tried[1..]).len(), 2, "nothing was created yet");
    // A rollback that was killed when it had given one of two names back.
    let back = [green("shop_GREEN", "new"), green("shop_GREEN_2_kept", "new")];
    assert_eq!(undone(&["unpark"], &back), ["keep shop_GREEN"]);

    let flipped = service(Slot::Green, SlotState::Live, SlotState::Warm, "new");
    let all = [blue("shop_BLUE"), blue("shop_BLUE_2"), green("shop_GREEN", "new"), green("shop_GREEN_2_kept", "older")];
    assert_eq!(
        actions(&entry(&["create", "flip"]), &flipped, &all)[3..],
        ["clear BLUE", "stop shop_BLUE", "stop shop_BLUE_2", "remove shop_GREEN_2_kept"]
    );
}

#[test]
fn a_change_of_replicas_is_finished_where_the_proxy_has_taken_it_over_and_undone_where_not() {
    let instances = |count: usize| -> Vec<Instance> {
        ["shop_BLUE", "shop_BLUE_2", "shop_BLUE_3"][..count]
            .iter()
            .zip(1..)
            .map(|(name, replica)| Instance { replica, ..instance(name, Slot::Blue, "old", Keep::Stopped) })
            .collect()
    };
    let listed = |health: &[bool]| {
        let mut service = service(Slot::Blue, SlotState::Warm, SlotState::Live, "other");
        service.slots.blue.endpoints = instances(health.len())
            .into_iter()
            .zip(health)
            .map(|(instance, healthy)| EndpointStatus { address: instance.endpoint, healthy: *healthy, reason: None })
            .collect();
        service
    };
    let settled = |(from, to): (u32, u32), health: &[bool], count: usize| {
        let mut entry = entry(&["create", "endpoints"]);
        (entry.work.slot, entry.work.deployment) = (Slot::Blue, "old".to_owned());
        entry.work.scale = Some(Scale { from, to });
        let actions = actions(&entry, &listed(health), &instances(count));
        actions.into_iter().filter(|words| !words.starts_with("always ")).collect::<Vec<_>>()
    };
    // Up: created, but not given to the proxy; given, but not healthy; healthy.
    assert_eq!(settled((1, 3), &[true], 3), ["remove shop_BLUE_2", "remove shop_BLUE_3"]);
    assert_eq!(settled((1, 3), &[true, true, false], 3), ["endpoints 1", "remove shop_BLUE_2", "remove shop_BLUE_3"]);
    assert_eq!(settled((1, 3), &[true, true], 2), ["endpoints 1", "remove shop_BLUE_2"], "one was not created yet");
    assert!(settled((1, 3), &[true, true, true], 3).is_empty());
    // Down: nothing was done yet; taken out, but not stopped; one removed.
    assert!(settled((3, 1), &[true, true, true], 3).is_empty());
    assert_eq!(
        settled((3, 1), &[true], 3),
        ["stop shop_BLUE_2", "remove shop_BLUE_2", "stop shop_BLUE_3", "remove shop_BLUE_3"]
    );
    assert_eq!(settled((3, 1), &[true], 2), ["stop shop_BLUE_2", "remove shop_BLUE_2"]);
}

#[test]
fn the_state_is_told_in_one_sentence() {
    let before = service(Slot::Blue, SlotState::Empty, SlotState::Live, "none");
    let found = Found { entry: &entry(&["park", "create"]), service: Some(&before), instances: &[] };
    assert_eq!(
        found.sentence(),
        "switch to shop:2 by alice@laptop, begun then, was left open (last: create): it ended before its flip, BLUE is live"
    );
    let flipped = service(Slot::Green, SlotState::Live, SlotState::Draining, "new");
    let found = Found { entry: &entry(&["flip"]), service: Some(&flipped), instances: &[] };
    assert!(found.sentence().ends_with("it ended after its flip, and the old version still drains, GREEN is live"));
}

#[test]
fn what_was_warm_before_a_self_test_is_warm_again_and_nothing_else_is() {
    let old = || instance("shop_BLUE", Slot::Blue, "old", Keep::Warm);
    let copy = || instance("shop_GREEN", Slot::Green, "new", Keep::Warm);
    let parked = || instance("shop_GREEN_kept", Slot::Green, "older", Keep::Warm);
    let staged = service(Slot::Blue, SlotState::Ready, SlotState::Live, "new");
    let tried = entry(&["verify", "park", "create", "stage"]);
    let undone = ["clear GREEN", "remove shop_GREEN", "give back shop_GREEN_kept"];
    let all = [old(), copy(), parked()];
    assert_eq!(actions(&tried, &staged, &all)[2..], [&undone[..], &["warm GREEN"]].concat());
    // Not what was kept stopped, nor what no self-test took out.
    let stopped = [old(), copy(), Instance { running: false, ..parked() }];
    assert_eq!(actions(&tried, &staged, &stopped)[2..], undone);
    assert_eq!(actions(&entry(&["park", "create", "stage"]), &staged, &all)[2..], undone);
    // Cut off before anything was done about it, and behind its last step but one.
    let warm = || Instance { kept: false, ..instance("shop_GREEN", Slot::Green, "older", Keep::Warm) };
    let before = service(Slot::Blue, SlotState::Warm, SlotState::Live, "older");
    assert!(!actions(&entry(&["verify"]), &before, &[old(), warm()]).contains(&"warm GREEN".to_owned()));
    let cleared = service(Slot::Blue, SlotState::Empty, SlotState::Live, "none");
    assert_eq!(actions(&tried, &cleared, &[old(), warm()]).last().unwrap(), "warm GREEN");
}
