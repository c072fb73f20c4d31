//! `with = [...]`: services that are switched together, and together not.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Ended, Load, Site, Started, client, load};

use crate::programs::PROGRAMS;

/// A site with a project of two services that go together, `shop` with `api`.
struct Pair {
    site: Site,
    folder: TempDir,
    ports: [u16; 2],
}

impl Pair {
    async fn new() -> Self {
        let site = Site::new(PROGRAMS);
        site.up().await;
        let port = || TcpListener::bind("127.0.0.1:0").unwrap();
        let both = (port(), port());
        let ports = [both.0.local_addr().unwrap().port(), both.1.local_addr().unwrap().port()];
        let pair = Self { site, folder: tempfile::tempdir().unwrap(), ports };
        let v1 = pair.image("v1", "");
        pair.describe(&v1, "");
        pair
    }

    /// Writes an image that both can run: `VERSION-SERVICE` answers, behind a line of its own.
    fn image(&self, version: &str, line: &str) -> String {
        self.site.script(version, &format!("{line}\nexec '{}' {version}-$ROLE 50", PROGRAMS.app))
    }

    fn describe(&self, image: &str, of_api: &str) {
        let [shop, api] = self.ports;
        let text = format!(
            "[services.shop]\nimage = \"{image}\"\nport = {shop}\ndomains = [\"shop.test\"]\nbake = \"0s\"\nwith = [\"api\"]\n\
             env = {{ ROLE = \"shop\" }}\n[services.api]\nport = {api}\ndomains = [\"api.test\"]\nbake = \"0s\"\n\
             env = {{ ROLE = \"api\" }}\n{of_api}\n"
        );
        fs::write(self.folder.path().join("bluegreen.toml"), text).unwrap();
    }

    fn start(&self, words: &[&str]) -> Started {
        self.site.start_in(self.folder.path(), words)
    }

    async fn run(&self, words: &[&str]) -> Ended {
        self.start(words).end().await
    }

    /// Which version each of them answers with.
    async fn answered(&self) -> [String; 2] {
        let mut versions = [const { String::new() }; 2];
        for (version, host) in versions.iter_mut().zip(["shop.test", "api.test"]) {
            let mut visitor = client(self.site.address()).await.unwrap();
            let answer = visitor.get(host, "/").await.unwrap().unwrap();
            answer.field("x-version").unwrap_or_default().clone_into(version);
        }
        versions
    }
}

fn code(ended: &Ended, code: i32) {
    assert_eq!(ended.code, Some(code), "{}\n{:?}", ended.talk, ended.events);
}

