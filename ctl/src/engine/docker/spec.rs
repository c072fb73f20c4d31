//! An instance's settings as the engine wants them: docker's own words in, one create call out.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::mount::{self, Volume};
use super::{labels, quantity};
use crate::engine::{EngineError, InstanceSpec, RunSettings};

/// Where a new container belongs.
pub(super) struct Surroundings<'a> {
    /// The gateway's network, which a container joins first.
    pub(super) network: &'a str,
    pub(super) log_driver: &'a str,
}

/// A container to create, and the networks to join before it starts.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub(super) body: ContainerCreateBody,
    pub(super) networks: Vec<(String, EndpointSettings)>,
}

/// Judges one value of a key of `bluegreen.toml` that is written in docker's own words; a key that is not has none.
///
/// # Errors
/// What docker would not understand either, in words.
pub fn judge(key: &str, text: &str) -> Result<(), String> {
    match key {
        "volumes" => mount::volume(text).map(drop),
        "mounts" => mount::mount(text).map(drop),
        "tmpfs" => mount::tmpfs(text).map(drop),
        "networks" => network(text).map(drop),
        "add_hosts" => add_host(text).map(drop),
        "labels" => user_label(text).map(drop),
        "ulimits" => quantity::ulimit(text).map(drop),
        "memory" | "shm_size" => quantity::bytes(text).map(drop),
        "cpus" => quantity::nano_cpus(text).map(drop),
        _ => Ok(()),
    }
}

/// Turns settings into the engine's form.
///
/// # Errors
/// [`EngineError::Usage`] that names the flag, for what docker would not understand either.
pub(super) fn blueprint(spec: &InstanceSpec, around: &Surroundings<'_>) -> Result<Blueprint, EngineError> {
    let run = &spec.run;
    let mut anonymous = Vec::new();
    let mut binds = Vec::new();
    for volume in parsed("--volume", &run.volumes, mount::volume)? {
        match volume {
            Volume::Anonymous(path) => anonymous.push(path),
            Volume::Bind(bind) => binds.push(bind),
        }
    }
    let host = HostConfig {
        binds: some(binds),
        mounts: some(parsed("--mount", &run.mounts, mount::mount)?),
        tmpfs: Some(parsed("--tmpfs", &run.tmpfs, mount::tmpfs)?.into_iter().collect::<HashMap<_, _>>())
            .filter(|tmpfs| !tmpfs.is_empty()),
        extra_hosts: some(parsed("--add-host", &run.add_hosts, add_host)?),
        ulimits: some(parsed("--ulimit", &run.ulimits, quantity::ulimit)?),
        memory: one("--memory", run.memory.as_deref(), quantity::bytes)?,
        nano_cpus: one("--cpus", run.cpus.as_deref(), quantity::nano_cpus)?,
        shm_size: one("--shm-size", run.shm_size.as_deref(), quantity::bytes)?,
        init: run.init.then_some(true),
        network_mode: Some(around.network.to_owned()),
        // Raised after the flip is saved, so that a reboot never revives a version that is not live.
        restart_policy: Some(restart_policy(RestartPolicyNameEnum::NO)),
        log_config: Some(log_config(around.log_driver)),
        ..HostConfig::default()
    };
    let mut all_labels = user_labels(run)?;
    all_labels.extend(labels::of_instance(around.network, spec));
    let body = ContainerCreateBody {
        image: Some(spec.image.id.clone()),
        env: Some(environment(spec)?),
        user: run.user.clone(),
        entrypoint: run.entrypoint.clone().map(|program| vec![program]),
        cmd: some(run.command.clone()),
        volumes: some(anonymous),
        labels: Some(all_labels),
        host_config: Some(host),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(around.network.to_owned(), EndpointSettings::default())])),
        }),
        ..ContainerCreateBody::default()
    };
    Ok(Blueprint { body, networks: parsed("--network", &run.networks, network)? })
}

