//! `bgctl top` on a terminal, and where there is none.

use std::time::Duration;

use rustix::process::Signal;
use tests::{Load, Site, Terminal, load};

use crate::programs::PROGRAMS;

const QUICK: Duration = Duration::from_millis(50);

fn top(site: &Site, more: &[&str]) -> Terminal {
    Terminal::start(site.plain(&[&["top", "--interval", "100ms"], more].concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_shows_a_switch_under_load_and_gives_the_terminal_back() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    assert_eq!(site.switch(&site.version("v1", QUICK), &[]).end().await.code, Some(0));
    let load = load(site.address(), Load::default());
    let mut terminal = top(&site, &[]);
    terminal.shows("shop").await;
    terminal.shows("connections").await;
    // What was done before, and then what is being done.
    terminal.shows("switch to").await;
    assert_eq!(site.switch(&site.version("v2", QUICK), &["--bake", "300ms"]).end().await.code, Some(0));
    terminal.shows("GREEN").await;
    terminal.shows("BLUE drains").await;
    terminal.press("jkq");
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(0), "{shown}");
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_it_ends_the_terminal_is_as_it_was() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    let mut interrupted = top(&site, &[]);
    interrupted.shows("no services yet").await;
    interrupted.press("\u{3}");
    assert_eq!(interrupted.end().await.0, Some(130));
    let terminated = top(&site, &[]);
    terminated.shows("no services yet").await;
    terminated.signal(Signal::TERM);
    assert_eq!(terminated.end().await.0, Some(143));
    // A proxy that goes away is no end.
    let mut without = top(&site, &[]);
    without.shows("no services yet").await;
    site.kill("bgproxy");
    without.shows("trying again").await;
    without.press("q");
    assert_eq!(without.end().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_it_prints_one_picture_where_that_is_asked_for() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    assert_eq!(site.switch(&site.version("v1", QUICK), &[]).end().await.code, Some(0));
    let refused = site.bgctl_plain(&["top"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let talk = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(talk.contains("status --json") && talk.contains("--once"), "{talk}");
    let load = load(site.address(), Load::default());
    let once = site.bgctl_plain(&["top", "--once", "--interval", "300ms"]).await;
    load.stop().await.assert_none_failed();
    let picture = String::from_utf8(once.stdout).unwrap();
    assert_eq!(once.status.code(), Some(0), "{picture}");
    let line = picture.lines().find(|line| line.starts_with("shop")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[..4], ["shop", "BLUE", "live", "1/1"], "{picture}");
    assert!(cells[4].parse::<f64>().unwrap() > 0.0 && cells[5].ends_with('s'), "{picture}");
    assert_eq!(cells[6], "0", "{picture}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_completes_the_names_of_services_that_there_are() {
    let site = Site::new(PROGRAMS);
    site.up().await;
    assert_eq!(site.switch(&site.version("v1", QUICK), &[]).end().await.code, Some(0));
    let cache = tempfile::tempdir().unwrap();
    let script = cache.path().join("script");
    std::fs::write(&script, site.bgctl_plain(&["completions", "bash"]).await.stdout).unwrap();
    // As bash does it: the line so far, and what it is answered.
    let bash = format!(
        "bgctl() {{ '{}' \"$@\"; }}; source '{}'; COMP_WORDS=(bgctl --engine process rollback s); COMP_CWORD=4; \
         _bgctl bgctl s rollback; echo \"${{COMPREPLY[@]}}\"",
        PROGRAMS.bgctl,
        script.display()
    );
    let complete = async || {
        let output =
            site.around("bash").args(["-c", &bash]).env("XDG_CACHE_HOME", cache.path()).output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(complete().await, "shop");
    // Names that were seen a moment ago need no proxy.
    site.kill("bgproxy");
    assert_eq!(complete().await, "shop");
}
