//! An nginx configuration becomes the equal services of `bluegreen.toml`; what has no equal is told, with its place.

mod chain;
mod draft;
mod folder;
mod headers;
mod location;
mod notes;
mod redirect;
mod server;
mod serving;
pub(crate) mod toml;
mod upstream;
mod vocabulary;
mod write;

use std::collections::BTreeMap;

use config::duration;

pub(crate) use self::notes::{Note, Weight};
pub(crate) use self::write::write;

use self::chain::Chain;
use self::draft::Draft;
use self::notes::Notes;
use self::server::{Led, Server, Shared};
use self::vocabulary::Fate;
use crate::nginx::{Directive, Loaded, blocks};

#[cfg(test)]
mod tests;

/// What a configuration becomes.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// The services.
    services: Vec<Draft>,
    /// Certificates and their keys.
    certificates: Vec<(String, String)>,
    /// `[proxy]` and its tables, by their headings: keys and values.
    proxy: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// What there is to look at.
    pub(crate) notes: Vec<Note>,
}

impl Imported {
    /// Returns the names of the services.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.services.iter().map(|draft| draft.name.as_str()).collect()
    }
}

/// Reads configurations as one.
pub(crate) fn import(files: &[Loaded]) -> Imported {
    let mut notes = Notes::default();
    let mut imported = Imported::default();
    for missing in files.iter().flat_map(|file| &file.missing) {
        let instead =
            "give it beside the others where it has servers or locations: on its machine, or as `nginx -T` prints it";
        notes.left_out(&missing.directive, format!("{}, and what it says is not known", missing.why), instead);
    }
    // A file that is included elsewhere begins with its servers.
    let empty = Chain::default();
    let mut https: Vec<(Chain<'_>, Vec<&Directive>)> = Vec::new();
    let mut outer: Vec<&Directive> = Vec::new();
    for file in files {
        survey(&file.directives, &mut notes);
        for http in blocks(&file.directives, "http") {
            https.push((empty.within(http.inner()), http.all("server").collect()));
            outer.extend(http.inner());
        }
        let servers: Vec<&Directive> = blocks(&file.directives, "server").collect();
        if !servers.is_empty() {
            https.push((empty.within(&file.directives), servers));
            outer.extend(&file.directives);
        }
    }
    let named = |name: &str| outer.iter().filter(move |one| one.name == name).copied().collect::<Vec<_>>();
    let upstreams = files.iter().flat_map(|file| upstream::upstreams(&file.directives));
    let inner = https_blocks(files).flat_map(|http| upstream::upstreams(http.inner()));
    let zone = |zone: &'_ Directive| {
        let name = zone.arguments.iter().find_map(|word| word.strip_prefix("zone="));
        name.map_or("", |name| name.split(':').next().unwrap_or_default()).to_owned()
    };
    let zones = named("limit_req_zone").into_iter().chain(named("limit_conn_zone"));
    let zones = zones.map(|directive| (zone(directive), directive)).collect();
    let shared = Shared { upstreams: upstreams.chain(inner).collect(), zones };
    let mut servers = servers(&https);
    // Of two that take the same, that of TLS says how.
    servers.sort_by_key(|server| !server.has_tls());
    let mut led = Vec::new();
    for server in &servers {
        proxy_settings(server, &mut imported, &mut notes);
        let found = server.read(&shared, &mut notes);
        add(&mut imported.services, found.drafts, server, &mut notes);
        led.push((server, found.to_https, found.to_host));
    }
    for (server, to_https, to_host) in led {
        lead(&mut imported.services, server, to_https, to_host, &mut notes);
    }
    draft::name(&mut imported.services);
    write::note_what_is_not_taken(&imported.services, &mut notes);
    imported.notes = notes.sorted();
    imported
}

fn https_blocks(files: &[Loaded]) -> impl Iterator<Item = &Directive> {
    files.iter().flat_map(|file| blocks(&file.directives, "http"))
}

/// Notes every directive that stands beside what is imported and has no equal.
fn survey(directives: &[Directive], notes: &mut Notes) {
    for directive in directives {
        // A map for the connections of WebSockets needs nothing, and what is in such a table is none of a directive.
        if directive.name == "map" && directive.argument(1) == "$connection_upgrade" {
            continue;
        }
        if let Fate::Missing(what, instead) = vocabulary::fate(&directive.name) {
            notes.left_out(directive, what, instead);
            continue;
        }
        if directive.name == "stream" {
            notes.left_out(
                directive,
                "bytes are not handed on, HTTP alone is",
                "keep nginx for it, on the ports that it has",
            );
            continue;
        }
        if directive.name == "proxy_redirect" && !matches!(directive.argument(0), "off" | "default") {
            notes.differs(
                directive,
                "an application's Location is handed on as it is",
                "let it write links for its public name",
            );
        }
        if !matches!(directive.name.as_str(), "types" | "events" | "upstream")
            && !directive.name.ends_with("_by_lua_block")
        {
            survey(directive.inner(), notes);
        }
    }
}

/// Returns the servers, each with its names.
fn servers<'d>(https: &[(Chain<'d>, Vec<&'d Directive>)]) -> Vec<Server<'d>> {
    let mut servers = Vec::new();
    for (chain, blocks) in https {
        for block in blocks {
            let names = block.all("server_name").flat_map(|names| &names.arguments);
            let names: Vec<String> = names
                .filter(|name| !matches!(name.as_str(), "" | "_" | "localhost" | "$hostname" | "*"))
                .flat_map(|name| match name.strip_prefix('.') {
                    // Itself, and all below it.
                    Some(name) => vec![name.to_owned(), format!("*.{name}")],
                    None => vec![name.to_ascii_lowercase()],
                })
                .collect();
            let is_marked = block.all("listen").any(|listen| {
                listen.arguments.iter().any(|word| matches!(word.as_str(), "default_server" | "default"))
            });
            let is_default = is_marked || names.is_empty();
            servers.push(Server { block, chain: chain.within(block.inner()), names, is_default });
        }
    }
    servers
}

