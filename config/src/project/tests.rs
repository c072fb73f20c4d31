//! What `bluegreen.toml` means, and what is said of a wrong one.

use super::*;
use crate::edge::file as edge;

fn read_for(target: Option<&str>, text: &str) -> Result<Project, Vec<Problem>> {
    let judge = |key: &str, text: &str| match (key, text) {
        ("memory", "much") => Err("`much` is no size".to_owned()),
        _ => Ok(()),
    };
    let variable = |name: &str| (name == "SET").then(|| "value".to_owned());
    parse(&Source::new(FILE, text), Reading { judge: &judge, variable: &variable, target })
}

fn read(text: &str) -> Result<Project, Vec<Problem>> {
    read_for(None, text)
}

fn problems(text: &str) -> Vec<String> {
    read(text).unwrap_err().iter().map(ToString::to_string).collect()
}

/// Anything goes, and every variable is there.
const FREE: Reading<'_> =
    Reading { judge: &|_, _| Ok(()), variable: &|name| Some(name.to_ascii_lowercase()), target: None };

#[test]
fn the_examples_load_and_the_full_one_has_every_key() {
    for name in ["bluegreen-minimal.toml", "bluegreen.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let project = load(&path, FREE).unwrap_or_else(|problems| panic!("{}", problems[0].render()));
        assert!(!project.services.is_empty() && check(&path, FREE).is_empty(), "{name}");
    }
    let full = include_str!("../../../examples/bluegreen.toml");
    let tables =
        [schema::TOP, schema::PROXY, schema::LIMITS, schema::LOG, schema::SERVICE, schema::HOOKS, schema::OPTIONS];
    for key in tables.into_iter().flatten() {
        let is_there = full.contains(&format!("\n{} = ", key.name)) || full.contains(&format!(".{}]", key.name));
        assert!(is_there, "examples/bluegreen.toml lacks `{}`", key.name);
    }
}

