//! How requests of a block are served: the directives in force there as options of a service.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use config::duration;

use super::chain::Chain;
use super::draft::Draft;
use super::headers;
use super::notes::Notes;
use super::toml;
use crate::nginx::Directive;

/// Nobody at all.
const EVERYBODY: &str = r#"{ deny = ["0.0.0.0/0", "::/0"] }"#;
/// The longest time that an option takes.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Rates by the names of their zones.
pub(super) type Zones<'d> = BTreeMap<String, &'d Directive>;

/// Lays what is in force in a block over a draft. Returns false where visitors are kept out in a way that has no equal: then all are.
pub(super) fn lay(chain: &Chain<'_>, draft: &mut Draft, zones: &Zones<'_>, notes: &mut Notes) -> bool {
    body(chain, draft);
    times(chain, draft);
    headers::lay(chain, draft, notes);
    if chain.word("access_log").as_deref() == Some("off") {
        draft.options.insert("access_log", "false".to_owned());
    }
    if chain.is_on("gzip") {
        draft.options.insert("compress", "true".to_owned());
    }
    rates(chain, draft, zones, notes);
    connections(chain, draft, zones, notes);
    error_pages(chain, draft, notes);
    let is_open = guards(chain, draft, notes);
    if !is_open {
        close(draft);
    }
    is_open
}

/// Keeps everybody out.
pub(super) fn close(draft: &mut Draft) {
    draft.options.insert("access", EVERYBODY.to_owned());
    draft.options.remove("basic_auth");
}

/// Tells whether nobody is let in.
pub(super) fn is_closed(draft: &Draft) -> bool {
    draft.options.get("access").is_some_and(|access| access == EVERYBODY)
}

/// Without a word of it nginx takes 1 MiB.
fn body(chain: &Chain<'_>, draft: &mut Draft) {
    let size = chain.word("client_max_body_size").unwrap_or_else(|| "1m".to_owned());
    if size != "0" {
        draft.options.insert("request_bytes", toml::text(&size.to_ascii_lowercase()));
    }
}

fn times(chain: &Chain<'_>, draft: &mut Draft) {
    let mut put = |key: &'static str, directive: &str| {
        if let Some(time) = chain.word(directive).and_then(|text| time(&text)) {
            draft.options.insert(key, toml::text(&duration::format(time.min(LONGEST))));
        }
    };
    put("connect_timeout", "proxy_connect_timeout");
    put("response_timeout", "proxy_read_timeout");
    put("body_idle_timeout", "proxy_read_timeout");
}

/// Returns a time as nginx writes it: `30`, `90s`, `1m30s`, `500ms`; none where it is none, or zero.
pub(super) fn time(text: &str) -> Option<Duration> {
    let mut sum = 0_u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest[..end].trim() {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end..];
    }
    (sum > 0).then(|| Duration::from_millis(sum))
}

/// Lays down who is let in; false where nobody can tell it in our words.
fn guards(chain: &Chain<'_>, draft: &mut Draft, notes: &mut Notes) -> bool {
    let mut is_open = true;
    for name in ["auth_request", "auth_jwt", "secure_link", "internal", "limit_except"] {
        let Some(guard) = chain.last(name).filter(|guard| guard.argument(0) != "off") else { continue };
        let instead = "let the application keep out who is not to come in; then take `access` out";
        notes.left_out(guard, "nobody can be kept out so, and so everybody is for now", instead);
        is_open = false;
    }
    if let Some(satisfy) = chain.last("satisfy").filter(|satisfy| satisfy.argument(0) == "any") {
        let what = "networks and passwords are both asked for, never one of the two";
        notes.left_out(satisfy, what, "name in `access` or in `basic_auth` alone what is to be asked for");
    }
    if let Some(referers) = chain.last("valid_referers") {
        notes.opens(
            referers,
            "what `Referer` says is not looked at",
            "let the application look at it: a client may write anything there",
        );
    }
    let has_password = password(chain, draft, notes);
    networks(chain, draft, notes) && has_password && is_open
}

