//! One server: its locations become services, its own redirects what they are there.

use super::chain::Chain;
use super::draft::{self, Draft};
use super::folder;
use super::location::{self, Kind, Spot};
use super::notes::Notes;
use super::redirect::{self, Answer, Rewrite};
use super::serving::{self, Zones};
use super::toml;
use super::upstream::{self, Target, Upstreams};
use crate::nginx::Directive;

/// What all servers share.
pub(super) struct Shared<'d> {
    pub(super) upstreams: Upstreams<'d>,
    pub(super) zones: Zones<'d>,
}

/// What becomes of a server.
#[derive(Debug, Default)]
pub(super) struct Found<'d> {
    pub(super) drafts: Vec<Draft>,
    /// Visitors of these names are led to https.
    pub(super) to_https: Option<&'d Directive>,
    /// Visitors of its names are led to this one.
    pub(super) to_host: Option<Led>,
}

/// Where visitors of a server's names are led to.
#[derive(Debug)]
pub(super) struct Led {
    /// The host.
    pub(super) host: String,
    /// With which status.
    pub(super) status: u16,
    /// As `to` of a redirect has it.
    pub(super) to: String,
    /// Those names; none: all of the server that the host is not.
    pub(super) name: Option<String>,
}

/// A server of the configuration.
pub(super) struct Server<'d> {
    pub(super) block: &'d Directive,
    pub(super) chain: Chain<'d>,
    /// Its names, those that mean every host aside.
    pub(super) names: Vec<String>,
    /// It takes every host that no other names.
    pub(super) is_default: bool,
}