#[test]
fn every_key_is_in_the_schema_and_on_its_page_and_the_parser_knows_no_other() {
    let page = include_str!("../../../docs/bluegreen-toml.md");
    let reference = include_str!("../../../docs/config-reference.md");
    let schema = schema::schema();
    let service = &schema["properties"]["services"]["additionalProperties"];
    let proxy = &schema["properties"]["proxy"]["properties"];
    for (keys, found, text) in [
        (schema::TOP, &schema["properties"], page),
        (schema::CERTIFICATE, &schema["properties"]["certificates"]["items"]["properties"], page),
        (schema::SERVICE, &service["properties"], page),
        (schema::SECRET, &service["properties"]["secrets"]["additionalProperties"]["properties"], page),
        (schema::HOOKS, &service["properties"]["hooks"]["properties"], page),
        (schema::OPTIONS, &service["properties"]["options"]["properties"], reference),
        (schema::PROXY, proxy, reference),
        (schema::LIMITS, &proxy["limits"]["properties"], reference),
        (schema::LOG, &proxy["log"]["properties"], reference),
        (schema::WEBHOOK, &proxy["webhook"]["properties"], reference),
        (schema::ACME, &proxy["acme"]["properties"], reference),
    ] {
        for key in keys {
            assert_eq!(found[key.name]["description"], key.about, "{}", key.name);
            assert!(text.contains(&format!("| `{}` |", key.name)), "the documents lack `{}`", key.name);
        }
    }
    for (name, keys) in schema::EDGE {
        let of = reference.split(&format!("\n### {name}")).nth(1).unwrap_or_else(|| panic!("no chapter of `{name}`"));
        let of = of.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
        for key in keys {
            assert!(of.contains(&format!("| `{}` |", key.name)), "the reference of `{name}` lacks `{}`", key.name);
        }
    }
    // serde names the fields that it knows where it meets another.
    fn fields<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let error = toml::from_str::<T>("nonsense = 1").err().unwrap().message().to_owned();
        let list = error.split("expected one of ").nth(1).or(error.split("expected ").nth(1)).unwrap().to_owned();
        list.split(['`', ',', ' ']).filter(|word| !word.is_empty() && *word != "or").map(str::to_owned).collect()
    }
    let names = |keys: &[Key], tables: &[&str]| -> Vec<String> {
        let mut names: Vec<String> =
            keys.iter().map(|key| key.name).chain(tables.iter().copied()).map(str::to_owned).collect();
        names.sort();
        names
    };
    let sorted = |mut fields: Vec<String>| {
        fields.sort();
        fields
    };
    assert_eq!(sorted(fields::<file::File>()), names(schema::TOP, &["certificates", "proxy", "services"]));
    assert_eq!(sorted(fields::<file::Proxy>()), names(schema::PROXY, &["limits", "log", "webhook", "acme"]));
    assert_eq!(sorted(fields::<crate::file::Limits>()), names(schema::LIMITS, schema::RESTART_LIMITS));
    assert_eq!(sorted(fields::<crate::file::Log>()), names(schema::LOG, schema::RESTART_LOG));
    assert_eq!(sorted(fields::<crate::file::Webhook>()), names(schema::WEBHOOK, &[]));
    assert_eq!(sorted(fields::<crate::file::Acme>()), names(schema::ACME, &[]));
    // The proxy's own file has the same at its top, but for its services.
    let top = [schema::RESTART, &["certificates", "limits", "log", "webhook", "acme", "services"]].concat();
    assert_eq!(sorted(fields::<crate::file::File>()), names(schema::PROXY, &top));
    assert_eq!(sorted(fields::<file::Service>()), names(schema::SERVICE, &["secrets", "hooks", "options"]));
    assert_eq!(sorted(fields::<file::Secret>()), names(schema::SECRET, &[]));
    assert_eq!(sorted(fields::<file::Hooks>()), names(schema::HOOKS, &[]));
    assert_eq!(sorted(fields::<crate::file::Options>()), names(schema::OPTIONS, &[]));
    let edge = [
        sorted(fields::<edge::Redirect>()),
        sorted(fields::<edge::Rewrite>()),
        sorted(fields::<edge::HeaderChanges>()),
        sorted(fields::<edge::Access>()),
        sorted(fields::<edge::BasicAuth>()),
        sorted(fields::<edge::RateLimit>()),
        sorted(fields::<edge::Compress>()),
        sorted(fields::<edge::StaticFiles>()),
        sorted(fields::<edge::OldAssets>()),
    ];
    assert_eq!(edge, schema::EDGE.map(|(_, keys)| names(keys, &[])));
}

#[test]
fn a_key_that_is_in_no_table_within_a_table_does_not_hide_what_else_is_wrong() {
    let text = "[services.shop.options]\nredirects = [{ from = \"/a\", too = \"/b\", to = \"/c\" }]\n\
        access = { allows = [\"10.0.0.1\"] }\ncompress = { mode = 1 }\nburst = 0\n";
    let problems = parse(&Source::new("b.toml", text), FREE).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for wanted in [
        "b.toml:2:29: there is no key `too`",
        "b.toml:3:10: the rule names nobody",
        "b.toml:3:12: there is no key `allows` (write `allow`)",
        "b.toml:4:14: there is no key `mode`",
        "b.toml:5:9: `burst` is 0",
    ] {
        assert!(told.iter().any(|problem| problem.starts_with(wanted)), "{wanted} is not in {told:#?}");
    }
}

