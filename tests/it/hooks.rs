//! Commands around a deployment, and commands with a service's settings.

use std::path::Path;
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

/// The lines that hooks have left in a file.
fn left(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("ran")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smoke_test_reaches_the_new_version_before_visitors_do_and_takes_it_back_where_it_fails() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    let path = file.to_str().unwrap();
    let hooks = |lines: &str| std::fs::write(&file, format!("[services.shop.hooks]\n{lines}\n")).unwrap();
    let switch = async |version: &str, more: &[&str]| {
        let image = site.version(version, QUICK);
        site.switch(&image, &[&["--file", path], more].concat()).end().await
    };
    // The page of the new version is asked for, while there is nothing live yet, or another one.
    let smoke = "curl -fsS -D - http://$BG_ADDRESS/ -o /dev/null | grep -i x-version | tr -d '\\r' >> ran; \
                 echo $BG_SERVICE $BG_SLOT >> ran; test -n $BG_DEPLOYMENT";
    hooks(&format!(
        "before_flip = \"\"\"{smoke}\"\"\"\nafter = \"echo after $BG_SLOT >> ran\"\non_failure = \"echo failed >> ran\""
    ));
    let first = switch("v1", &[]).await;
    assert_eq!(first.code, Some(0), "{}", first.talk);
    let again = switch("v2", &[]).await;
    assert_eq!(again.code, Some(0), "{}", again.talk);
    let ran = left(folder.path()).to_lowercase();
    assert_eq!(ran, "x-version: v1\nshop blue\nafter blue\nx-version: v2\nshop green\nafter green\n");

    // One that fails, and one that takes too long: the new version is gone, and the first failure is the one that is told.
    let load = load(site.address(), Load { pause: Duration::from_millis(5), ..Load::default() });
    hooks("before_flip = \"echo no price >&2; exit 3\"\non_failure = \"echo $BG_EXIT_CODE: $BG_ERROR >> ran; exit 1\"");
    let failed = switch("v3", &[]).await;
    assert_eq!((failed.code, &failed.report()["exit_code"]), (Some(9), &json!(9)), "{}", failed.talk);
    for words in ["before_flip: `echo no price >&2; exit 3` ended with code 3", "| no price", "traffic still on GREEN"]
    {
        assert!(failed.talk.contains(words), "`{words}` is not said in: {}", failed.talk);
    }
    assert!(failed.talk.contains("on_failure: ") && failed.talk.contains("ended with code 1"), "{}", failed.talk);
    assert!(left(folder.path()).ends_with("9: before_flip: `echo no price >&2; exit 3` ended with code 3\n"));
    hooks("before_flip = \"sleep 77 & wait\"\ntimeout = \"300ms\"");
    let late = switch("v3", &[]).await;
    assert_eq!(late.code, Some(9), "{}", late.talk);
    assert!(late.talk.contains("did not end within 300ms"), "{}", late.talk);
    let sleeps = std::process::Command::new("pgrep").args(["-f", "^sleep 77$"]).output().unwrap();
    assert!(sleeps.stdout.is_empty(), "what the hook has started ends with it");
    assert!(site.processes().iter().all(|(_, line)| !line.contains("v3")), "{:?}", site.processes());
    assert_eq!(answered(&site).await, "v2");
    load.stop().await.assert_none_failed();

    // What it writes need be no text, and what it leaves behind is not waited for: it only holds the output open.
    hooks("before_flip = \"printf 'caf\\\\351\\\\n'; sleep 33 & echo $! > pid\"\ntimeout = \"5s\"");
    let odd = switch("v2", &[]).await;
    assert_eq!(odd.code, Some(0), "{}", odd.talk);
    assert!(odd.talk.contains("| caf\u{fffd}"), "{}", odd.talk);
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();

    // One that goes after undoes nothing, and is told.
    hooks("before_flip = \"echo in $BG_SLOT of $BG_ADDRESS\"\nbefore_flip_in = \"container\"\nafter = \"exit 5\"");
    let after = switch("v3", &[]).await;
    assert_eq!(after.code, Some(0), "{}", after.talk);
    assert!(after.talk.contains("| in green of 127.0.0.1:"), "{}", after.talk);
    let why = "after: `exit 5` ended with code 5";
    assert!(after.talk.contains(why) && after.report()["after_failed"] == why, "{after:?}");
    assert_eq!(answered(&site).await, "v3");

    // A flip to what is staged comes after the same test; what fails it stays staged.
    hooks("before_flip = \"exit 6\"\nafter = \"echo after >> ran\"");
    let before = left(folder.path());
    let staged = switch("v4", &["--no-flip"]).await;
    assert_eq!((staged.code, left(folder.path())), (Some(0), before), "{}", staged.talk);
    let refused = site.bgctl(&["--file", path, "switch", "shop", "--continue"]).await;
    assert_eq!((refused.code, answered(&site).await), (Some(9), "v3".to_owned()), "{}", refused.talk);
    hooks("before_flip = \"true\"");
    let gone_on = site.bgctl(&["--file", path, "switch", "shop", "--continue", "--bake", "0s"]).await;
    assert_eq!((gone_on.code, answered(&site).await), (Some(0), "v4".to_owned()), "{}", gone_on.talk);
}
