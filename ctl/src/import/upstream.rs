//! Where `proxy_pass` leads: the addresses of an upstream, and what becomes of the path.

use std::collections::BTreeMap;

use config::name::EndpointAddr;

use super::notes::Notes;
use crate::nginx::{Directive, blocks};

/// The upstreams of a configuration, by their names.
pub(super) type Upstreams<'d> = BTreeMap<String, &'d Directive>;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The addresses.
    pub(super) to: Vec<String>,
    /// What the proxy would name as the host, where nothing else is said.
    pub(super) host: String,
    /// What stands in the place of the location's path, where something does.
    pub(super) path: Option<String>,
    /// An upstream has a way of its own to choose a server for a visitor.
    pub(super) is_sticky: bool,
    /// HTTP/2 is spoken there.
    pub(super) is_http2: bool,
}

/// Returns the upstreams of blocks.
pub(super) fn upstreams(directives: &[Directive]) -> Upstreams<'_> {
    blocks(directives, "upstream").map(|upstream| (upstream.argument(0).to_owned(), upstream)).collect()
}

/// Returns where a `proxy_pass` or `grpc_pass` leads, with its variables put in; none where that has no equal, which is noted.
pub(super) fn target(pass: &Directive, to: &str, upstreams: &Upstreams<'_>, notes: &mut Notes) -> Option<Target> {
    // What is handed on anyway.
    let to = ["${request_uri}", "$request_uri", "${uri}${is_args}${args}", "$uri$is_args$args"]
        .iter()
        .fold(to.to_owned(), |to, variable| to.strip_suffix(variable).map(str::to_owned).unwrap_or(to));
    let (scheme, rest) = to.split_once("://").unwrap_or(("http", &to));
    let is_grpc = pass.name == "grpc_pass";
    if matches!(scheme, "https" | "grpcs") {
        let instead = "let the application listen without TLS on this machine or network, and name that address";
        notes.left_out(pass, "the proxy speaks no TLS to applications, so nothing takes these requests", instead);
        return None;
    }
    if to.contains('$') {
        let instead = "give each application that it may mean a service of its own, with its domains or paths";
        notes.left_out(pass, "the address comes from a variable, so nothing takes these requests", instead);
        return None;
    }
    let (authority, path) = match rest.strip_prefix("unix:") {
        Some(socket) => {
            let (socket, path) = socket.split_once(':').map_or((socket, None), |(socket, path)| (socket, Some(path)));
            (format!("unix:{socket}"), path.map(str::to_owned))
        }
        None => {
            let (authority, path) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..])));
            (authority.to_owned(), path.map(str::to_owned))
        }
    };
    let mut target = Target { to: Vec::new(), host: authority.clone(), path, is_sticky: false, is_http2: is_grpc };
    match upstreams.get(&authority) {
        Some(upstream) => read_upstream(upstream, &mut target, notes),
        None => target.to.extend(address(&authority)),
    }
    if target.to.is_empty() {
        notes.left_out(pass, "it leads to no address, so nothing takes these requests", "name HOST:PORT in `to`");
        return None;
    }
    Some(target)
}

fn read_upstream(upstream: &Directive, target: &mut Target, notes: &mut Notes) {
    for directive in upstream.inner() {
        match directive.name.as_str() {
            "server" => read_server(directive, target, notes),
            "ip_hash" | "hash" | "sticky" => {
                target.is_sticky = true;
                let what = "a visitor stays with one server by a cookie (`sticky`), not by what nginx looks at";
                notes.differs(directive, what, "nothing, where visitors are browsers; else take `sticky` out");
            }
            // What we do anyway: the less busy of two, connections that are kept, names that are looked up anew.
            _ => {}
        }
    }
}

fn read_server(server: &Directive, target: &mut Target, notes: &mut Notes) {
    let options = &server.arguments[1.min(server.arguments.len())..];
    if options.iter().any(|option| option == "down") {
        return;
    }
    if options.iter().any(|option| option == "backup") {
        let instead = "add it to `to` where it may take requests always; one that fails is passed over for 5 s";
        notes.left_out(server, "there are no servers in reserve, so this one is left out", instead);
        return;
    }
    match address(server.argument(0)) {
        Some(address) => target.to.push(address),
        None => notes.left_out(server, "this is no address that the proxy can take", "name HOST:PORT in `to`"),
    }
    if let Some(weight) = options.iter().find(|option| option.starts_with("weight=") && *option != "weight=1") {
        let what = format!("there is no `{weight}`: each server gets what it can bear, the less busy of two the next");
        notes.differs(server, what, "nothing: a server that is twice as fast gets twice as much by itself");
    }
}

/// Returns an address as `to` has it: with a port always.
fn address(text: &str) -> Option<String> {
    let has_port =
        text.starts_with("unix:") || text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let text = if has_port { text.to_owned() } else { format!("{text}:80") };
    text.parse::<EndpointAddr>().ok().map(|address| address.to_string())
}