#[test]
fn a_check_opens_the_certificates_of_every_place_and_reading_the_file_opens_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bluegreen.toml");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let made = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = |names: &[&str]| {
            rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let mut old = params(&["shop.test"]);
        old.not_after = rcgen::date_time_ymd(2001, 1, 1);
        old.not_before = rcgen::date_time_ymd(2000, 1, 1);
        write(&format!("{name}.key"), &key.serialize_pem());
        write(&format!("{name}.pem"), &params(&["*.test"]).self_signed(&key).unwrap().pem());
        write(&format!("{name}-old.pem"), &old.self_signed(&key).unwrap().pem());
        write(&format!("{name}-other.pem"), &params(&["other.example"]).self_signed(&key).unwrap().pem());
    };
    made("a");
    made("b");
    let table = |at: &str, cert: &str, key: &str| format!("[[{at}certificates]]\ncert = \"{cert}\"\nkey = \"{key}\"\n");
    let service = "[services.shop]\ndomains = [\"shop.test\"]\n";
    write("bluegreen.toml", &format!("{}{service}", table("", "a.pem", "a.key")));
    assert_eq!(check(&path, FREE), []);
    let text = [
        table("", "missing.pem", "a.key"),
        table("", "a.pem", "b.key"),
        table("", "a-old.pem", "a.key"),
        table("", "a-other.pem", "a.key"),
        table("target.staging.", "a.key", "a.key"),
        service.to_owned(),
    ];
    write("bluegreen.toml", &text.concat());
    let found = check(&path, FREE);
    let wanted = [
        ":2:8: `missing.pem` can't be read: No such file",
        ":6:7: `b.key`: the key is not that of the certificate (name the key that",
        ":8:8: `a-old.pem`: it expired at 2001-01-01T00:00:00Z",
        ":11:8: `a-other.pem` is for other.example, and no service here has such a domain",
        ":14:8: `a.key`: it holds no certificate in PEM",
    ];
    for wanted in wanted {
        assert!(found.iter().any(|problem| problem.to_string().contains(wanted)), "{wanted} in {found:#?}");
    }
    let keys = "[[target.staging.certificates]]\ncert = \"a.pem\"\nkey = \"a.key\"\nkeys = \"a.key\"\n";
    assert!(problems(keys)[0].contains(":4:1: there is no key `keys` (write `key`)"), "{:?}", problems(keys));
    write("bluegreen.toml", &format!("{}{service}", table("", "missing.pem", "a.key")));
    let read = load(&path, FREE).unwrap();
    assert_eq!(read.certificates[0].cert, folder.path().join("missing.pem"));
    // A target's own are in the place of the others.
    let own = table("target.staging.", "b.pem", "b.key");
    write("bluegreen.toml", &format!("{}{service}{own}", table("", "a.pem", "a.key")));
    let staging = load(&path, Reading { target: Some("staging"), ..FREE }).unwrap();
    assert_eq!(
        staging.certificates.iter().map(|one| one.key.clone()).collect::<Vec<_>>(),
        [folder.path().join("b.key")]
    );
}

#[test]
fn every_problem_has_its_place() {
    let text = "[services.shop]\ndomains = [\"shop.test\"]\nhealth-path = \"/\"\nkeep = \"cold\"\n[services.other]\n\
        domains = [\"shop.test\"]\nmemory = \"much\"\nbake = \"long\"\nimages = 1\n\
        [services.other.options]\nrequest_bytes = \"1x\"\nburst = 3\ncolour = 1\n";
    let problems = problems(text);
    let wanted = [
        "bluegreen.toml:3:1: there is no key `health-path` (write `health_path`)",
        "bluegreen.toml:4:8: `cold` is no keep (one of warm, stopped, none)",
        "bluegreen.toml:6:12: `other` has the same route as `shop`",
        "bluegreen.toml:7:10: `much` is no size",
        "bluegreen.toml:8:8: `long` is not a duration",
        "bluegreen.toml:9:1: there is no key `images` (write `image`)",
        "bluegreen.toml:11:17: `1x` is not a size",
        "bluegreen.toml:12:9: `burst` has no rate",
        "bluegreen.toml:13:1: there is no key `colour` (docs/bluegreen-toml.md",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.starts_with(wanted), "{problem}");
    }
}