/// What a deployment of one would change is told of those that go with it, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_of_one_has_those_that_go_with_it() {
    let pair = Pair::new().await;
    let planned = async |words: &[&str]| {
        let plan = pair.run(&[&["plan"], words].concat()).await;
        code(&plan, 0);
        plan.events[0]["services"].as_array().unwrap().clone()
    };
    let both = planned(&["shop"]).await;
    let names: Vec<&Value> = both.iter().map(|one| &one["service"]).collect();
    assert_eq!((names, &both[0]["with"]), (vec![&json!("shop"), &json!("api")], &json!(["api"])), "{both:?}");
    // By the image that the switch of both gives it, as the file has none.
    assert_eq!(both[1]["changed"]["image"], both[0]["changed"]["image"], "{both:?}");
    assert!(both[1]["changed"]["image"][1].as_str().is_some_and(|image| image.ends_with("/v1")), "{both:?}");
    let alone = planned(&["api"]).await;
    assert_eq!((alone.len(), &alone[0]["service"]), (1, &json!("api")), "{alone:?}");
    code(&pair.run(&["switch", "shop"]).await, 0);
    let changed: Vec<Value> = planned(&["shop"]).await.into_iter().map(|one| one["changed"].clone()).collect();
    assert_eq!(changed, [json!({}), json!({})]);
    let mut plain = pair.site.plain(&["plan", "shop"]);
    let words = plain.current_dir(pair.folder.path()).output().await.unwrap().stdout;
    let words = String::from_utf8(words).unwrap();
    assert!(words.contains("shop: nothing to change, live on BLUE; goes with api\napi: nothing to change"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_become_live_together_are_gone_back_to_together_and_one_that_went_its_own_way_stays() {
    let pair = Pair::new().await;
    let first = pair.run(&["switch", "shop"]).await;
    code(&first, 0);
    assert!(first.talk.contains("shop goes with api"), "{}", first.talk);
    assert_eq!(pair.answered().await, ["v1-shop", "v1-api"]);
    let running = load(pair.site.address(), Load { posts: 0, slow: 0, ..Load::default() });
    let v2 = pair.image("v2", "");
    // The image is typed for the one, and the other has none of its own.
    let second = pair.run(&["switch", "shop", "--image", &v2]).await;
    code(&second, 0);
    assert_eq!(pair.answered().await, ["v2-shop", "v2-api"]);
    running.stop().await.assert_none_failed();
    let place = |wanted: &Value| second.events.iter().position(|event| *wanted == *event);
    let of = |event: &str, service: &str| {
        let found = second.events.iter().find(|one| one["event"] == event && one["service"] == service);
        found.unwrap_or_else(|| panic!("{event} of {service} in {:?}", second.events)).clone()
    };
    for (flipped, healthy) in [("shop", "api"), ("api", "shop")] {
        let both = (place(&of("healthy", healthy)), place(&of("flipped", flipped)));
        assert!(both.0 < both.1, "no flip before all are healthy: {:?}", second.events);
    }
    let report = second.report();
    let with = &report["with"][0];
    assert_eq!((&report["service"], &with["service"]), (&json!("shop"), &json!("api")), "{report}");
    assert_eq!(with["report"]["deployment"], report["deployment"], "one id for both");
    assert_eq!((&with["report"]["new"]["image"], &with["taken_back"]), (&json!(v2), &json!(false)));

    let back = pair.run(&["rollback", "shop"]).await;
    code(&back, 0);
    assert_eq!(back.report()["with"][0]["report"]["exit_code"], 0, "{:?}", back.report());
    assert_eq!(pair.answered().await, ["v1-shop", "v1-api"]);
    // Forth and back again, by history and not by the file.
    code(&pair.site.bgctl(&["rollback", "shop"]).await, 0);
    assert_eq!(pair.answered().await, ["v2-shop", "v2-api"]);
    code(&pair.run(&["rollback", "api"]).await, 0);
    assert_eq!(pair.answered().await, ["v2-shop", "v1-api"], "the one that goes with another can go alone");
    let back = pair.run(&["rollback", "shop"]).await;
    code(&back, 0);
    assert!(back.talk.contains("api stays as it is: it was switched by itself since"), "{}", back.talk);
    assert_eq!(pair.answered().await, ["v1-shop", "v1-api"]);

    let v3 = pair.image("v3", "");
    let dry = pair.run(&["switch", "shop", "--image", &v3, "--dry-run"]).await;
    code(&dry, 0);
    assert_eq!(dry.events.len(), 2, "{:?}", dry.events);
    assert_eq!(pair.answered().await, ["v1-shop", "v1-api"]);
    code(&pair.run(&["switch", "shop", "--image", &v3, "--alone"]).await, 0);
    assert_eq!(pair.answered().await, ["v3-shop", "v1-api"]);
    code(&pair.run(&["switch", "shop", "--image", &v2, "--no-flip"]).await, 0);
    assert_eq!(pair.answered().await, ["v3-shop", "v1-api"]);
    code(&pair.run(&["switch", "shop", "--continue"]).await, 0);
    assert_eq!(pair.answered().await, ["v2-shop", "v2-api"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_can_not_be_prepared_none_is_flipped_and_nothing_is_left() {
    let pair = Pair::new().await;
    code(&pair.run(&["switch", "shop"]).await, 0);
    let before = pair.site.processes();
    for role in ["api", "shop"] {
        let image = pair.image(&format!("bad-{role}"), &format!("[ $ROLE = {role} ] && exit 3"));
        for more in [&[][..], &["--no-flip"]] {
            let failed = pair.run(&[&["switch", "shop", "--image", &image], more].concat()).await;
            code(&failed, 5);
            assert!(failed.talk.contains("exited with code 3"), "{}", failed.talk);
            assert!(failed.talk.contains("no service has the new version"), "{}", failed.talk);
            assert!(failed.events.iter().all(|event| event["event"] != "flipped"), "{:?}", failed.events);
            assert_eq!(pair.answered().await, ["v1-shop", "v1-api"]);
            assert_eq!(pair.site.processes(), before);
            for service in ["shop", "api"] {
                let status = pair.site.status(service).await;
                assert_eq!(status["slots"]["green"]["state"], "empty", "{status}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_is_flipped_back_the_other_goes_back_too() {
    let pair = Pair::new().await;
    code(&pair.run(&["switch", "shop"]).await, 0);
    let v1 = pair.image("v1", "");
    pair.describe(&v1, "");
    let text = fs::read_to_string(pair.folder.path().join("bluegreen.toml")).unwrap();
    let (shop, api) = text.split_once("[services.api]").unwrap();
    let api = api.replace("bake = \"0s\"", "bake = \"30s\"");
    fs::write(pair.folder.path().join("bluegreen.toml"), format!("{shop}[services.api]{api}")).unwrap();
    let v2 = pair.image("v2", "");
    let mut switch = pair.start(&["switch", "shop", "--image", &v2]);
    for _ in 0..2 {
        switch.until("flipped").await;
    }
    assert_eq!(pair.answered().await, ["v2-shop", "v2-api"]);
    pair.site.kill(" v2-api ");
    let ended = switch.end().await;
    code(&ended, 4);
    assert!(ended.talk.contains("shop: another service failed, so this one goes back"), "{}", ended.talk);
    assert_eq!(pair.answered().await, ["v1-shop", "v1-api"]);
    let report = ended.report();
    assert_eq!((&report["taken_back"], &report["exit_code"]), (&json!(true), &json!(4)), "{report}");
    assert_eq!(report["with"][0]["report"]["exit_code"], 4, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_at_once_one_works_and_the_other_says_who_has_the_lock() {
    let pair = Pair::new().await;
    code(&pair.run(&["switch", "shop"]).await, 0);
    let (v2, v3) = (pair.image("v2", "sleep 1"), pair.image("v3", "sleep 1"));
    let one = pair.start(&["switch", "shop", "--image", &v2]);
    let other = pair.start(&["switch", "shop", "--image", &v3]);
    let ended = [one.end().await, other.end().await];
    let mut codes = ended.each_ref().map(|ended| ended.code.unwrap());
    codes.sort_unstable();
    assert_eq!(codes, [0, 6], "{ended:?}");
    let [shop, api] = pair.answered().await;
    assert_eq!(shop.split('-').next(), api.split('-').next());
}

/// The usual pair: a web service and a worker of the same image that takes no requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_with_its_web_service() {
    let pair = Pair::new().await;
    let write = |image: &str| {
        let port = pair.ports[0];
        let text = format!(
            "[services.shop]\nimage = \"{image}\"\nport = {port}\ndomains = [\"shop.test\"]\nbake = \"0s\"\nwith = [\"mailer\"]\n\
             env = {{ ROLE = \"shop\" }}\n[services.mailer]\nno_port = true\nenv = {{ ROLE = \"mailer\" }}\n"
        );
        fs::write(pair.folder.path().join("bluegreen.toml"), text).unwrap();
    };
    let image = |name: &str| {
        pair.site.script(name, &format!("[ $ROLE = mailer ] && exec sleep 1000\nexec '{}' {name} 50", PROGRAMS.app))
    };
    for name in ["w1", "w2"] {
        write(&image(name));
        let deployed = pair.run(&["deploy", "--service", "shop"]).await;
        code(&deployed, 0);
        let mailer = pair.site.status("mailer").await;
        let live = mailer["live"].as_str().unwrap();
        assert!(mailer["slots"][live]["image"].as_str().unwrap().ends_with(name), "{mailer}");
    }
    let mut visitor = client(pair.site.address()).await.unwrap();
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().field("x-version"), Some("w2"));
    // It exits before it has run for 5 s, while the web service is healthy at once.
    let bad =
        pair.site.script("w3", &format!("[ $ROLE = mailer ] && sleep 1 && exit 9\nexec '{}' w3 50", PROGRAMS.app));
    write(&bad);
    let began = std::time::Instant::now();
    code(&pair.run(&["deploy", "--service", "shop"]).await, 5);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(visitor.get("shop.test", "/").await.unwrap().unwrap().field("x-version"), Some("w2"));
}