/// Returns a restart policy by its name.
pub(super) fn restart_policy(name: RestartPolicyNameEnum) -> RestartPolicy {
    RestartPolicy { name: Some(name), maximum_retry_count: None }
}

/// Returns a log driver with its own defaults, and a size where it rotates by one alone.
pub(super) fn log_config(driver: &str) -> HostConfigLogConfig {
    let size = (driver == "k8s-file").then(|| HashMap::from([("max-size".to_owned(), "20mb".to_owned())]));
    HostConfigLogConfig { typ: Some(driver.to_owned()), config: size }
}

fn environment(spec: &InstanceSpec) -> Result<Vec<String>, EngineError> {
    let mut env = Vec::with_capacity(spec.run.env.len() + 1);
    if !spec.run.env.iter().any(|var| var == "PORT" || var.starts_with("PORT=")) {
        env.push(format!("PORT={}", spec.port));
    }
    for variable in spec.run.env.iter() {
        // The value may be a secret, so an error shows the name alone, of which there is none here.
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(EngineError::Usage("--env: a variable without a name; write K=V".to_owned()));
        }
        env.push(variable.clone());
    }
    Ok(env)
}

fn user_labels(run: &RunSettings) -> Result<HashMap<String, String>, EngineError> {
    Ok(parsed("--label", &run.labels, user_label)?.into_iter().collect())
}

fn user_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(format!("`{text}` has no name"));
    }
    if name.starts_with(labels::PREFIX) {
        return Err(format!("`{text}`: names that begin with `{}` are bluegreen's own", labels::PREFIX));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `--add-host NAME:ADDRESS` (or `NAME=ADDRESS`, or `NAME:host-gateway`) into the engine's form.
fn add_host(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not NAME:ADDRESS");
    let (name, address) = text.split_once(['=', ':']).ok_or_else(wrong)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || (bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err()) {
        return Err(wrong());
    }
    Ok(format!("{name}:{bare}"))
}

/// Reads `--network NAME`, or `--network name=NAME,alias=A,ip=10.0.0.2`.
fn network(text: &str) -> Result<(String, EndpointSettings), String> {
    if ["host", "none", "bridge", "default"].contains(&text) || text.starts_with("container:") {
        return Err(format!("`{text}`: the proxy could not reach the container; name a network of your own"));
    }
    let mut settings = EndpointSettings::default();
    if !text.contains('=') {
        return if text.is_empty() {
            Err("a network's name is empty".to_owned())
        } else {
            Ok((text.to_owned(), settings))
        };
    }
    let mut name = None;
    let mut addresses = EndpointIpamConfig::default();
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", value)) => name = Some(value.to_owned()),
            Some(("alias", value)) => settings.aliases.get_or_insert_with(Vec::new).push(value.to_owned()),
            Some(("ip", value)) => addresses.ipv4_address = Some(value.to_owned()),
            Some(("ip6", value)) => addresses.ipv6_address = Some(value.to_owned()),
            _ => return Err(format!("`{text}`: there is no field `{field}` (name, alias, ip, ip6)")),
        }
    }
    settings.ipam_config = (addresses != EndpointIpamConfig::default()).then_some(addresses);
    name.map(|name| (name, settings)).ok_or_else(|| format!("`{text}` has no name"))
}