/// The first line that fits decides, which two lists tell where those that are kept out stand before those that are let in.
fn networks(chain: &Chain<'_>, draft: &mut Draft, notes: &mut Notes) -> bool {
    let lines = chain.any_of(&["allow", "deny"]);
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    let mut rest = None;
    for line in lines {
        let network = line.argument(0);
        match (line.name.as_str(), network) {
            (name, "all") => {
                rest = Some(name == "allow");
                break;
            }
            // Over a Unix socket nobody comes to us.
            (_, "unix:") => {}
            ("allow", _) => allowed.push(network.to_owned()),
            (_, _) if allowed.is_empty() => denied.push(network.to_owned()),
            _ => {
                let instead = "write `access` with networks that don't overlap: `deny` wins over `allow`";
                notes.left_out(
                    line,
                    "a network within one that is let in can't be kept out so: everybody is for now",
                    instead,
                );
                return false;
            }
        }
    }
    match rest {
        Some(false) if allowed.is_empty() => close(draft),
        // Who is let in and who is neither are let in both.
        Some(false) => {
            let fields = [
                ("allow", Some(toml::texts(&allowed))),
                ("deny", Some(denied).filter(|denied| !denied.is_empty()).map(|denied| toml::texts(&denied))),
            ];
            draft.options.insert("access", toml::table(&fields));
        }
        Some(true) | None if !denied.is_empty() => {
            draft.options.insert("access", toml::table(&[("deny", Some(toml::texts(&denied)))]));
        }
        Some(true) | None => {}
    }
    true
}

/// Returns whether whoever has a password comes in: a file that can't be taken keeps everybody out.
fn password(chain: &Chain<'_>, draft: &mut Draft, notes: &mut Notes) -> bool {
    let Some(realm) = chain.word("auth_basic").filter(|realm| realm != "off") else { return true };
    let Some(file) = chain.last("auth_basic_user_file") else { return true };
    let users = beside(file, &chain.put_in(file.argument(0)));
    let instead =
        "`htpasswd -B` writes hashes of bcrypt: then basic_auth = { users_file = ... } in the place of `access`";
    let why = match std::fs::read_to_string(&users) {
        Ok(text) => text.lines().find_map(|line| {
            let (name, hash) = line.trim().split_once(':').filter(|_| !line.starts_with('#'))?;
            let is_taken = ["$2a$", "$2b$", "$2y$", "$argon2"].iter().any(|kind| hash.starts_with(kind));
            (!is_taken).then(|| format!("the hash of {name} is none of bcrypt or argon2"))
        }),
        Err(error) => Some(format!("{users} can't be read: {error}")),
    };
    if let Some(why) = why {
        notes.left_out(file, format!("{why}, so nobody is let in for now"), instead);
        return false;
    }
    let fields = [("realm", Some(toml::literal(&realm))), ("users_file", Some(toml::literal(&users)))];
    draft.options.insert("basic_auth", toml::table(&fields));
    true
}

/// Returns the path of a file that a directive names: a relative one begins in the folder of its configuration.
pub(super) fn beside(of: &Directive, path: &str) -> String {
    let folder = of.place.file.parent().unwrap_or(Path::new(""));
    let path = std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path));
    path.to_string_lossy().into_owned()
}

/// Returns what stands behind `name=` in a directive.
fn option(directive: &Directive, name: &str) -> String {
    let found = directive.arguments.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default().to_owned()
}

/// Returns whom a zone tells apart, as `by` has it.
fn told_apart(zone: &Directive) -> Option<String> {
    match zone.argument(0).trim_matches(['$', '{', '}']) {
        "binary_remote_addr" | "remote_addr" => Some("address".to_owned()),
        key => key.strip_prefix("http_").map(|name| format!("header:{}", name.replace('_', "-"))),
    }
}

