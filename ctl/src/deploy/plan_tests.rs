//! Each situation that a switch or a rollback can find, and what it makes of it.

use serde_json::json;

use config::project::Hooks;

use super::*;
use crate::deploy::settings::Keep;
use crate::engine::RunSettings;

fn service(live: Option<&str>, blue: &str, green: &str) -> ServiceStatus {
    let slot = |state: &str| {
        let endpoints = if state == "empty" { json!([]) } else { json!([{"address": "x:80", "healthy": true}]) };
        json!({"state": state, "endpoints": endpoints, "in_flight": 0, "image": null, "deployment": null, "since": null})
    };
    let value = json!({
        "name": "shop", "generation": 3, "origin": "admin", "live": live,
        "slots": {"blue": slot(blue), "green": slot(green)},
        "settings": {"domains": ["shop.example"]},
    });
    serde_json::from_value(value).unwrap()
}

fn instance(slot: Slot, kept: bool, running: bool) -> Instance {
    let name = format!("shop_{slot}{}", if kept { "_kept" } else { "" });
    Instance {
        id: name.clone(),
        endpoint: format!("{name}:80").parse().unwrap(),
        name,
        service: "shop".parse().unwrap(),
        slot,
        replica: 1,
        kept,
        running,
        deployment: "d".to_owned(),
        image: "shop:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        run: RunSettings::default(),
        notes: Vec::new(),
        created: String::new(),
    }
}

/// An instance of a deployment of its own, as the number `replica` of its slot.
fn replica(slot: Slot, number: u32, kept: bool, deployment: &str) -> Instance {
    let name = format!("shop_{slot}_{number}{}", if kept { "_kept" } else { "" });
    Instance {
        id: name.clone(),
        name,
        replica: number,
        deployment: deployment.to_owned(),
        ..instance(slot, kept, !kept)
    }
}

fn plan_for(service: Option<&ServiceStatus>, instances: &[Instance]) -> Plan {
    switch(&Situation { service, instances }, &Settings::default())
}

#[test]
fn the_first_version_goes_into_blue() {
    let plan = plan_for(None, &[]);
    assert_eq!((plan.live, plan.slot, plan.steps), (None, Slot::Blue, vec![Step::Create(1)]));
}

#[test]
fn the_proxys_truth_decides_which_slot_is_idle_whatever_runs() {
    let green_lives = service(Some("green"), "empty", "live");
    let running_blue = instance(Slot::Blue, false, true);
    let plan = plan_for(Some(&green_lives), std::slice::from_ref(&running_blue));
    assert_eq!(plan.slot, Slot::Blue);
    assert_eq!(plan.steps, [Step::Park(running_blue), Step::Create(1)]);
}

#[test]
fn the_previous_version_is_kept_while_the_new_one_is_tried_and_goes_after_success() {
    let status = service(Some("blue"), "live", "empty");
    let instances = [instance(Slot::Blue, false, true), instance(Slot::Green, false, false)];
    let plan = plan_for(Some(&status), &instances);
    assert_eq!(plan.steps, [Step::Park(instances[1].clone()), Step::Create(1)]);
    assert_eq!((plan.old.as_slice(), plan.stale.as_slice()), (&instances[..1], &instances[1..]));
}

#[test]
fn what_a_killed_run_left_is_removed_and_the_kept_version_stays() {
    let status = service(Some("blue"), "live", "starting");
    let leftover = Instance { deployment: "tried".to_owned(), ..instance(Slot::Green, false, true) };
    let kept = instance(Slot::Green, true, false);
    let instances = [instance(Slot::Blue, false, true), leftover.clone(), kept.clone()];
    let plan = plan_for(Some(&status), &instances);
    assert_eq!(plan.steps, [Step::RemoveLeftover(leftover.clone()), Step::Create(1)]);
    assert_eq!(plan.stale, std::slice::from_ref(&kept));
    let back = rollback(&Situation { service: Some(&status), instances: &instances });
    let Back::Revive(plan, revived) = back else { panic!("{back:?}") };
    assert_eq!(revived, std::slice::from_ref(&kept));
    assert_eq!(plan.steps, [Step::RemoveLeftover(leftover), Step::Unpark(kept), Step::Start]);
}

#[test]
fn a_slot_that_still_drains_is_waited_for() {
    let status = service(Some("blue"), "live", "draining");
    let plan = plan_for(Some(&status), &[instance(Slot::Green, false, true)]);
    assert_eq!(plan.steps[0], Step::AwaitDrain(Slot::Green));
}

#[test]
fn a_warm_slot_is_flipped_back_to_and_a_stopped_one_is_started() {
    let warm = service(Some("green"), "warm", "live");
    let running = [instance(Slot::Blue, false, true), instance(Slot::Green, false, true)];
    assert!(matches!(rollback(&Situation { service: Some(&warm), instances: &running }), Back::Flip(_)));
    let stopped = [instance(Slot::Blue, false, false), instance(Slot::Green, false, true)];
    let back = rollback(&Situation { service: Some(&warm), instances: &stopped });
    assert!(matches!(back, Back::Revive(ref plan, _) if plan.steps == [Step::Start]), "{back:?}");
    let addresses = Situation { service: Some(&warm), instances: &[] };
    assert!(matches!(rollback(&addresses), Back::Flip(_)));
}

