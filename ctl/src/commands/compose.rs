//! What a compose file says of services, as far as `bluegreen.toml` has keys for it.

use ::config::name::ServiceName;
use yaml_rust2::{Yaml, YamlLoader};

pub(super) use crate::import::toml::text as quoted;

/// The names that docker looks for, in its order.
pub(super) const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// What a folder says.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it was found, in words.
    pub(super) source: String,
    pub(super) services: Vec<Service>,
    /// Services that no request comes to.
    pub(super) left_out: Vec<String>,
}

/// A service to describe.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: ServiceName,
    pub(super) image: String,
    pub(super) is_built: bool,
    pub(super) port: Option<u16>,
    pub(super) env: Vec<(String, String)>,
    inherited: Vec<String>,
    env_files: Vec<String>,
    volumes: Vec<String>,
    command: Vec<String>,
    user: Option<String>,
}

impl Service {
    /// Returns a service of which nothing but its name is known.
    pub(super) fn new(name: ServiceName) -> Self {
        let image = format!("{name}:latest");
        Self {
            name,
            image,
            is_built: false,
            port: None,
            env: Vec::new(),
            inherited: Vec::new(),
            env_files: Vec::new(),
            volumes: Vec::new(),
            command: Vec::new(),
            user: None,
        }
    }

    /// Returns its lines of the file, the environment aside.
    pub(super) fn lines(&self) -> Vec<String> {
        let list = |key: &str, texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            (!texts.is_empty()).then(|| format!("{key} = [{}]", texts.join(", ")))
        };
        let mut lines = vec![format!("image = {}", quoted(&self.image))];
        lines.extend(self.port.map(|port| format!("port = {port}")));
        lines.extend(list("command", &self.command));
        lines.extend(self.user.as_ref().map(|user| format!("user = {}", quoted(user))));
        lines.extend(list("volumes", &self.volumes));
        lines.extend(list("env_files", &self.env_files));
        lines.extend(list("env_inherit", &self.inherited));
        lines
    }
}

/// Reads a compose file: what it builds, else what publishes a port.
///
/// # Errors
/// What is wrong with the text, in words.
pub(super) fn read(file: &str, text: &str) -> Result<Found, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let services = documents.first().and_then(|document| document["services"].as_hash());
    let services: Vec<(&str, &Yaml)> =
        services.into_iter().flatten().filter_map(|(name, service)| Some((name.as_str()?, service))).collect();
    let is_built = |service: &Yaml| !service["build"].is_badvalue();
    let any_is_built = services.iter().any(|(_, service)| is_built(service));
    let mut found = Found { source: file.to_owned(), services: Vec::new(), left_out: Vec::new() };
    for (name, service) in services {
        let is_reached = if any_is_built { is_built(service) } else { !service["ports"].is_badvalue() };
        match name.to_ascii_lowercase().parse().ok().filter(|_| is_reached) {
            Some(name) => found.services.push(describe(name, service)),
            None => found.left_out.push(name.to_owned()),
        }
    }
    Ok(found)
}

fn describe(name: ServiceName, yaml: &Yaml) -> Service {
    let mut service = Service { is_built: !yaml["build"].is_badvalue(), ..Service::new(name) };
    // What compose fills in from its own variables has no value here.
    let plain = |yaml: &Yaml| word(yaml).filter(|text| !text.contains('$'));
    if let Some(image) = plain(&yaml["image"]) {
        service.image = image;
    }
    service.port = only(texts(&yaml["ports"]).iter().filter_map(|text| container_port(text)).collect())
        .or_else(|| only(targets(&yaml["ports"])))
        .or_else(|| only(texts(&yaml["expose"]).iter().filter_map(|text| container_port(text)).collect()));
    service.user = plain(&yaml["user"]);
    service.command = match &yaml["command"] {
        // A line with quotes or variables is for a shell to take apart.
        Yaml::String(line) if line.contains(['"', '\'', '\\', '$']) => Vec::new(),
        Yaml::String(line) => line.split_whitespace().map(str::to_owned).collect(),
        list => texts(list),
    };
    service.volumes = texts(&yaml["volumes"]).into_iter().filter(|text| !text.contains('$')).collect();
    service.env_files = plain(&yaml["env_file"]).map_or_else(|| texts(&yaml["env_file"]), |file| vec![file]);
    let pairs: Vec<(String, Option<String>)> = match &yaml["environment"] {
        Yaml::Hash(map) => map.iter().filter_map(|(name, value)| Some((word(name)?, word(value)))).collect(),
        list => texts(list).iter().map(|text| pair(text)).collect(),
    };
    for (name, value) in pairs {
        match value.filter(|value| !value.contains('$')) {
            Some(value) => service.env.push((name, value)),
            None => service.inherited.push(name),
        }
    }
    service
}

fn pair(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// Returns a bare value as text.
fn word(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(flag) => Some(flag.to_string()),
        Yaml::Array(_) | Yaml::Hash(_) | Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => None,
    }
}

/// Returns the texts of a list; what is written as a table is left out.
fn texts(yaml: &Yaml) -> Vec<String> {
    yaml.as_vec().into_iter().flatten().filter_map(word).collect()
}

/// Returns the ports of the long form.
fn targets(yaml: &Yaml) -> Vec<u16> {
    let ports = yaml.as_vec().into_iter().flatten().filter_map(|port| word(&port["target"]));
    ports.filter_map(|port| port.parse().ok()).collect()
}

/// Returns the port in the container of `80`, `8080:80`, `127.0.0.1:8080:80/tcp`.
fn container_port(text: &str) -> Option<u16> {
    let last = text.rsplit(':').next()?;
    last.strip_suffix("/tcp").unwrap_or(last).parse().ok()
}

fn only(mut ports: Vec<u16>) -> Option<u16> {
    ports.dedup();
    if let [port] = ports.as_slice() { Some(*port) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_in_the_container() {
        for text in ["80", "8080:80", "127.0.0.1:8080:80/tcp", "${PORT:-8080}:80"] {
            assert_eq!(container_port(text), Some(80), "{text}");
        }
        assert_eq!(container_port("53:53/udp"), None);
        let found =
            read("c", "services:\n  web:\n    image: web\n    ports:\n      - target: 3000\n        published: 80\n");
        assert_eq!(found.unwrap().services[0].port, Some(3000));
    }

    #[test]
    fn without_anything_built_the_services_with_ports_are_described() {
        let text = "services:\n  web:\n    image: web:1\n    ports: ['80:80']\n    environment: [A=1, B]\n  cache:\n    image: redis\n";
        let found = read("compose.yaml", text).unwrap();
        assert_eq!((found.services.len(), found.left_out.as_slice()), (1, &["cache".to_owned()][..]));
        assert_eq!(found.services[0].env, [("A".to_owned(), "1".to_owned())]);
        assert_eq!(found.services[0].inherited, ["B"]);
    }

    #[test]
    fn a_file_without_services_has_none() {
        assert!(read("compose.yaml", "").unwrap().services.is_empty());
        assert!(read("compose.yaml", "services: 3\n").unwrap().services.is_empty());
    }
}
