//! Every key of `bluegreen.toml` with what it takes and what it means: for the JSON schema, and for the hint at a wrong key.

use serde_json::{Map, Value, json};

use Takes::{Any, Flag, FlagOrKeys, Keys, Number, Share, Size, Status, Table, Tables, Text, Texts, Time, Whole, Word};

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it means.
    pub about: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// A text or a number.
    Any,
    /// A number of bytes with its unit, as a text or bare.
    Size,
    /// A table of texts.
    Table,
    /// True or false.
    Flag,
    /// A whole number, the least and the most.
    Whole(i64, i64),
    /// A percentage.
    Share,
    /// `200` or `200-399`.
    Status,
    /// A duration: `200ms`, `30s`.
    Time,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A number, of which some are taken.
    Number(&'static [i64]),
    /// A table with these keys.
    Keys(&'static [Key]),
    /// A list of such tables, or one alone.
    Tables(&'static [Key]),
    /// True, false, or such a table.
    FlagOrKeys(&'static [Key]),
}

/// What `image_health` takes.
pub const IMAGE_HEALTH: &[&str] = &["require", "ignore"];
/// What `tls` takes.
pub const TLS: &[&str] = &["off", "auto"];
/// What `keep` takes.
pub const KEEP: &[&str] = &["warm", "stopped", "none"];
/// What `pull` takes.
pub const PULL: &[&str] = &["missing", "always", "never"];

const fn key(name: &'static str, takes: Takes, about: &'static str) -> Key {
    Key { name, takes, about }
}

/// The keys of the file itself, `proxy` and `services` aside.
pub const TOP: &[Key] =
    &[key("host", Text, "the Docker host: an ssh name, user@host, or a URL (ssh:// unix:// tcp://)")];

/// The list of own certificates.
pub const CERTIFICATES: &str = "certificates";

/// The keys of `[[certificates]]`.
pub const CERTIFICATE: &[Key] = &[
    key("cert", Text, "the file of a certificate, its issuers behind it, in PEM"),
    key("key", Text, "the file of its key, in PEM; it is shown nowhere"),
];

/// The keys of `[proxy]`, its tables aside.
pub const PROXY: &[Key] = &[
    key(
        "trusted_proxies",
        Texts,
        "networks whose X-Forwarded-* and Forwarded are believed: 10.0.0.0/8, private, cloudflare",
    ),
    key("proxy_protocol", Texts, "networks of load balancers whose connections begin with a PROXY header"),
];

/// The keys of `[proxy.limits]`.
pub const LIMITS: &[Key] = &[
    key("connections", Whole(1, 1_000_000), "client connections at once"),
    key("connections_per_address", Whole(1, 1_000_000), "those of one client address"),
    key("header_timeout", Time, "the complete head of a request, from its first byte"),
    key("idle_timeout", Time, "a client connection without a request"),
    key("body_idle_timeout", Time, "a body in which nothing moves"),
    key("connect_timeout", Time, "connecting to an application"),
    key("response_timeout", Time, "from the whole request sent to the head of the answer"),
    key("shutdown_timeout", Time, "how long SIGTERM waits for requests in flight"),
];

/// The keys of `[proxy.log]`.
pub const LOG: &[Key] = &[
    key("access", Word(&["off", "combined", "json"]), "a line for each request at its end"),
    key("access_file", Text, "the file of the proxy's host that the lines go to, instead of its stdout"),
    key("access_redact", Texts, "query parameters whose values are not written"),
    key("access_exclude", Texts, "path prefixes whose requests are not written"),
    key("access_one_in", Whole(1, 1_000_000), "one of so many requests is written"),
];

/// The keys of `[proxy.webhook]`.
pub const WEBHOOK: &[Key] = &[
    key("url", Text, "where a POST goes when the proxy acted alone: https://... or http://..."),
    key("secret", Text, "what signs it; best a ${VARIABLE}"),
    key("ca", Text, "a file of the proxy's host with certificates that are believed besides the public authorities'"),
];

/// The keys of `[proxy.acme]`.
pub const ACME: &[Key] = &[
    key("email", Text, "whom the authority writes to"),
    key("directory", Text, "the authority's address; left out it is Let's Encrypt"),
    key("staging", Flag, "Let's Encrypt's authority for trials, which no browser believes"),
    key("eab_key_id", Text, "the name of the key that binds the account to one that you have there"),
    key("eab_hmac", Text, "that key; best a ${VARIABLE}"),
    key("eab_hmac_file", Text, "the file of the proxy's host that it stands in"),
    key("ca", Text, "a file of the proxy's host with certificates that are believed of the authority's own site"),
    key("dns_hook", Texts, "a program of the proxy's host that writes records of DNS, and its arguments"),
    key("challenges", Texts, "in which order a domain is proved: http-01, tls-alpn-01, dns-01"),
    key("redirect", Flag, "lead visitors of plain HTTP to https, once there is a certificate"),
    key("on_demand", Text, "whom the proxy asks, by GET, whether a host that no service names may have a certificate"),
    key(
        "on_demand_per_hour",
        Whole(1, 1_000_000),
        "how many such hosts are given one in an hour; 30 where it is left out",
    ),
];

/// The keys of `bgproxy.toml` that no table here has: the proxy takes them when it starts.
pub const RESTART: &[&str] = &["listen", "listen_tls", "admin", "state", "workers", "metrics"];
/// The same of its `[limits]`.
pub const RESTART_LIMITS: &[&str] =
    &["header_bytes", "header_fields", "target_bytes", "upstream_idle", "upstream_idle_connections"];
/// The same of its `[log]`.
pub const RESTART_LOG: &[&str] = &["level", "format"];

/// What `before_flip_in` takes.
pub const FLIP_IN: &[&str] = &["here", "container"];

/// The keys of `[services.NAME.hooks]`.
pub const HOOKS: &[Key] = &[
    key("before_start", Text, "the same as before: run in a one-off container of the new image before it starts"),
    key("before_flip", Text, "run when the new version is healthy and before it is live: a smoke test"),
    key("before_flip_in", Word(FLIP_IN), "where: here, or in a one-off container of the new image on its network"),
    key("after", Text, "run here when the deployment is done"),
    key("on_failure", Text, "run here when the deployment has failed"),
    key("timeout", Time, "how long each of them may take"),
];

/// The keys of a secret in `[services.NAME.secrets]`: one of them.
pub const SECRET: &[Key] = &[
    key("file", Text, "a file whose text is the value"),
    key("command", Text, "a command whose output is the value, run where bgctl runs"),
    key("env", Text, "a variable of the environment of bgctl"),
];

/// The keys of `[services.NAME]`, its tables aside.
pub const SERVICE: &[Key] = &[
    key("image", Text, "the image"),
    key("with", Texts, "services of this file that are switched together with it, such as a worker of the same image"),
    key(
        "to",
        Texts,
        "addresses that bgctl does not run, host:port or unix:/run/app.sock; `apply` puts them behind the proxy",
    ),
    key("no_health", Flag, "count those addresses as healthy without a probe"),
    key("port", Whole(1, 65_535), "the port that the application listens on"),
    key("domains", Texts, "hosts, exact or *.example.com"),
    key("paths", Texts, "path prefixes, on segment boundaries"),
    key("strip_path", Flag, "take the prefix off before the application sees it"),
    key("tls", Word(TLS), "auto: certificates for its domains come by themselves"),
    key("health_path", Text, "what a probe asks for"),
    key("health_port", Whole(1, 65_535), "another port to probe"),
    key("health_host", Text, "the Host of a probe"),
    key("health_headers", Table, "more header fields of a probe"),
    key("health_status", Status, "the statuses that pass"),
    key("health_timeout", Time, "how long one probe may take"),
    key("health_interval", Time, "from one probe to the next"),
    key("healthy", Whole(1, 100), "passes in a row that make it healthy"),
    key("deadline", Time, "the whole wait for health"),
    key("image_health", Word(IMAGE_HEALTH), "what becomes of the image's own HEALTHCHECK"),
    key("drain", Time, "how long requests on the old slot may go on"),
    key("drain_tunnels", Time, "the same for WebSockets and event streams"),
    key("detach", Flag, "end with the flip; the proxy drains and watches by itself"),
    key("pause", Flag, "hold visitors around the flip, for versions that can't serve side by side"),
    key("bake", Time, "how long the old slot stays warm after the flip; 0 is none"),
    key("bake_errors", Share, "so many more of a hundred requests may fail in the bake than before"),
    key("bake_slow", Whole(0, 1_000_000), "in the bake a request is slow that takes so many times what was usual"),
    key("keep", Word(KEEP), "what becomes of the old container after the bake"),
    key("stop_grace", Time, "how long the old container may take to stop"),
    key("keep_images", Whole(0, 10_000), "images of past deployments that prune leaves"),
    key("pull", Word(PULL), "whether to pull the image"),
    key("before", Text, "run in a one-off container of the new image before it starts: migrations"),
    key("before_timeout", Time, "how long that may take"),
    key("replicas", Whole(1, 1000), "how many containers the slot has"),
    key("stop_first", Flag, "stop the old version before the new one starts"),
    key("no_port", Flag, "a worker, which takes no requests"),
    key("note", Text, "what history is to remember of each deployment"),
    key("lock_wait", Time, "wait so long while someone else holds the lock"),
    key("env", Table, "environment variables"),
    key("env_inherit", Texts, "variables whose values come from the environment of bgctl: secrets"),
    key("env_files", Texts, "files of variables; a relative path begins in the folder of this file"),
    key("volumes", Texts, "as docker's --volume; ./data:/data begins in the folder of this file"),
    key("mounts", Texts, "as docker's --mount"),
    key("tmpfs", Texts, "as docker's --tmpfs"),
    key("networks", Texts, "networks besides the gateway's"),
    key("user", Any, "as docker's --user"),
    key("init", Flag, "as docker's --init"),
    key("add_hosts", Texts, "as docker's --add-host"),
    key("labels", Texts, "as docker's --label"),
    key("memory", Size, "as docker's --memory"),
    key("cpus", Any, "as docker's --cpus"),
    key("shm_size", Size, "as docker's --shm-size"),
    key("ulimits", Texts, "as docker's --ulimit"),
    key("entrypoint", Text, "as docker's --entrypoint"),
    key("command", Texts, "the command instead of the image's own"),
];

/// The keys of `[services.NAME.options]`.
pub const OPTIONS: &[Key] = &[
    key("protocol", Word(&["http1", "h2c"]), "what is spoken to the application"),
    key("connect_timeout", Time, "connecting to the application"),
    key("response_timeout", Time, "from the request to the head of its answer"),
    key("body_idle_timeout", Time, "a body in which nothing moves"),
    key("request_bytes", Text, "the longest body of a request: 50MiB"),
    key("buffer_requests", Flag, "take a request's body whole first"),
    key("sticky", Flag, "a visitor stays with an endpoint"),
    key("requests_per_second", Whole(1, 1_000_000), "requests of one client address in a second"),
    key("burst", Whole(1, 1_000_000), "how many may come at once"),
    key("access_log", Flag, "its requests are in the access log"),
    key("https_redirect", Flag, "lead visitors of plain HTTP to https, or not, whatever the proxy does of others"),
    key("hsts", Text, "how long a browser remembers that there is https: 365d"),
    key("hsts_subdomains", Flag, "so it is of subdomains too"),
    key("client_ca", Text, "a file of the authority whose certificates clients have to show"),
    key("error_pages", Table, "files of HTML, by status"),
    key("redirects", Tables(REDIRECT), "requests that are sent to another address, the first that takes one first"),
    key("canonical_host", Text, "the one host that visitors are to see: those of others are sent there"),
    key("rewrite", Tables(REWRITE), "other paths for the application, the first that takes one first"),
    key("request_headers", Keys(HEADERS), "changes of the fields that the application gets"),
    key("response_headers", Keys(HEADERS), "changes of the fields that a client gets"),
    key("security_headers", Flag, "answers have the usual fields for safety, where the application sets none"),
    key("access", Tables(ACCESS), "which networks may come; others are answered 403"),
    key("basic_auth", Tables(AUTH), "who may come with a name and a password; others are answered 401"),
    key("rate_limits", Tables(RATE), "how many requests of one client are taken; more are answered 429"),
    key("compress", FlagOrKeys(COMPRESS), "make answers shorter on their way, where a client takes that"),
    key("static", Tables(STATIC), "folders of the proxy's host whose files are served beside the application"),
    key("old_assets", Keys(OLD_ASSETS), "what a new version doesn't have is asked of the old one, after a flip"),
];

/// The keys of one of `redirects`.
pub const REDIRECT: &[Key] = &[
    key("from", Text, "the paths that it takes; each * stands for anything: /old/*"),
    key("pattern", Text, "the same as a regular expression"),
    key("host", Text, "the hosts that it takes, exact or *.example.com"),
    key("to", Text, "where to, with variables: https://example.com$uri"),
    key("status", Number(&[301, 302, 303, 307, 308]), "the status"),
];

/// The keys of one of `rewrite`.
pub const REWRITE: &[Key] = &[
    key("prefix", Text, "the beginning of the path that to takes the place of"),
    key("pattern", Text, "a regular expression of the path: to takes the place of the whole"),
    key("to", Text, "what the application sees; $1 is the first group of the pattern"),
];

/// The keys of `request_headers` and `response_headers`.
pub const HEADERS: &[Key] = &[
    key("set", Table, "fields that get this value alone; it may have variables"),
    key("add", Table, "fields that get one more value"),
    key("remove", Texts, "fields that are taken out"),
];

/// The keys of `access`.
pub const ACCESS: &[Key] = &[
    key("allow", Texts, "networks that may come; where there is one, nobody else may"),
    key("deny", Texts, "networks that may not"),
    key("path", Text, "the path that it is for"),
];

/// The keys of `basic_auth`.
pub const AUTH: &[Key] = &[
    key("realm", Text, "what a browser shows beside the question"),
    key("users", Table, "the hash of each one's password, of bcrypt or argon2, by name"),
    key("users_file", Text, "a file of such names and hashes, as htpasswd -B writes it"),
    key("path", Text, "the path that it is for"),
    key("except", Texts, "paths for which nobody is asked"),
];

/// The keys of one of `rate_limits`.
pub const RATE: &[Key] = &[
    key("requests", Whole(1, 1_000_000), "so many in the time of per, in the long run"),
    key("per", Time, "the time"),
    key("burst", Whole(1, 1_000_000), "how many may come at once before that counts"),
    key("connections", Whole(1, 1_000_000), "how many may be under way at once"),
    key("by", Text, "what clients are told apart by: address, or header:X-Api-Key"),
    key("path", Text, "the path whose requests count"),
];

/// The keys of `compress`.
pub const COMPRESS: &[Key] = &[
    key("types", Texts, "media types, such as text/*"),
    key("min_bytes", Whole(0, 1_073_741_824), "a shorter answer is sent as it is"),
    key("algorithms", Texts, "br, zstd and gzip, the one that is preferred first"),
];

/// The keys of one of `static`.
pub const STATIC: &[Key] = &[
    key("path", Text, "the path that its files are below"),
    key("folder", Text, "the folder, as the proxy sees it"),
    key("index", Text, "what is served for a folder"),
    key("fallback", Text, "the file that is served where there is none"),
    key("cache", Time, "how long a browser may keep a file"),
    key("auth", Flag, "whether basic_auth counts for them"),
    key("fallthrough", Flag, "ask the application where there is no such file"),
];

/// The keys of `old_assets`.
pub const OLD_ASSETS: &[Key] = &[
    key("paths", Texts, "the paths; each * stands for anything: /assets/*"),
    key("minutes", Whole(1, 1440), "how long after a flip"),
];

/// The tables within `[services.NAME.options]`, by the key that each stands at.
pub const EDGE: [(&str, &[Key]); 9] = [
    ("redirects", REDIRECT),
    ("rewrite", REWRITE),
    ("request_headers", HEADERS),
    ("access", ACCESS),
    ("basic_auth", AUTH),
    ("rate_limits", RATE),
    ("compress", COMPRESS),
    ("static", STATIC),
    ("old_assets", OLD_ASSETS),
];

/// Returns the JSON schema of the file.
pub fn schema() -> Value {
    let mut service = properties(SERVICE);
    let mut secret = table("where its value comes from", &properties(SECRET));
    secret["minProperties"] = json!(1);
    secret["maxProperties"] = json!(1);
    let about = "variables whose values are read when it is deployed, and never shown";
    let secrets = json!({ "type": "object", "description": about, "additionalProperties": secret });
    service.insert("secrets".to_owned(), secrets);
    service.insert("hooks".to_owned(), table("commands around its deployments", &properties(HOOKS)));
    service.insert("options".to_owned(), table("how its requests are served", &properties(OPTIONS)));
    let mut top = properties(TOP);
    let services = json!({
        "type": "object",
        "description": "services, by name",
        "additionalProperties": table("a service: what is left out stays as it runs", &service),
    });
    let mut target = top.clone();
    target.insert("services".to_owned(), services.clone());
    top.insert("services".to_owned(), services);
    let mut proxy = properties(PROXY);
    proxy.insert("limits".to_owned(), table("limits and time-outs", &properties(LIMITS)));
    proxy.insert("log".to_owned(), table("the access log", &properties(LOG)));
    proxy.insert("webhook".to_owned(), table("who is told when the proxy acted alone", &properties(WEBHOOK)));
    proxy.insert("acme".to_owned(), table("where certificates come from that nobody brings", &properties(ACME)));
    let proxy = table("the proxy's own settings: what is left out has its default", &proxy);
    target.insert("proxy".to_owned(), proxy.clone());
    top.insert("proxy".to_owned(), proxy);
    let mut certificate = table("a certificate in files of this machine", &properties(CERTIFICATE));
    certificate["required"] = json!(["cert", "key"]);
    let about = "own certificates, which `up`, `apply`, `deploy` and `switch` bring to the proxy";
    let certificates = json!({ "type": "array", "description": about, "items": certificate });
    target.insert(CERTIFICATES.to_owned(), certificates.clone());
    top.insert(CERTIFICATES.to_owned(), certificates);
    let targets = json!({
        "type": "object",
        "description": "other places, by name: chosen by -t NAME, and laid over the rest of the file",
        "additionalProperties": table("what is different there", &target),
    });
    top.insert("target".to_owned(), targets);
    let mut schema = table("how the services of a project are deployed", &top);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("bluegreen.toml");
    schema
}

fn table(about: &str, properties: &Map<String, Value>) -> Value {
    json!({ "type": "object", "description": about, "additionalProperties": false, "properties": properties })
}

/// A table that takes no other keys.
fn closed(keys: &[Key]) -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": properties(keys) })
}

fn properties(keys: &[Key]) -> Map<String, Value> {
    keys.iter().map(|key| (key.name.to_owned(), property(key))).collect()
}

fn property(key: &Key) -> Value {
    let mut value = match key.takes {
        Text => json!({ "type": "string" }),
        Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Any | Size => json!({ "type": ["string", "number"] }),
        Table => json!({ "type": "object", "additionalProperties": { "type": ["string", "integer", "boolean"] } }),
        Flag => json!({ "type": "boolean" }),
        Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Share => json!({ "type": "integer", "minimum": 0, "maximum": 100 }),
        Status => json!({ "type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" }),
        Time => json!({ "type": "string", "examples": ["200ms", "30s", "1m 30s"] }),
        Word(words) => json!({ "enum": words }),
        Number(numbers) => json!({ "enum": numbers }),
        Keys(keys) => closed(keys),
        Tables(keys) => json!({ "anyOf": [{ "type": "array", "items": closed(keys) }, closed(keys)] }),
        FlagOrKeys(keys) => json!({ "anyOf": [{ "type": "boolean" }, closed(keys)] }),
    };
    value["description"] = json!(key.about);
    value
}