#[test]
fn without_an_instance_the_previous_image_is_used_and_without_that_nothing() {
    let status = service(Some("blue"), "live", "empty");
    let mut live = instance(Slot::Blue, false, true);
    assert_eq!(rollback(&Situation { service: Some(&status), instances: &[live.clone()] }), Back::Nowhere);
    live.notes.push((PREVIOUS.to_owned(), "shop:0".to_owned()));
    let back = rollback(&Situation { service: Some(&status), instances: &[live] });
    assert_eq!(back, Back::Image("shop:0".to_owned()));
}

#[test]
fn the_next_deployment_starts_from_the_live_slots_settings_and_the_routes_in_force() {
    let status = service(Some("blue"), "live", "empty");
    let mut live = instance(Slot::Blue, false, true);
    live.notes.push(Settings { keep: Keep::Warm, port: Some(9), ..Settings::default() }.note());
    live.run.env.push("A=1".to_owned());
    let settings = Situation { service: Some(&status), instances: &[live] }.settings();
    assert_eq!((settings.keep, settings.port, settings.run.env.len()), (Keep::Warm, Some(9), 1));
    assert_eq!(settings.routes, status.settings);
}

#[test]
fn all_replicas_of_a_version_are_parked_and_gone_back_to_together() {
    let status = service(Some("blue"), "live", "empty");
    let live: Vec<Instance> = [1, 2].map(|number| replica(Slot::Blue, number, false, "live")).into();
    let before: Vec<Instance> = [1, 2, 10].map(|number| replica(Slot::Green, number, false, "before")).into();
    let instances: Vec<Instance> = live.iter().chain(before.iter().rev()).cloned().collect();
    let situation = Situation { service: Some(&status), instances: &instances };
    assert_eq!(situation.settings().replicas, 2, "as many as the live slot has, however it came by them");
    let plan = switch(&situation, &Settings { replicas: 3, ..Settings::default() });
    let parked: Vec<Step> = before.iter().cloned().map(Step::Park).chain([Step::Create(3)]).collect();
    assert_eq!((plan.steps, plan.old, plan.stale.len()), (parked, live, 3));
    let Back::Revive(plan, previous) = rollback(&situation) else { panic!() };
    assert_eq!((plan.steps, previous), (vec![Step::Start], before));
}

#[test]
fn a_version_of_which_only_some_replicas_are_kept_is_one_version_still() {
    let status = service(Some("blue"), "live", "empty");
    // A run was killed between two renames, or after the first of its own replicas was created.
    let half = [replica(Slot::Green, 1, true, "before"), replica(Slot::Green, 2, false, "before")];
    let live = replica(Slot::Blue, 1, false, "live");
    let instances = [std::slice::from_ref(&live), &half[..]].concat();
    let situation = Situation { service: Some(&status), instances: &instances };
    let plan = switch(&situation, &Settings::default());
    assert_eq!(plan.steps, [Step::Park(half[1].clone()), Step::Create(1)]);
    assert_eq!(plan.stale, half);
    let Back::Revive(plan, previous) = rollback(&situation) else { panic!() };
    assert_eq!((plan.steps, previous), (vec![Step::Unpark(half[0].clone()), Step::Start], half.to_vec()));

    let tried = replica(Slot::Green, 1, false, "tried");
    let instances = [&[live, tried.clone()], &half[..]].concat();
    let plan = switch(&Situation { service: Some(&status), instances: &instances }, &Settings::default());
    assert_eq!(plan.steps, [Step::RemoveLeftover(tried), Step::Park(half[1].clone()), Step::Create(1)]);
}

#[test]
fn what_can_not_run_beside_another_is_stopped_before_the_command_that_goes_before() {
    let status = service(Some("blue"), "live", "warm");
    let live = replica(Slot::Blue, 1, false, "live");
    let warm = replica(Slot::Green, 1, false, "before");
    let instances = [live.clone(), warm.clone()];
    let situation = Situation { service: Some(&status), instances: &instances };
    let settings = Settings { stop_first: true, before: Some("migrate".to_owned()), ..Settings::default() };
    let word = |word: &str| Some(word.to_owned());
    let hooks = Hooks { before_flip: word("smoke"), after: word("tell"), ..Hooks::default() };
    let plan = switch(&situation, &settings);
    assert_eq!(plan.steps, [Step::StopFirst(instances.to_vec()), Step::Park(warm), Step::Create(1)]);
    assert!(
        plan.stops_first() && plan.sentences(&settings, &hooks)[1] == "run before: migrate",
        "{:?}",
        plan.sentences(&settings, &hooks)
    );
    // There is nothing to stop before the first version.
    let first = switch(&Situation { service: None, instances: &[] }, &settings);
    assert!(!first.stops_first() && first.sentences(&settings, &hooks)[0] == "run before: migrate");
    let told = first.sentences(&settings, &hooks);
    let at = |line: &str| told.iter().position(|told| told == line).unwrap();
    assert!(at("run before the flip: smoke") < at("flip to BLUE") && at("flip to BLUE") < at("run after it: tell"));

    let status = service(Some("blue"), "live", "empty");
    let stopped = Instance { running: false, notes: vec![settings.note()], ..replica(Slot::Green, 1, false, "before") };
    let instances = [live.clone(), stopped];
    let Back::Revive(plan, _) = rollback(&Situation { service: Some(&status), instances: &instances }) else {
        panic!()
    };
    assert_eq!(plan.steps, [Step::StopFirst(vec![live]), Step::Start]);
}