/// How many requests of one client may be under way at once.
fn connections(chain: &Chain<'_>, draft: &mut Draft, zones: &Zones<'_>, notes: &mut Notes) {
    for limit in chain.all("limit_conn") {
        let zone = zones.get(limit.argument(0));
        let (Some(by), Ok(count)) = (zone.and_then(|zone| told_apart(zone)), limit.argument(1).parse::<u32>()) else {
            let instead = "rate_limits = [{ connections = 10, by = \"address\" }]";
            notes.opens(limit, "whom its zone tells apart is not known, so nothing is limited", instead);
            continue;
        };
        draft.push(
            "rate_limits",
            toml::table(&[("connections", Some(count.to_string())), ("by", Some(toml::text(&by)))]),
        );
    }
}

/// A leaky bucket that lets N more through at once is full at N + 1.
fn rates(chain: &Chain<'_>, draft: &mut Draft, zones: &Zones<'_>, notes: &mut Notes) {
    for limit in chain.all("limit_req") {
        let Some(zone) = zones.get(&option(limit, "zone")) else {
            notes.opens(
                limit,
                "its zone is not here, so nothing is limited",
                "name the file with its `limit_req_zone` too",
            );
            continue;
        };
        let by = told_apart(zone);
        let rate = option(zone, "rate");
        let (number, unit) = rate.split_once("r/").unwrap_or(("", ""));
        let burst = option(limit, "burst").parse::<u32>().unwrap_or(0).saturating_add(1);
        let Ok(requests) = number.parse::<u32>() else {
            notes.opens(zone, "its rate can't be read, so nothing is limited", "write `requests_per_second` yourself");
            continue;
        };
        if by.as_deref() == Some("address") && unit == "s" && !draft.options.contains_key("requests_per_second") {
            draft.options.insert("requests_per_second", requests.to_string());
            draft.options.insert("burst", burst.to_string());
        } else if let Some(by) = by {
            let per = if unit == "m" { "1m" } else { "1s" };
            let fields = [
                ("requests", Some(requests.to_string())),
                ("per", Some(toml::text(per))),
                ("burst", Some(burst.to_string())),
                ("by", Some(toml::text(&by))),
            ];
            draft.push("rate_limits", toml::table(&fields));
        } else {
            let instead = "limit by address or by a header: requests_per_second, rate_limits";
            notes.opens(
                zone,
                format!("a rate can't be counted by `{}`, so nothing is limited", zone.argument(0)),
                instead,
            );
            continue;
        }
        if !limit.arguments.iter().any(|word| word == "nodelay") {
            notes.differs(
                limit,
                "what comes too fast is answered 429 at once, and not held back",
                "a larger `burst` where that is too strict",
            );
        }
    }
}

/// A page of a file, for statuses that the proxy itself answers.
fn error_pages(chain: &Chain<'_>, draft: &mut Draft, notes: &mut Notes) {
    let mut pages = BTreeMap::new();
    for page in chain.all("error_page") {
        let Some((target, statuses)) = page.arguments.split_last() else { continue };
        let file = chain.word("root").map(|root| format!("{}{target}", root.trim_end_matches('/')));
        let file = file.filter(|file| target.starts_with('/') && Path::new(file).is_file());
        let Some(file) = file else {
            let instead = "error_pages = { 5xx = \"FILE\" } with the file that it means, for errors that the proxy itself answers";
            notes.left_out(page, "no file of this machine is known to be that page", instead);
            continue;
        };
        for status in statuses.iter().filter(|status| matches!(status.parse::<u16>(), Ok(400..=599))) {
            pages.insert(status.clone(), file.clone());
        }
    }
    if !pages.is_empty() {
        let fields = pages.iter().map(|(status, file)| format!("{status} = {}", toml::literal(file)));
        draft.options.insert("error_pages", format!("{{ {} }}", fields.collect::<Vec<_>>().join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_nginx() {
        for (text, millis) in
            [("60", 60_000), ("90s", 90_000), ("1m30s", 90_000), ("500ms", 500), ("1h 30m", 5_400_000)]
        {
            assert_eq!(time(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["0", "", "x", "1x", "99999999999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