#[test]
fn the_proxys_settings_are_read_and_what_needs_a_restart_is_told_so_at_its_place() {
    let text = "[proxy]\ntrusted_proxies = [\"cloudflare\"]\n[proxy.limits]\nidle_timeout = \"9s\"\n\
        [proxy.log]\naccess = \"json\"\n";
    let settings = read(text).unwrap().proxy.unwrap();
    let keys: Vec<String> = settings.keys().into_keys().collect();
    assert_eq!(keys, ["limits.idle_timeout", "log.access", "trusted_proxies"]);
    assert_eq!(read("host = \"h\"").unwrap().proxy, None, "without the table what is in force stays");
    let problems = problems(
        "[proxy]\nlisten = [\"0.0.0.0:80\"]\ntrusted_proxies = [\"10.0.0.0/33\"]\n[proxy.limits]\nconnections = 0\n\
         header_bytes = 9000\n[proxy.log]\naccess = \"apache\"\nlevel = \"debug\"\nacces = \"json\"\n",
    );
    let wanted = [
        "bluegreen.toml:2:1: `listen` needs a restart of the proxy",
        "bluegreen.toml:3:20: `10.0.0.0/33` is not a network",
        "bluegreen.toml:5:15: `connections` is 0",
        "bluegreen.toml:6:1: `header_bytes` needs a restart",
        "bluegreen.toml:8:10: `apache` is no access (one of off, combined, json)",
        "bluegreen.toml:9:1: `level` needs a restart",
        "bluegreen.toml:10:1: there is no key `acces`",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.starts_with(wanted), "{problem}");
    }
}

#[test]
fn a_value_of_a_wrong_type_is_told_beside_every_unknown_key() {
    let problems = problems("[services.shop]\ncolour = 1\nport = \"8080\"\n");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[1].starts_with("bluegreen.toml:3:8: invalid type"), "{problems:#?}");
}

#[test]
fn variables_are_texts_numbers_and_words_and_a_refused_value_is_not_repeated() {
    let project = read("[services.shop.env]\nA = \"a b\"\nPORT = 8080\nDEBUG = true\n").unwrap();
    assert_eq!(project.services[0].deployment.env, ["A=a b", "DEBUG=true", "PORT=8080"]);
    let refused = problems("[services.shop.env]\nVERSION = 1.10\n\"A=B\" = \"secret\"\n");
    assert_eq!(refused.len(), 2, "{refused:#?}");
    assert!(refused[0].contains("put it in quotes") && !refused[1].contains("secret"), "{refused:#?}");
}

