//! What an nginx sends where: read out of `nginx -T`, every file of its configuration as nginx itself took it.

use std::collections::BTreeMap;

use crate::nginx::{self, Directive, Sets};

/// What keeps visitors out of a place: who takes over what is behind it must not let them in.
const GUARDS: [&str; 11] = [
    "allow",
    "auth_basic",
    "auth_jwt",
    "auth_request",
    "deny",
    "internal",
    "limit_conn",
    "limit_except",
    "limit_req",
    "secure_link",
    "valid_referers",
];

/// What is known of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sites {
    /// What is handed on to an application.
    pub(super) routes: Vec<Route>,
    /// What is not, in words: files, redirects, regular expressions.
    pub(super) others: Vec<String>,
    /// Whether it ends TLS.
    pub(super) has_tls: bool,
}

/// Requests that are handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Their hosts; empty: all that no other route has.
    pub(super) hosts: Vec<String>,
    /// Their paths' prefix.
    pub(super) path: String,
    /// Whether the prefix is taken off.
    pub(super) is_stripped: bool,
    /// Where to: host and port, once a server of an upstream.
    pub(super) to: Vec<(String, u16)>,
}

/// Returns the directive of a block that keeps visitors out, as it is written.
fn guard(block: &Directive) -> Option<String> {
    let guard = block.inner().iter().find(|directive| {
        let word = directive.argument(0);
        match directive.name.as_str() {
            "auth_basic" | "auth_request" | "auth_jwt" => word != "off",
            "allow" => word != "all",
            "return" => word.starts_with('4'),
            "if" => guard(directive).is_some(),
            name => GUARDS.contains(&name),
        }
    })?;
    Some(guard.text())
}

/// A place that nginx keeps visitors out of.
struct Closed {
    /// Below which path; `None` where it can't be told, as of a regular expression.
    path: Option<String>,
    /// In words.
    what: String,
}

/// Reads what `nginx -T` prints.
pub(super) fn read(dump: &str) -> Sites {
    let mut sites = Sites::default();
    let root = match nginx::load_dump(dump) {
        Ok(loaded) => loaded.directives,
        Err(error) => {
            sites.others.push(format!("its configuration, which is cut off or of another kind: {error}"));
            return sites;
        }
    };
    for http in nginx::blocks(&root, "http") {
        read_http(http, &mut sites);
    }
    for stream in nginx::blocks(&root, "stream").flat_map(|stream| stream.all("server")) {
        let listen = stream.all("listen").flat_map(|listen| &listen.arguments).next();
        sites.others.push(format!("a stream on {}", listen.map_or("a port", String::as_str)));
    }
    sites
}

fn read_http(http: &Directive, sites: &mut Sites) {
    let upstreams: BTreeMap<&str, Vec<&str>> = http
        .all("upstream")
        .filter_map(|upstream| {
            let servers = upstream.all("server").filter_map(|server| server.arguments.first());
            Some((upstream.arguments.first()?.as_str(), servers.map(String::as_str).collect()))
        })
        .collect();
    let servers: Vec<&Directive> = http.all("server").collect();
    let is_marked = |server: &Directive| {
        server.all("listen").any(|listen| listen.arguments.iter().any(|word| word == "default_server"))
    };
    // Without a mark it is the first.
    let default = servers.iter().position(|server| is_marked(server)).unwrap_or(0);
    let closed = guard(http);
    for (index, server) in servers.into_iter().enumerate() {
        sites.has_tls |= server.all("listen").any(|listen| listen.arguments.iter().any(|word| word == "ssl"));
        let names = server.all("server_name").flat_map(|names| &names.arguments);
        let names: Vec<String> =
            names.filter(|name| !matches!(name.as_str(), "" | "_" | "localhost")).cloned().collect();
        let hosts = if index == default { Vec::new() } else { names.clone() };
        let who = names.first().map_or_else(|| "the default server".to_owned(), Clone::clone);
        if index != default && hosts.is_empty() {
            sites.others.push("a second server without a name".to_owned());
            continue;
        }
        let site = Site { hosts: &hosts, who: &who, upstreams: &upstreams, server };
        let mut found = Found::default();
        for name in ["return", "rewrite"].into_iter().filter(|name| server.all(name).next().is_some()) {
            found.others.push(format!("{who}: `{name}`"));
        }
        site.read(server, closed.clone().or_else(|| guard(server)).as_deref(), &mut found);
        sites.others.append(&mut found.others);
        for route in found.routes {
            // Whoever is let in to the one would be let in to the other.
            let holds = |closed: &&Closed| closed.path.as_ref().is_none_or(|path| path.starts_with(&route.path));
            match found.closed.iter().find(holds) {
                Some(closed) => sites.others.push(format!("{who}: location {}, as {}", route.path, closed.what)),
                None => sites.routes.push(route),
            }
        }
    }
}