impl<'d> Server<'d> {
    /// Tells whether it ends TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.block.all("listen").any(|listen| listen.arguments.iter().any(|word| word == "ssl"))
            || self.block.first("ssl").is_some_and(|ssl| ssl.argument(0) == "on")
    }

    /// Reads it.
    pub(super) fn read(&self, shared: &Shared<'_>, notes: &mut Notes) -> Found<'d> {
        let mut found = Found::default();
        let mut led = Vec::new();
        for directive in self.block.inner() {
            match directive.name.as_str() {
                "return" => return self.answered(directive, redirect::answer(directive, &self.names), found, notes),
                "rewrite" => match redirect::rewrite(directive, &self.names) {
                    Rewrite::All(answer) => return self.answered(directive, answer, found, notes),
                    Rewrite::Redirect(entry) => led.push(entry),
                    Rewrite::Prefix { .. } | Rewrite::Pattern(_) | Rewrite::Other => note_rewrite(directive, notes),
                },
                "if" => self.condition(directive, &mut found, notes),
                _ => {}
            }
        }
        let mut spots = location::spots(self.block.inner(), &self.chain);
        let has_root = spots.iter().any(|spot| spot.kind == Kind::Prefix && spot.path == "/");
        if !has_root && (self.chain.last("root").is_some() || self.chain.last("try_files").is_some()) {
            let chain = self.chain.clone();
            spots.push(Spot { block: self.block, kind: Kind::Prefix, path: "/".to_owned(), chain });
        }
        let mut drafts = Vec::new();
        for spot in &spots {
            drafts.extend(self.location(spot, &spots, shared, notes));
        }
        // What is led elsewhere, or read from a folder, is so within the service that takes the path, where one does.
        let mut drafts = draft::merge(draft::gather(drafts));
        if !led.is_empty() {
            let root = drafts.iter().position(|draft| draft.takes("/"));
            let root = root.unwrap_or_else(|| {
                drafts.push(self.draft(self.block, "/", "server"));
                drafts.len() - 1
            });
            led.into_iter().for_each(|entry| drafts[root].push("redirects", entry));
        }
        for spot in spots.iter().filter(|spot| spot.kind == Kind::Exact) {
            if drafts.iter().any(|draft| !draft.to.is_empty() && draft.paths.contains(&location::route(&spot.path))) {
                let what = format!("{} is taken with all below it, as paths are prefixes here", spot.path);
                notes.differs(spot.block, what, "nothing, where the application has nothing else there");
            }
        }
        found.drafts = drafts;
        found
    }

    fn answered(&self, directive: &'d Directive, answer: Answer, mut found: Found<'d>, notes: &mut Notes) -> Found<'d> {
        match answer {
            Answer::ToHttps => found.to_https = Some(directive),
            Answer::ToHost(host, status, to) => found.to_host = Some(Led { host, status, to, name: None }),
            Answer::To(status, to) => {
                let mut draft = self.draft(self.block, "/", "server");
                draft.push("redirects", redirect::entry("/*", &to, status));
                found.drafts.push(draft);
            }
            // The usual answer to hosts that nobody has.
            Answer::Status(404 | 444 | 403 | 410 | 421) if self.is_default => {
                notes.differs(directive, "a host that no service has is answered 404", "nothing");
            }
            Answer::Status(_) | Answer::Other => {
                notes.left_out(directive, "no answer of this kind is given", "let an application give it");
            }
        }
        found
    }

    /// `if` leads one of several names elsewhere, or it has no equal.
    fn condition(&self, directive: &'d Directive, found: &mut Found<'d>, notes: &mut Notes) {
        let words: Vec<&str> = directive.arguments.iter().map(|word| word.trim_matches(['(', ')'])).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let inner = directive.first("return").map(|inner| redirect::answer(inner, &self.names));
        match (words.as_slice(), inner) {
            (
                ["$host" | "$http_host", "=", _] | ["$scheme", "=", "http"] | ["$https", "!=", "on"],
                Some(Answer::ToHttps),
            ) => {
                found.to_https = Some(directive);
            }
            (["$host" | "$http_host", "=", name], Some(Answer::ToHost(host, status, to))) => {
                found.to_host = Some(Led { host, status, to, name: Some((*name).to_owned()) });
            }
            (["$host" | "$http_host", "!=", own], Some(Answer::ToHost(host, status, to))) if host == *own => {
                found.to_host = Some(Led { host, status, to, name: None });
            }
            (_, Some(Answer::Status(400..=499))) => {
                notes.opens(
                    directive,
                    "no condition is looked at, so what it kept out comes in",
                    "let the application refuse it",
                );
            }
            _ => notes.left_out(
                directive,
                "no condition is looked at",
                "let the application do what it does, or give its hosts or paths a service of their own",
            ),
        }
    }

    /// Returns a service for a path of this server, of which nothing is known yet.
    pub(super) fn draft(&self, block: &Directive, path: &str, what: &str) -> Draft {
        let (domains, also_named) =
            if self.is_default { (Vec::new(), self.names.clone()) } else { (self.names.clone(), Vec::new()) };
        let who = self.names.first().map_or("the default server", String::as_str);
        Draft {
            place: block.place.clone(),
            origin: vec![format!("{what} of {who} ({})", block.place)],
            name: String::new(),
            domains,
            also_named,
            paths: vec![location::route(path)],
            strip_path: false,
            to: Vec::new(),
            options: Default::default(),
            lists: Default::default(),
        }
    }

    fn location(&self, spot: &Spot<'d>, spots: &[Spot<'d>], shared: &Shared<'_>, notes: &mut Notes) -> Option<Draft> {
        let block = spot.block;
        let paths = match spot.kind {
            Kind::Named => return None,
            Kind::Prefix | Kind::Exact => vec![spot.path.clone()],
            Kind::Pattern => match location::prefixes(&spot.path) {
                Some(paths) => paths,
                None => {
                    note_pattern(spot, notes);
                    return None;
                }
            },
        };
        let mut draft = self.draft(block, &paths[0], &block.text());
        draft.paths = paths.iter().map(|path| location::route(path)).collect();
        let is_open = serving::lay(&spot.chain, &mut draft, &shared.zones, notes);
        let mut prefix = None;
        // What stands in the server was read there; its own redirects and conditions aren't a location's.
        if block.name == "location" {
            if let Some(answer) = spot.chain.own("return").next() {
                return self.answer(spot, answer, draft, notes);
            }
            for rewrite in spot.chain.own("rewrite") {
                match redirect::rewrite(rewrite, &self.names) {
                    Rewrite::Redirect(entry) => draft.push("redirects", entry),
                    Rewrite::Pattern(entry) => draft.push("rewrite", entry),
                    Rewrite::Prefix { from, to } => prefix = Some((rewrite, from, to)),
                    Rewrite::All(Answer::To(status, to)) => {
                        draft.push(
                            "redirects",
                            redirect::entry(&format!("{}/*", spot.path.trim_end_matches('/')), &to, status),
                        );
                    }
                    Rewrite::All(_) | Rewrite::Other => note_rewrite(rewrite, notes),
                }
            }
            for condition in spot.chain.own("if") {
                self.condition(condition, &mut Found::default(), notes);
            }
        }
        if let Some(pass) = block.inner().iter().find(|one| matches!(one.name.as_str(), "proxy_pass" | "grpc_pass")) {
            let target = upstream::target(pass, &spot.chain.put_in(pass.argument(0)), &shared.upstreams, notes)?;
            self.lead(spot, pass, target, prefix.as_ref(), &mut draft, notes);
            return Some(draft);
        }
        if let Some(pass) =
            block.inner().iter().find(|one| matches!(one.name.as_str(), "fastcgi_pass" | "uwsgi_pass" | "scgi_pass"))
        {
            let what = format!(
                "the proxy speaks HTTP alone, so nothing takes {}",
                block.argument(block.arguments.len().max(1) - 1)
            );
            notes.left_out(
                pass,
                what,
                "let the application listen for HTTP itself, as with gunicorn, puma, uwsgi --http or FrankenPHP",
            );
            return None;
        }
        if !is_open || serving::is_closed(&draft) {
            return Some(draft);
        }
        self.folder(spot, spots, shared, draft, notes)
    }

    fn answer(&self, spot: &Spot<'d>, directive: &'d Directive, mut draft: Draft, notes: &mut Notes) -> Option<Draft> {
        let from =
            if spot.kind == Kind::Exact { spot.path.clone() } else { format!("{}/*", spot.path.trim_end_matches('/')) };
        match redirect::answer(directive, &self.names) {
            Answer::To(status, to) | Answer::ToHost(_, status, to) => {
                draft.push("redirects", redirect::entry(&from, &to, status));
            }
            Answer::ToHttps if spot.path == "/" => {
                draft.options.insert("https_redirect", "true".to_owned());
            }
            Answer::Status(status @ 400..=499) => {
                if status != 403 {
                    let what = format!("it is answered 403 (`access`), and not {status}");
                    notes.differs(
                        directive,
                        what,
                        "nothing, where nobody is to come there; else let the application answer",
                    );
                }
                draft.options.remove("request_bytes");
                serving::close(&mut draft);
            }
            Answer::Status(_) | Answer::ToHttps | Answer::Other => {
                notes.left_out(
                    directive,
                    "no answer of this kind is given: what takes the path otherwise gets it",
                    "let the application answer it",
                );
                return None;
            }
        }
        Some(draft)
    }

    /// Leads a draft to an application.
    fn lead(
        &self,
        spot: &Spot<'_>,
        pass: &Directive,
        target: Target,
        prefix: Option<&(&Directive, String, String)>,
        draft: &mut Draft,
        notes: &mut Notes,
    ) {
        let path = match (prefix, &target.path) {
            (Some((_, from, to)), None) if *from == spot.path.trim_end_matches('/') => {
                Some(format!("{}/", to.trim_end_matches('/')))
            }
            (Some((rewrite, ..)), _) => {
                note_rewrite(rewrite, notes);
                target.path.clone()
            }
            (None, path) => path.clone(),
        };
        if let Some(path) = path {
            let own = spot.path.trim_end_matches('/');
            let is_even =
                spot.kind == Kind::Exact || prefix.is_some() || spot.path.ends_with('/') == path.ends_with('/');
            if !is_even {
                let what = format!(
                    "a slash is missing behind {} or behind the address: nginx glues {path} to the rest, here segments stay whole",
                    spot.path
                );
                notes.differs(pass, what, "nothing, where the slash was forgotten");
            }
            match (own.is_empty(), path.trim_end_matches('/')) {
                (true, "") => {}
                (false, "") => draft.strip_path = true,
                (_, to) => {
                    let from = if own.is_empty() { "/" } else { own };
                    draft.push(
                        "rewrite",
                        toml::table(&[("prefix", Some(toml::literal(from))), ("to", Some(toml::literal(to)))]),
                    );
                }
            }
        }
        let host =
            spot.chain.all("proxy_set_header").into_iter().find(|line| line.argument(0).eq_ignore_ascii_case("host"));
        if host.is_none() && pass.name == "proxy_pass" {
            let what = format!("the application sees the visitor's `Host`, where nginx names {}", target.host);
            notes.differs(
                pass,
                what,
                "nothing for most applications; one that answers by `Host` has to know its public names",
            );
        }
        if target.is_sticky {
            draft.options.insert("sticky", "true".to_owned());
        }
        if target.is_http2 {
            draft.options.insert("protocol", toml::text("h2c"));
        }
        draft.to = target.to;
    }

    /// Reads a folder, and what is asked where the folder has nothing.
    fn folder(
        &self,
        spot: &Spot<'d>,
        spots: &[Spot<'d>],
        shared: &Shared<'_>,
        mut draft: Draft,
        notes: &mut Notes,
    ) -> Option<Draft> {
        let tries = spot.chain.last("try_files");
        let last = tries.and_then(|tries| tries.arguments.last()).map(|last| spot.chain.put_in(last));
        if let Some(name) = last.as_ref().filter(|last| last.starts_with('@')) {
            let named = spots.iter().find(|other| other.kind == Kind::Named && other.path == *name)?;
            let pass = named.block.first("proxy_pass");
            let Some(pass) = pass else {
                notes.left_out(
                    named.block,
                    "nothing takes what the folder does not have",
                    "let an application listen for HTTP",
                );
                return None;
            };
            let target = upstream::target(pass, &named.chain.put_in(pass.argument(0)), &shared.upstreams, notes)?;
            let within = Spot { kind: spot.kind, path: spot.path.clone(), ..named.clone() };
            self.lead(&within, pass, target, None, &mut draft, notes);
            if let Some(tries) = tries {
                let what =
                    "the application gets these requests: a folder is served for all below a path, not file by file";
                notes.differs(tries, what, "`static` in the service's options, with a path that has files alone");
            }
            return Some(draft);
        }
        draft.push("static", folder::entry(spot, last.as_deref(), notes)?);
        Some(draft)
    }
}

fn note_rewrite(rewrite: &Directive, notes: &mut Notes) {
    let instead = "`redirects` or `rewrite` where a prefix says it; else let the application understand the old paths";
    notes.left_out(rewrite, "paths are not matched by regular expressions", instead);
}

/// What a regular expression takes goes to whatever takes its path otherwise.
fn note_pattern(spot: &Spot<'_>, notes: &mut Notes) {
    let denies = spot.block.inner().iter().any(|inner| match inner.name.as_str() {
        "deny" | "internal" => true,
        "return" => inner.argument(0).starts_with('4'),
        "auth_basic" | "auth_request" => inner.argument(0) != "off",
        _ => false,
    });
    let instead = "name a path prefix in `paths` of a service of its own, where there is one";
    if denies {
        let what = "paths are not matched by regular expressions, so what it kept out reaches what takes the path";
        notes.opens(
            spot.block,
            what,
            "let the application refuse it, and keep such files out of folders that are served",
        );
    } else {
        notes.left_out(
            spot.block,
            "paths are not matched by regular expressions: what takes the path otherwise gets it",
            instead,
        );
    }
}