#[test]
fn a_hook_before_the_start_is_the_option_and_its_time_is_for_each() {
    let text = "[services.shop.hooks]\nbefore_start = \"migrate\"\nbefore_flip = \"smoke\"\ntimeout = \"7s\"\n";
    let shop = read(text).unwrap().services.remove(0);
    let seven = Some(std::time::Duration::from_secs(7));
    assert_eq!((shop.deployment.before.as_deref(), shop.deployment.before_timeout), (Some("migrate"), seven));
    assert_eq!((shop.hooks.before_flip.as_deref(), shop.hooks.is_inside), (Some("smoke"), false));
    assert!(shop.hooks.folder.is_absolute());
    let problems = problems(
        "[services.shop]\nbefore = \"a\"\n[services.shop.hooks]\nbefore_start = \"b\"\nbefore_flip_in = \"there\"\n\
         after = \" \"\nbefore-flip = \"c\"\n",
    );
    let wanted = [
        "bluegreen.toml:4:16: `before_start` and `before` are the same",
        "bluegreen.toml:5:18: `before_flip_in` has nothing to run",
        "bluegreen.toml:5:18: `there` is no before_flip_in (one of here, container)",
        "bluegreen.toml:6:9: `after` is empty",
        "bluegreen.toml:7:1: there is no key `before-flip` (write `before_flip`)",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    problems.iter().zip(wanted).for_each(|(problem, wanted)| assert!(problem.starts_with(wanted), "{problem}"));
}

#[test]
fn a_secret_comes_from_one_place_and_its_paths_begin_in_the_folder_of_the_file() {
    let text =
        "[services.shop.secrets]\nA = { file = \"a.txt\" }\nB = { command = \"pass b\" }\nC = { env = \"MINE\" }\n";
    let project = {
        let source = Source::new("/srv/shop/bluegreen.toml", text);
        parse(&source, FREE).unwrap()
    };
    let sources: Vec<&SecretSource> = project.services[0].secrets.iter().map(|secret| &secret.source).collect();
    let command = SecretSource::Command { line: "pass b".to_owned(), folder: "/srv/shop".into() };
    let wanted = [SecretSource::File("/srv/shop/a.txt".into()), command, SecretSource::Variable("MINE".to_owned())];
    assert!(sources.into_iter().eq(&wanted), "{project:?}");
    let problems = problems(
        "[services.shop]\nenv_inherit = [\"D\"]\n[services.shop.secrets]\nA = { file = \"a\", env = \"A\" }\nB = {}\n\
         C = { key = \"x\" }\nD = { env = \"D\" }\n\"E=\" = { env = \"E\" }\nF = { command = \" \" }\n",
    );
    let wanted = [
        "bluegreen.toml:4:5: a secret comes from one place",
        "bluegreen.toml:5:5: a secret comes from one place",
        "bluegreen.toml:6:5: a secret comes from one place",
        "bluegreen.toml:6:7: there is no key `key`",
        "bluegreen.toml:7:1: `D` is among the variables too",
        "bluegreen.toml:8:1: this is no name of a variable",
        "bluegreen.toml:9:17: `command` is empty",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    problems.iter().zip(wanted).for_each(|(problem, wanted)| assert!(problem.starts_with(wanted), "{problem}"));
}

#[test]
fn what_is_written_as_a_relative_path_is_known_to_begin_here() {
    let text = "[services.shop]\nvolumes = [\"./data:/data\", \"named:/n\", \"/abs:/a\"]\n\
        mounts = [\"type=bind,src=../up,dst=/u\", \"type=volume,src=v,dst=/v\"]\n";
    let project = parse(&Source::new("/srv/shop/bluegreen.toml", text), FREE).unwrap();
    assert_eq!(project.services[0].begin_here, ["/srv/shop/data:/data", "type=bind,src=/srv/shop/../up,dst=/u"]);
}

#[test]
fn the_host_is_read_whatever_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, "host = \"production\"\nnonsense = 1\n").unwrap();
    let host = |target| host(&path, target, FREE.variable).map(|host| host.map(|host| (host.name, host.is_of_target)));
    assert_eq!(host(None).unwrap(), Some(("production".to_owned(), false)));
    assert!(host(Some("staging")).is_err());
    std::fs::write(&path, "host = \"a\"\n[target.staging]\nhost = \"${PLACE}\"\n[target.other]\n").unwrap();
    assert_eq!(host(Some("staging")).unwrap(), Some(("place".to_owned(), true)));
    assert_eq!(host(Some("other")).unwrap(), Some(("a".to_owned(), false)));
    std::fs::write(&path, "host = ").unwrap();
    assert!(host(None).is_err());
}