/// What is found in one server.
#[derive(Default)]
struct Found {
    routes: Vec<Route>,
    others: Vec<String>,
    closed: Vec<Closed>,
}

/// A server of the configuration.
struct Site<'d> {
    hosts: &'d [String],
    who: &'d str,
    upstreams: &'d BTreeMap<&'d str, Vec<&'d str>>,
    server: &'d Directive,
}

impl Site<'_> {
    /// Reads the locations of a server, and those within them; `closed` keeps visitors out of all of them.
    fn read(&self, outer: &Directive, closed: Option<&str>, found: &mut Found) {
        for location in outer.all("location") {
            let own = guard(location);
            let closed = own.as_deref().or(closed);
            let words = location.arguments.as_slice();
            let path = match words {
                [path] if path.starts_with('/') => Some(path),
                [modifier, path] if modifier == "^~" => Some(path),
                _ => None,
            };
            if let Some(guard) = closed {
                let what = format!("`{guard}` keeps visitors out of {}", words.join(" "));
                let exact = (words.len() == 2 && words[0] == "=").then(|| words[1].clone());
                found.others.push(format!("{}: {what}", self.who));
                found.closed.push(Closed { path: path.cloned().or(exact), what });
            } else if let Some(path) = path {
                self.read_prefix(location, path, found);
            } else {
                found.others.push(format!("{}: location {}", self.who, words.join(" ")));
                continue;
            }
            self.read(location, closed, found);
        }
    }

    fn read_prefix(&self, location: &Directive, path: &str, found: &mut Found) {
        let Some(pass) = location.all("proxy_pass").flat_map(|pass| &pass.arguments).next() else {
            found.others.push(format!("{}: location {path}, which nginx serves by itself", self.who));
            return;
        };
        // What has another path there, or goes nowhere, is none that a prefix tells.
        let is_plain = ["return", "rewrite"].iter().all(|name| location.all(name).next().is_none());
        let target = self.target(&self.resolved(pass, location)).filter(|_| is_plain);
        match target {
            Some((to, is_stripped)) => found.routes.push(Route {
                hosts: self.hosts.to_vec(),
                path: path.to_owned(),
                is_stripped: is_stripped && path != "/",
                to,
            }),
            None => found.others.push(format!("{}: location {path} to {pass}", self.who)),
        }
    }

    /// Puts in what `set` says of a variable.
    fn resolved(&self, text: &str, location: &Directive) -> String {
        let text =
            Sets::default().within(self.server.inner()).within(location.inner()).put_in(text).replace(['{', '}'], "");
        // What every proxy hands on anyway.
        ["$request_uri", "$uri", "$is_args", "$args"].iter().fold(text, |text, variable| text.replace(variable, ""))
    }

    fn target(&self, pass: &str) -> Option<(Vec<(String, u16)>, bool)> {
        let rest = pass.strip_prefix("http://").filter(|rest| !rest.contains('$'))?;
        let (authority, uri) = rest.split_once('/').map_or((rest, None), |(authority, uri)| (authority, Some(uri)));
        // In the place of the prefix stands another: that is more than taking one off.
        if uri.is_some_and(|uri| !uri.is_empty()) {
            return None;
        }
        let addresses = match self.upstreams.get(authority) {
            Some(servers) => servers.iter().map(|server| address(server)).collect::<Option<Vec<_>>>()?,
            None => vec![address(authority)?],
        };
        (!addresses.is_empty()).then_some((addresses, uri == Some("")))
    }
}

