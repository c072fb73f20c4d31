//! Commands around a deployment, and commands with a service's settings.

use std::time::Duration;

use serde_json::json;
use tests::{Load, Site, client, load};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(100);

async fn answered(site: &Site) -> String {
    let mut visitor = client(site.address()).await.unwrap();
    visitor.get("shop.test", "/").await.unwrap().unwrap().field("x-version").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_goes_before_each_new_version_and_one_that_fails_leaves_the_old_one_serving() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let migrate = format!("echo migrating $WHAT; echo $WHAT >> '{}'", ran.display());
    let v1 = site.version("v1", QUICK);
    let first = site.switch(&v1, &["--before", &migrate, "--env", "WHAT=one"]).end().await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    assert!(first.talk.contains("| migrating one"), "{}", first.talk);
    // Once a switch, and kept like every other setting.
    let second = site.switch(&site.version("v2", QUICK), &["--env", "WHAT=two"]).end().await;
    assert_eq!(second.code, Some(0), "{}", second.talk);
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "one\ntwo\n");
    let load = load(site.address(), Load { pause: Duration::from_millis(5), ..Load::default() });
    let failing = "echo the table is gone >&2; exit 3";
    let third = site.switch(&site.version("v3", QUICK), &["--before", failing]).end().await;
    assert_eq!((third.code, &third.report()["exit_code"]), (Some(9), &json!(9)), "{}", third.talk);
    for words in ["ended with code 3", "| the table is gone", "traffic still on GREEN"] {
        assert!(third.talk.contains(words), "`{words}` is not said in: {}", third.talk);
    }
    let late =
        site.switch(&site.version("v3", QUICK), &["--before", "sleep 60", "--before-timeout", "300ms"]).end().await;
    assert_eq!(late.code, Some(9), "{}", late.talk);
    assert!(late.talk.contains("did not end within 300ms"), "{}", late.talk);
    let unknown = site.switch(&site.version("v3", QUICK), &["--before", "no-such-program"]).end().await;
    assert_eq!(unknown.code, Some(9), "{}", unknown.talk);
    assert_eq!(answered(&site).await, "v2");
    load.stop().await.assert_none_failed();
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert!(back.talk.contains("a rollback undoes no migration"), "{}", back.talk);
    assert_eq!((back.code, answered(&site).await), (Some(0), "v1".to_owned()));
    let none = site.switch(&site.version("v4", QUICK), &["--before", ""]).end().await;
    assert_eq!((none.code, std::fs::read_to_string(&ran).unwrap().as_str()), (Some(0), "one\ntwo\n"), "{}", none.talk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_off_command_has_the_services_settings_and_its_exit_code_is_ours() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let switched = site.switch(&site.version("v1", QUICK), &["--env", "COLOUR=green"]).end().await;
    assert_eq!(switched.code, Some(0), "{}", switched.talk);
    let ran = site.bgctl_plain(&["run", "shop", "--", "sh", "-c", "echo $COLOUR; exit 7"]).await;
    assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stdout).as_ref()), (Some(7), "green\n"), "{ran:?}");
    let inside = site.bgctl(&["exec", "shop", "--", "true"]).await;
    assert_eq!(inside.code, Some(1), "{}", inside.talk);
    assert!(inside.talk.contains("a plain process has no inside"), "{}", inside.talk);
    let nobody = site.bgctl(&["run", "nobody", "--", "true"]).await;
    assert_eq!(nobody.code, Some(1), "{}", nobody.talk);
}