/// Adds services whose routes nobody has yet.
fn add(services: &mut Vec<Draft>, drafts: Vec<Draft>, server: &Server<'_>, notes: &mut Notes) {
    for mut draft in drafts {
        let is_pattern = |name: &String| name.starts_with('~') || name.ends_with(".*");
        if let Some(names) = server.block.first("server_name").filter(|_| draft.domains.iter().any(is_pattern)) {
            notes.left_out(
                names,
                "hosts are names, or `*.` and a name: no other pattern is taken",
                "list in `domains` the hosts that there are",
            );
            draft.domains.retain(|name| !is_pattern(name));
            if draft.domains.is_empty() {
                continue;
            }
        }
        let is_taken = |path: &str, known: &Draft| {
            known.paths.iter().any(|other| other == path)
                && (draft.domains.is_empty() && known.domains.is_empty()
                    || known.domains.iter().any(|domain| draft.domains.contains(domain)))
        };
        let taken: Vec<&Draft> =
            services.iter().filter(|known| draft.paths.iter().any(|path| is_taken(path, known))).collect();
        let Some(other) = taken.first() else {
            services.push(draft);
            continue;
        };
        // The same on another port is what we do anyway.
        if other.to != draft.to || other.all_options() != draft.all_options() {
            let what =
                format!("{} serves the same hosts and paths, whatever the port: this server is left out", other.place);
            notes.left_out(server.block, what, "give one of the two other hosts, where they are to differ");
        }
    }
}

/// Leads the visitors of a server to https, or to another host.
fn lead(
    services: &mut Vec<Draft>,
    server: &Server<'_>,
    to_https: Option<&Directive>,
    to_host: Option<Led>,
    notes: &mut Notes,
) {
    if let Some(directive) = to_https {
        let is_meant =
            |draft: &Draft| server.is_default || draft.domains.iter().any(|domain| server.names.contains(domain));
        let mut meant = services.iter_mut().filter(|draft| is_meant(draft)).peekable();
        if meant.peek().is_none() {
            let instead = "give its file too, or let who ends TLS lead visitors there";
            notes.left_out(directive, "no server for TLS of these names is here", instead);
        }
        meant.for_each(|draft| drop(draft.options.insert("https_redirect", "true".to_owned())));
    }
    let Some(Led { host, status, to, name }) = to_host else { return };
    let names = name.map_or_else(|| server.names.clone(), |name| vec![name]);
    let names: Vec<String> = names.into_iter().filter(|name| *name != host).collect();
    let serves = |draft: &Draft| draft.domains.contains(&host) || draft.also_named.contains(&host);
    // Where nobody serves the host here, its visitors are led there all the same.
    if !services.iter().any(serves) {
        services.push(server.draft(server.block, "/", "server"));
        if let Some(added) = services.last_mut() {
            added.domains.clone_from(&names);
            names.iter().for_each(|name| added.push("redirects", redirect::redirect("host", name, &to, status)));
        }
        return;
    }
    for draft in services.iter_mut().filter(|draft| serves(draft)) {
        let missing: Vec<String> = names.iter().filter(|name| !draft.domains.contains(name)).cloned().collect();
        if !draft.domains.is_empty() {
            draft.domains.extend(missing);
        }
        names.iter().for_each(|name| draft.push("redirects", redirect::redirect("host", name, &to, status)));
    }
}

/// Reads what is the proxy's own: certificates, who is trusted, time-outs of clients, the log.
fn proxy_settings(server: &Server<'_>, imported: &mut Imported, notes: &mut Notes) {
    let chain = &server.chain;
    if server.has_tls() {
        let keys = chain.all("ssl_certificate_key");
        for (certificate, key) in chain.all("ssl_certificate").into_iter().zip(keys) {
            let path = |of: &Directive| serving::beside(of, &chain.put_in(of.argument(0)));
            let pair = (path(certificate), path(key));
            if !imported.certificates.contains(&pair) {
                imported.certificates.push(pair);
            }
        }
        if let Some(verify) = chain.last("ssl_verify_client").filter(|verify| verify.argument(0) != "off") {
            notes.opens(
                verify,
                "no certificate of a client is asked for by what is written here",
                "`client_ca` in the service's options",
            );
        }
    }
    let mut put = |table: &'static str, key: &'static str, value: String| {
        drop(imported.proxy.entry(table).or_default().insert(key, value));
    };
    let from: Vec<String> = chain.all("set_real_ip_from").iter().map(|one| one.argument(0).to_owned()).collect();
    let from: Vec<String> = from.into_iter().filter(|network| network != "unix:").collect();
    if !from.is_empty() {
        let is_protocol =
            server.block.all("listen").any(|listen| listen.arguments.iter().any(|word| word == "proxy_protocol"));
        put("proxy", if is_protocol { "proxy_protocol" } else { "trusted_proxies" }, toml::texts(&from));
    }
    for (key, directive) in [
        ("header_timeout", "client_header_timeout"),
        ("body_idle_timeout", "client_body_timeout"),
        ("idle_timeout", "keepalive_timeout"),
    ] {
        if let Some(time) = chain.word(directive).and_then(|text| serving::time(&text)) {
            put("proxy.limits", key, toml::text(&duration::format(time)));
        }
    }
    if let Some(log) = chain.word("access_log").filter(|log| log != "off") {
        put("proxy.log", "access", toml::text("combined"));
        if log.starts_with('/') {
            put("proxy.log", "# access_file", toml::literal(&log));
        }
    }
}