fn parsed<T>(flag: &str, texts: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, EngineError> {
    let parse = |text: &String| parse(text).map_err(|why| EngineError::Usage(format!("{flag} {why}")));
    texts.iter().map(parse).collect()
}

fn one<T>(flag: &str, text: Option<&str>, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, EngineError> {
    text.map(|text| parse(text).map_err(|why| EngineError::Usage(format!("{flag} {why}")))).transpose()
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use config::name::Slot;

    use super::*;
    use crate::engine::Image;

    fn spec(run: RunSettings) -> InstanceSpec {
        InstanceSpec {
            service: "shop".parse().unwrap(),
            slot: Slot::Green,
            replica: 1,
            deployment: "7".to_owned(),
            image: Image {
                reference: "shop:7".to_owned(),
                id: "sha256:77".to_owned(),
                exposed_ports: vec![],
                entrypoint: Vec::new(),
                revision: None,
                health_command: None,
            },
            port: 8080,
            run,
            who: "a@b".to_owned(),
            notes: vec![],
        }
    }

    fn made(run: RunSettings) -> Result<Blueprint, EngineError> {
        blueprint(&spec(run), &Surroundings { network: "web-gateway", log_driver: "local" })
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn every_setting_reaches_the_engine() {
        let made = made(RunSettings {
            env: words(&["A=1", "B="]).into(),
            volumes: words(&["data:/data", "/cache"]),
            mounts: words(&["type=tmpfs,target=/m"]),
            tmpfs: words(&["/t:size=1m"]),
            networks: words(&["db", "name=cache,alias=web"]),
            user: Some("1000:1000".to_owned()),
            init: true,
            add_hosts: words(&["db:10.0.0.1", "up=host-gateway"]),
            labels: words(&["team=shop"]),
            memory: Some("64m".to_owned()),
            cpus: Some("0.5".to_owned()),
            shm_size: Some("1m".to_owned()),
            ulimits: words(&["nofile=10"]),
            entrypoint: Some("/app".to_owned()),
            command: words(&["serve", "--fast"]),
        })
        .unwrap();
        let (body, host) = (&made.body, made.body.host_config.as_ref().unwrap());
        assert_eq!(body.env.as_deref().unwrap(), words(&["PORT=8080", "A=1", "B="]));
        assert_eq!(body.entrypoint.as_deref().unwrap(), words(&["/app"]));
        assert_eq!(body.cmd.as_deref().unwrap(), words(&["serve", "--fast"]));
        assert_eq!(body.volumes.as_deref().unwrap(), words(&["/cache"]));
        assert_eq!(host.binds.as_deref().unwrap(), words(&["data:/data"]));
        assert_eq!(host.extra_hosts.as_deref().unwrap(), words(&["db:10.0.0.1", "up:host-gateway"]));
        assert_eq!((host.memory, host.nano_cpus, host.shm_size), (Some(64 << 20), Some(500_000_000), Some(1 << 20)));
        assert_eq!(host.restart_policy.as_ref().unwrap().name, Some(RestartPolicyNameEnum::NO));
        assert_eq!(body.labels.as_ref().unwrap()["team"], "shop");
        assert_eq!(made.networks[1].1.aliases.as_deref().unwrap(), words(&["web"]));
        assert_eq!((host.init, body.user.as_deref()), (Some(true), Some("1000:1000")));
    }

    #[test]
    fn port_is_given_unless_it_is_set() {
        let own = made(RunSettings { env: words(&["PORT=1"]).into(), ..RunSettings::default() }).unwrap();
        assert_eq!(own.body.env.unwrap(), words(&["PORT=1"]));
    }

    #[test]
    fn a_mistake_names_its_flag() {
        let cases: [(&str, RunSettings); 8] = [
            ("--volume", RunSettings { volumes: words(&["./x:/x"]), ..RunSettings::default() }),
            ("--mount", RunSettings { mounts: words(&["x"]), ..RunSettings::default() }),
            ("--network", RunSettings { networks: words(&["host"]), ..RunSettings::default() }),
            ("--add-host", RunSettings { add_hosts: words(&["db"]), ..RunSettings::default() }),
            ("--label", RunSettings { labels: words(&["bluegreen.slot=x"]), ..RunSettings::default() }),
            ("--memory", RunSettings { memory: Some("much".to_owned()), ..RunSettings::default() }),
            ("--ulimit", RunSettings { ulimits: words(&["x"]), ..RunSettings::default() }),
            ("--env", RunSettings { env: words(&["=secret"]).into(), ..RunSettings::default() }),
        ];
        for (flag, run) in cases {
            let Err(EngineError::Usage(text)) = made(run) else { panic!("{flag}") };
            assert!(text.starts_with(flag) && !text.contains("secret"), "{text}");
        }
    }
}