#[test]
fn variables_are_filled_in_and_all_that_are_missing_are_told_with_their_places() {
    let text = "[services.shop]\nimage = \"shop:${SET}\"\nnote = \"${GONE:-no} $SET $${SET} ${SET:-x}\"\n\
        command = [\"run\", \"${SET}\"]\n[services.shop.env]\nA = \"${GONE:-}\"\n";
    let shop = read(text).unwrap().services.remove(0);
    assert_eq!(shop.image.as_deref(), Some("shop:value"));
    assert_eq!(shop.deployment.note.as_deref(), Some("no $SET ${SET} value"));
    assert_eq!(shop.deployment.command.unwrap(), ["run", "value"]);
    assert_eq!(shop.deployment.env, ["A="]);
    let problems = problems(
        "host = \"${GONE}\"\n[services.shop]\nimage = \"$${GONE} ${SET} ${ALSO_GONE}\"\ncommand = [\"${a b}\", \"${SET\"]\n",
    );
    let wanted = [
        "bluegreen.toml:1:9: the variable GONE is not set, or is empty (set it, or write ${GONE:-default})",
        "bluegreen.toml:3:26: the variable ALSO_GONE is not set",
        "bluegreen.toml:4:13: this is no name of a variable",
        "bluegreen.toml:4:23: `${` has no `}`",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    problems.iter().zip(wanted).for_each(|(problem, wanted)| assert!(problem.starts_with(wanted), "{problem}"));
}

#[test]
fn a_target_is_laid_over_the_rest_key_by_key_and_another_asks_for_nothing() {
    let text = "host = \"production\"\n[services.shop]\nimage = \"shop:1\"\ndomains = [\"shop.test\", \"www.test\"]\n\
        [services.shop.env]\nA = 1\nB = 2\n[services.api]\nport = 1\n[target.staging]\nhost = \"staging\"\n\
        [target.staging.services.shop]\ndomains = [\"staging.test\"]\nmemory = \"64m\"\n\
        [target.staging.services.shop.env]\nB = 3\nC = 4\n[target.other]\nhost = \"${GONE}\"\n";
    let plain = read(text).unwrap();
    assert_eq!((plain.host.as_deref(), plain.services.len()), (Some("production"), 2));
    assert_eq!(plain.services[1].deployment.env, ["A=1", "B=2"]);
    let staging = read_for(Some("staging"), text).unwrap();
    let shop = &staging.services[1];
    assert_eq!((staging.host.as_deref(), shop.image.as_deref()), (Some("staging"), Some("shop:1")));
    assert_eq!(shop.deployment.env, ["A=1", "B=3", "C=4"]);
    assert_eq!((shop.deployment.domains.as_ref().unwrap().len(), shop.deployment.memory.is_some()), (1, true));
    assert_eq!(staging.services[0], plain.services[0]);
    let gone = read_for(Some("other"), text).unwrap_err();
    assert_eq!(gone.len(), 1, "{gone:#?}");
    let unknown = read_for(Some("stagin"), text).unwrap_err();
    assert!(
        unknown[0].what.contains("no target `stagin`") && unknown[0].hint == "it has other, staging",
        "{unknown:?}"
    );
}

#[test]
fn a_command_line_keeps_its_variables_for_the_shell() {
    let text = "[services.shop]\nimage = \"shop:${SET}\"\nbefore = \"migrate ${SET}\"\n[services.shop.hooks]\n\
        after = \"curl ${GONE}\"\n[services.shop.secrets]\nKEY = { command = \"pass ${SET}\" }\n";
    let shop = &read(text).unwrap().services[0];
    assert_eq!(shop.hooks.after.as_deref(), Some("curl ${GONE}"));
    assert_eq!(shop.deployment.before.as_deref(), Some("migrate ${SET}"));
    assert!(format!("{shop:?}").contains("pass ${SET}"), "{shop:?}");
}

#[test]
fn a_webhook_is_read_and_a_wrong_one_told_at_its_place_without_its_secret() {
    let good = "[proxy.webhook]\nurl = \"https://hooks.test/shop\"\nsecret = \"hunter2\"\nca = \"/etc/ca.pem\"\n";
    let webhook = read(good).unwrap().proxy.unwrap().webhook;
    assert_eq!(webhook.secret.unwrap().reveal(), "hunter2");
    let told = problems("[proxy.webhook]\nsecret = \"hunter2\"\nca = \"ca.pem\"\nurls = 1\n");
    let wanted = [
        "bluegreen.toml:2:10: nobody is told by this webhook (add url",
        "bluegreen.toml:3:6: `ca` is not an absolute path",
        "bluegreen.toml:4:1: there is no key `urls` (write `url`)",
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, wanted) in told.iter().zip(wanted) {
        assert!(told.starts_with(wanted) && !told.contains("hunter2"), "{told}");
    }
    let told = problems("[proxy.webhook]\nurl = \"hooks.test/T0\"\nsecret = \" \"\n");
    assert!(told[0].starts_with("bluegreen.toml:2:7: a webhook's address begins with https://"), "{told:?}");
    assert!(told[1].starts_with("bluegreen.toml:3:10: a webhook's secret is empty"), "{told:?}");
}

#[test]
fn services_that_are_switched_together_are_found_through_each_other_each_once() {
    let text = "[services.web]\nwith = [\"worker\", \"mails\"]\n[services.worker]\npaths = [\"/w\"]\nwith = [\"clock\"]\n\
        [services.mails]\npaths = [\"/m\"]\nwith = [\"clock\"]\n[services.clock]\npaths = [\"/c\"]\n\
        [services.other]\npaths = [\"/o\"]\n";
    let project = read(text).unwrap();
    let names = |of: &str| -> Vec<String> {
        project.together_with(&of.parse().unwrap()).iter().map(|one| one.name.to_string()).collect()
    };
    assert_eq!(names("web"), ["worker", "mails", "clock"]);
    assert_eq!(names("mails"), ["clock"]);
    assert!(names("clock").is_empty() && names("other").is_empty() && names("unknown").is_empty());
}

#[test]
fn a_circle_an_unknown_name_and_one_that_stands_twice_are_told_at_their_places() {
    let text = "[services.web]\nwith = [\"worker\", \"wroker\"]\n[services.worker]\npaths = [\"/w\"]\nwith = [\"clock\"]\n\
        [services.clock]\npaths = [\"/c\"]\nwith = [\"web\"]\n[services.alone]\npaths = [\"/a\"]\nwith = [\"alone\", \"clock\", \"clock\"]\n";
    let told = problems(text);
    let wanted = [
        "bluegreen.toml:2:9: `web` and `worker` would switch each other (take it out of one of the two",
        "bluegreen.toml:2:19: there is no service `wroker` (the file has alone, clock, web, worker)",
        "bluegreen.toml:5:9: `worker` and `clock` would switch each other",
        "bluegreen.toml:8:9: `clock` and `web` would switch each other",
        "bluegreen.toml:11:9: `alone` is the service itself",
        "bluegreen.toml:11:27: `clock` is listed twice",
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    told.iter().zip(wanted).for_each(|(told, wanted)| assert!(told.starts_with(wanted), "{told}"));
}

#[test]
fn a_target_changes_of_the_proxys_settings_what_it_names() {
    let text = "[proxy]\ntrusted_proxies = [\"private\"]\n[proxy.limits]\nconnections = 10\nidle_timeout = \"9s\"\n\
        [services.shop]\n[target.staging.proxy.limits]\nconnections = 20\n";
    let limits = |target| {
        let proxy = serde_json::to_value(read_for(target, text).unwrap().proxy.unwrap()).unwrap();
        (proxy["limits"]["connections"].clone(), proxy["limits"]["idle_timeout"].clone())
    };
    let (plain, staging) = (limits(None), limits(Some("staging")));
    assert_eq!((plain.0, staging.0), (10.into(), 20.into()));
    assert_eq!(plain.1, staging.1);
}

#[test]
fn what_is_wrong_in_a_target_is_told_whichever_is_chosen() {
    let text = "[services.shop]\n[target.a]\ncolour = 1\n[target.a.services.shp]\n[target.a.services.shop]\nhealth-path = \"/\"\n\
        [target.b.services.shop]\nkeep = \"cold\"\n";
    let wanted = [
        "bluegreen.toml:3:1: there is no key `colour`",
        "bluegreen.toml:4:20: there is no service `shp`",
        "bluegreen.toml:6:1: there is no key `health-path`",
        "bluegreen.toml:8:8: `cold` is no keep",
    ];
    let told = |problems: &[Problem], wanted: &[&str]| {
        assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
        problems
            .iter()
            .zip(wanted)
            .for_each(|(problem, wanted)| assert!(problem.to_string().starts_with(wanted), "{problem}"));
    };
    told(&read(text).unwrap_err(), &wanted[..3]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, text).unwrap();
    let found = check(&path, FREE);
    assert_eq!(found.len(), 4, "{found:#?}");
    found.iter().zip(wanted).for_each(|(found, wanted)| {
        let (_, place) = wanted.split_once(':').unwrap();
        assert!(found.to_string().contains(place), "{found}");
    });
    assert_eq!(read("target = 3\n").unwrap_err()[0].what, "`target` is no table");
}
