//! Every key of `bluegreen.toml` with what it takes and what it means: for the JSON schema, and for the hint at a wrong key.

use serde_json::{Map, Value, json};

use Takes::{Any, Flag, Share, Size, Status, Table, Text, Texts, Time, Whole, Word};

/// A key.
#[derive(Debug, Clone, Copy)]
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
}

/// What `image_health` takes.
pub const IMAGE_HEALTH: &[&str] = &["require", "ignore"];
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
    key("port", Whole(1, 65_535), "the port that the application listens on"),
    key("domains", Texts, "hosts, exact or *.example.com"),
    key("paths", Texts, "path prefixes, on segment boundaries"),
    key("strip_path", Flag, "take the prefix off before the application sees it"),
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
    key("error_pages", Table, "files of HTML, by status"),
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
    let proxy = table("the proxy's own settings: what is left out has its default", &proxy);
    target.insert("proxy".to_owned(), proxy.clone());
    top.insert("proxy".to_owned(), proxy);
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
    };
    value["description"] = json!(key.about);
    value
}