fn address(text: &str) -> Option<(String, u16)> {
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
        None => Some((text.to_owned(), 80)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r#"# configuration file /etc/nginx/nginx.conf:
user nginx;
http {
    # location / { proxy_pass http://commented:1; }
    log_format main '$remote_addr "$request" {';
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    upstream shop { server shop_GREEN:9000; keepalive 16; }
    include /etc/nginx/conf.d/*.conf;
}
# configuration file /etc/nginx/conf.d/default.conf:
server {
    listen 80;
    location / { include proxy_params; proxy_pass http://uptimer_BLUE:8080; }
}
# configuration file /etc/nginx/conf.d/shop.conf:
server {
    listen 80; server_name shop.test www.shop.test;
    set $live shop;
    location / { proxy_pass http://$live; }
    location /api/ { proxy_pass http://api_BLUE/; }
    location /static { root /srv; }
    location ~ \.php$ { proxy_pass http://php:9000; }
}
# configuration file /etc/nginx/proxy_params:
proxy_set_header Host ${host};
"#;

    fn route(hosts: &[&str], path: &str, is_stripped: bool, to: (&str, u16)) -> Route {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Route { hosts, path: path.to_owned(), is_stripped, to: vec![(to.0.to_owned(), to.1)] }
    }

    #[test]
    fn what_is_handed_on_is_found_through_includes_upstreams_and_variables() {
        let sites = read(DUMP);
        let shop = ["shop.test", "www.shop.test"];
        assert_eq!(
            sites.routes,
            [
                route(&[], "/", false, ("uptimer_BLUE", 8080)),
                route(&shop, "/", false, ("shop_GREEN", 9000)),
                route(&shop, "/api/", true, ("api_BLUE", 80)),
            ]
        );
        assert_eq!(
            sites.others,
            ["shop.test: location /static, which nginx serves by itself", "shop.test: location ~ \\.php$",]
        );
        assert!(!sites.has_tls);
    }

    #[test]
    fn what_nginx_keeps_visitors_out_of_is_never_opened() {
        let read = |server: &str| read(&format!("http {{ server {{ {server} }} }}"));
        let open = "location / { proxy_pass http://shop_BLUE; }";
        for closed in [
            "location / { auth_basic shop; proxy_pass http://shop_BLUE; }".to_owned(),
            format!("deny 10.0.0.1; {open}"),
            format!("limit_req zone=one; {open}"),
            format!("{open} location /admin {{ deny all; }}"),
            format!("{open} location /admin {{ return 403; }}"),
            format!("{open} location = /admin {{ internal; }}"),
            format!("{open} location ~ /[.]ht {{ deny all; }}"),
            format!(
                "{open} location /a {{ proxy_pass http://shop_BLUE; location /a/b {{ allow 10.0.0.1; deny all; }} }}"
            ),
            format!("if ($bad) {{ return 403; }} {open}"),
        ] {
            let sites = read(&closed);
            assert!(!sites.routes.iter().any(|route| route.path == "/"), "{closed}: {:?}", sites.routes);
            assert!(
                sites.others.iter().any(|other| other.contains("keeps visitors out")),
                "{closed}: {:?}",
                sites.others
            );
        }
        // Beside, and not within: and what is said to be open is open.
        let beside = read("location /shop { proxy_pass http://shop_BLUE; } location /admin { deny all; }");
        assert_eq!(beside.routes, [route(&[], "/shop", false, ("shop_BLUE", 80))]);
        let off = read("auth_basic off; allow all; location / { proxy_pass http://shop_BLUE; }");
        assert_eq!(off.routes.len(), 1, "{:?}", off.others);
    }

    #[test]
    fn a_path_that_nginx_changes_is_not_taken_for_one_that_it_does_not() {
        let text = "http { server { location /api/ { proxy_pass http://api_BLUE/v2/; }
            location /old { rewrite ^/old(.*) /new$1 break; proxy_pass http://api_BLUE; } } }";
        assert_eq!((read(text).routes, read(text).others.len()), (Vec::new(), 2));
    }

    #[test]
    fn the_default_server_takes_every_host_whatever_its_name() {
        let text = "http { server { server_name a.test; location / { proxy_pass http://a_BLUE; } }
            server { listen 80 default_server; server_name b.test; location / { proxy_pass http://b_BLUE; } } }";
        let hosts: Vec<Vec<String>> = read(text).routes.into_iter().map(|route| route.hosts).collect();
        assert_eq!(hosts, [vec!["a.test".to_owned()], Vec::new()]);
        assert!(read("http { server { listen 443 ssl; } }").has_tls);
    }

    #[test]
    fn a_text_that_is_cut_off_or_is_none_is_no_panic() {
        for text in
            ["", "}}}", "http {", "http { server { location", "\"", "\\", "${", "a ' b", "# configuration file x"]
        {
            assert!(read(text).routes.is_empty(), "{text}");
        }
        let mut cut = DUMP;
        while let Some((end, _)) = cut.char_indices().next_back() {
            cut = &cut[..end];
            read(cut);
        }
    }
}
