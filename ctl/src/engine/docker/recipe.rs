//! What stands where the gateway is to be: the nginx of the bash recipe, its containers, and who gets which requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerInspectResponse, ContainerUpdateBody, ExecConfig, RestartPolicy};
use bollard::query_parameters::ListContainersOptions;
use config::admin::request::ServiceSettings;
use config::name::{HostPattern, PathPrefix, ServiceName, Slot};
use futures_util::StreamExt as _;

use super::adopted::{self, run_settings};
use super::container::{describe, listed};
use super::names::Names;
use super::nginx::{self, Route};
use super::refusal::{found, refusal};
use super::{Docker, labels, ports};
use crate::engine::{EngineError, Instance};

/// What was found of the recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The container that nginx runs in.
    pub(super) nginx: Part,
    /// The one that holds its ports, where that is another one.
    pub(super) holder: Option<Part>,
    /// The ports, as `--publish` has them.
    pub publish: Vec<String>,
    /// The whole configuration, as `nginx -T` prints it.
    pub config: String,
    /// What is taken over.
    pub services: Vec<Adoption>,
    /// What is not, a line each: nobody serves it afterwards.
    pub left: Vec<String>,
}

/// A container of the recipe's gateway.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) restart: Option<RestartPolicy>,
}

/// A service that is taken over.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// Its name.
    pub service: ServiceName,
    /// The slot that nginx sends requests to.
    pub live: Slot,
    /// Its routes.
    pub routes: ServiceSettings,
    /// Its containers: the live one, and what is left in the other slot.
    pub instances: Vec<Instance>,
}

impl Recipe {
    /// Returns what is done, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.services.iter().map(Adoption::line).collect();
        let old: Vec<&str> =
            [Some(&self.nginx), self.holder.as_ref()].into_iter().flatten().map(|part| &*part.name).collect();
        lines.push(format!(
            "{} stopped and renamed, the ports {} taken over",
            old.join(" and "),
            self.publish.join(", ")
        ));
        lines.extend(self.left.iter().map(|left| format!("NOT taken over: {left}")));
        lines
    }
}

impl Adoption {
    fn line(&self) -> String {
        let names =
            |slot: Slot| self.instances.iter().find(|instance| instance.slot == slot).map(|live| live.name.as_str());
        let live = names(self.live).unwrap_or_default();
        let domains: Vec<String> = self.routes.domains.iter().map(ToString::to_string).collect();
        let hosts = if domains.is_empty() { "every other host".to_owned() } else { domains.join(", ") };
        let paths: Vec<String> = self.routes.paths.iter().map(ToString::to_string).collect();
        let paths = if paths.is_empty() { String::new() } else { format!(" below {}", paths.join(", ")) };
        let idle = names(self.live.other()).map(|idle| format!("; {idle} is its idle slot")).unwrap_or_default();
        format!("{}: {live} is live, for {hosts}{paths}{idle}", self.service)
    }
}

impl Docker {
    /// Looks for the recipe; `None` where nobody else's container has the proxy's name.
    ///
    /// # Errors
    /// Where the engine can't be reached, and for a proxy that can't be replaced: its configuration can't be read, or it does what ours
    /// can't.
    pub async fn recipe(&self) -> Result<Option<Recipe>, EngineError> {
        let network = self.names.network();
        let stranger = async |name: &str| -> Result<Option<ContainerInspectResponse>, EngineError> {
            let container = self.inspect(name).await?;
            Ok(container.filter(|container| {
                let own_labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
                !labels::is_ours(own_labels, &network)
            }))
        };
        let (name, holder) = (self.names.proxy(), stranger(&self.names.holder()).await?);
        let Some(nginx) = stranger(&name).await? else {
            return match holder {
                None => Ok(None),
                Some(holder) => Err(EngineError::NoProxy(format!(
                    "`{}` is {}, but there is no `{name}` whose configuration could be read; nothing was touched",
                    self.names.holder(),
                    describe(&holder)
                ))),
            };
        };
        for before in [&name, &self.names.holder()].map(|name| Names::before(name)) {
            if self.inspect(&before).await?.is_some() {
                return Err(EngineError::Usage(format!(
                    "`{before}` is there already, from another time; nothing was touched\nhint: `docker rm {before}` when nobody wants it back"
                )));
            }
        }
        let fleeting = [Some(&nginx), holder.as_ref()]
            .into_iter()
            .flatten()
            .find(|part| part.host_config.as_ref().and_then(|host| host.auto_remove).unwrap_or(false));
        if let Some(part) = fleeting {
            return Err(EngineError::Usage(format!(
                "`{}` was started with --rm: once stopped it is gone, and could not be gone back to; nothing was touched\n\
                 hint: start it without --rm first",
                part.name.as_deref().unwrap_or_default().trim_start_matches('/')
            )));
        }
        let config = self.nginx_config(&name, &nginx).await?;
        let sites = nginx::read(&config);
        if sites.has_tls {
            return Err(EngineError::Usage(format!(
                "`{name}` ends TLS, which bgproxy does not do yet; nothing was touched\nhint: put what ends TLS in front of it first"
            )));
        }
        let published = |container: &ContainerInspectResponse| {
            ports::read(container.host_config.as_ref().and_then(|host| host.port_bindings.as_ref()))
        };
        let publish: Vec<String> =
            published(holder.as_ref().unwrap_or(&nginx)).iter().map(ports::Published::as_flag).collect();
        let (candidates, uncarried) = self.candidates().await?;
        let (services, mut left) = sort(&candidates, &sites.routes);
        left.extend(sites.others);
        left.extend(uncarried);
        for candidate in &candidates {
            if !services.iter().any(|adoption| adoption.service == candidate.service) {
                left.push(format!("{}, which nginx does not know: it stays as it is", candidate.name));
            }
        }
        let part = |container: ContainerInspectResponse| {
            let name = container.name.unwrap_or_default().trim_start_matches('/').to_owned();
            let restart = container.host_config.and_then(|host| host.restart_policy);
            Some(Part { id: container.id?, name, restart })
        };
        let gone = || EngineError::Refused(format!("`{name}` is gone\nhint: run it again"));
        Ok(Some(Recipe {
            nginx: part(nginx).ok_or_else(gone)?,
            holder: holder.and_then(part),
            publish,
            config,
            services,
            left,
        }))
    }

    /// Returns nginx's whole configuration.
    async fn nginx_config(&self, name: &str, nginx: &ContainerInspectResponse) -> Result<String, EngineError> {
        if nginx.state.as_ref().and_then(|state| state.running) != Some(true) {
            return Err(EngineError::NoProxy(format!(
                "`{name}` is {}, so its configuration can't be read; nothing was touched\nhint: `docker start {name}`, then again; or \
                 `docker rm {name}` if nobody needs it",
                describe(nginx)
            )));
        }
        let what = format!("read nginx's configuration in {name}");
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(["nginx", "-T"].map(str::to_owned).to_vec()),
            ..ExecConfig::default()
        };
        let exec = self.handles.call.create_exec(name, config).await.map_err(|error| refusal(&what, error))?;
        let (mut out, mut words) = (Vec::new(), Vec::new());
        let started = self.handles.call.start_exec(&exec.id, Some(StartExecOptions::default())).await;
        if let StartExecResults::Attached { mut output, .. } = started.map_err(|error| refusal(&what, error))? {
            while let Some(frame) = output.next().await {
                match frame.map_err(|error| refusal(&what, error))? {
                    LogOutput::StdOut { message } => out.extend_from_slice(&message),
                    other => words.extend_from_slice(&other.into_bytes()),
                }
            }
        }
        let ended = self.handles.call.inspect_exec(&exec.id).await.map_err(|error| refusal(&what, error))?;
        if ended.exit_code != Some(0) {
            let words = String::from_utf8_lossy(&words).trim().to_owned();
            return Err(EngineError::NoProxy(format!("{what}: {words}; nothing was touched")));
        }
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Returns the containers on the gateway's network that have a slot's name and are not ours, as the instances that they would be,
    /// and in words what of their settings a next version would not have.
    async fn candidates(&self) -> Result<(Vec<Instance>, Vec<String>), EngineError> {
        let network = self.names.network();
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("network".to_owned(), vec![network.clone()])])),
            ..ListContainersOptions::default()
        };
        let list = self.handles.call.list_containers(Some(options)).await;
        let list = list.map_err(|error| refusal("list the containers", error))?;
        let (mut candidates, mut uncarried) = (Vec::new(), Vec::new());
        for container in list.into_iter().filter_map(listed) {
            let Some((service, slot)) = self.names.parse_slot(&container.name) else { continue };
            if labels::is_ours(Some(&container.labels), &network) {
                continue;
            }
            let Some(inspected) = self.inspect(&container.id).await? else { continue };
            let image_id = inspected.image.clone().unwrap_or_default();
            let what = format!("look at the image of {}", container.name);
            let image = found(&what, self.handles.call.inspect_image(&image_id).await)?.unwrap_or_default();
            let reference = inspected.config.as_ref().and_then(|config| config.image.clone());
            uncarried.extend(
                adopted::uncarried(&inspected, &image)
                    .into_iter()
                    .map(|setting| format!("{setting} of {}: the next version runs without it", container.name)),
            );
            candidates.push(Instance {
                run: run_settings(&inspected, &image, &network),
                deployment: format!("{}{}", adopted::DEPLOYMENT, container.id.get(..12).unwrap_or(&container.id)),
                // Which port it is, nginx knows.
                endpoint: format!("{}:80", container.name)
                    .parse()
                    .map_err(|error| EngineError::Usage(format!("{}: {error}", container.name)))?,
                service,
                slot,
                replica: 1,
                kept: false,
                running: container.running,
                image: reference.unwrap_or_else(|| image_id.clone()),
                image_id,
                notes: Vec::new(),
                created: container.created,
                id: container.id,
                name: container.name,
            });
        }
        Ok((candidates, uncarried))
    }

    /// Gives a container the restart policy that it had.
    pub(super) async fn set_policy(&self, part: &Part, policy: Option<RestartPolicy>) -> Result<(), EngineError> {
        let body = ContainerUpdateBody { restart_policy: policy, ..ContainerUpdateBody::default() };
        let answer = self.handles.call.update_container(&part.id, body).await;
        answer.map_err(|error| refusal(&format!("set the restart policy of {}", part.name), error))
    }
}

/// Makes services of routes: whose container a route leads to, and what leads elsewhere.
fn sort(candidates: &[Instance], routes: &[Route]) -> (Vec<Adoption>, Vec<String>) {
    let mut services: BTreeMap<&ServiceName, Vec<(&Instance, &Route, u16)>> = BTreeMap::new();
    let mut left = Vec::new();
    for route in routes {
        let hosts = if route.hosts.is_empty() { "every other host".to_owned() } else { route.hosts.join(", ") };
        let what = format!("{hosts} below {}", route.path);
        let [(host, port)] = route.to.as_slice() else {
            left.push(format!("{what}, which goes to several servers"));
            continue;
        };
        match candidates.iter().find(|candidate| candidate.name == *host) {
            Some(candidate) => services.entry(&candidate.service).or_default().push((candidate, route, *port)),
            None => left.push(format!("{what}, which goes to {host}:{port}")),
        }
    }
    let mut adoptions = Vec::new();
    for (service, routes) in services {
        let (live, first, port) = routes[0];
        let (same, other): (Vec<_>, Vec<_>) = routes
            .into_iter()
            .partition(|(to, route, of)| to.id == live.id && *of == port && route.is_stripped == first.is_stripped);
        left.extend(
            other
                .iter()
                .map(|(to, route, _)| format!("{} below {}, to {}", route.hosts.join(", "), route.path, to.name)),
        );
        match settings(&same.iter().map(|(_, route, _)| *route).collect::<Vec<_>>()) {
            Ok(routes) => {
                let own = candidates.iter().filter(|candidate| candidate.service == *service).cloned();
                let instances = own.filter_map(|instance| {
                    let endpoint = format!("{}:{port}", instance.name).parse().ok()?;
                    Some(Instance { endpoint, ..instance })
                });
                adoptions.push(Adoption {
                    service: service.clone(),
                    live: live.slot,
                    routes,
                    instances: instances.collect(),
                });
            }
            Err(why) => left.push(format!("{service}: {why}")),
        }
    }
    (adoptions, left)
}

/// Returns the routes of a service: every domain with every path.
fn settings(routes: &[&Route]) -> Result<ServiceSettings, String> {
    let hosts: BTreeSet<&Vec<String>> = routes.iter().map(|route| &route.hosts).collect();
    let paths = |hosts: &Vec<String>| -> BTreeSet<&String> {
        routes.iter().filter(|route| route.hosts == *hosts).map(|route| &route.path).collect()
    };
    let all: BTreeSet<&String> = routes.iter().map(|route| &route.path).collect();
    if hosts.iter().any(|hosts| paths(hosts) != all) {
        return Err("its hosts have different paths".to_owned());
    }
    // Where every host is taken, those that are named are too.
    let is_default = hosts.iter().any(|hosts| hosts.is_empty());
    let named = hosts.into_iter().flatten().filter(|_| !is_default);
    let domains = named.map(|host| host.parse::<HostPattern>().map_err(|error| error.to_string()));
    // Where the root is among them, all paths are.
    let is_root = all.iter().any(|path| *path == "/");
    let prefixes = all.into_iter().filter(|_| !is_root).map(|path| {
        let path = path.trim_end_matches('/');
        path.parse::<PathPrefix>().map_err(|error| error.to_string())
    });
    Ok(ServiceSettings {
        domains: domains.collect::<Result<_, _>>()?,
        paths: prefixes.collect::<Result<_, _>>()?,
        strip_path: routes.iter().any(|route| route.is_stripped),
        ..ServiceSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RunSettings;

    fn container(name: &str, service: &str, slot: Slot) -> Instance {
        Instance {
            id: name.to_owned(),
            name: name.to_owned(),
            service: service.parse().unwrap(),
            slot,
            replica: 1,
            kept: false,
            running: true,
            endpoint: format!("{name}:80").parse().unwrap(),
            deployment: "adopted-1".to_owned(),
            image: format!("{service}:1"),
            image_id: "x".to_owned(),
            run: RunSettings::default(),
            notes: Vec::new(),
            created: String::new(),
        }
    }

    fn route(hosts: &[&str], path: &str, to: (&str, u16)) -> Route {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Route { hosts, path: path.to_owned(), is_stripped: false, to: vec![(to.0.to_owned(), to.1)] }
    }

    #[test]
    fn nginx_tells_which_of_two_that_run_is_live() {
        let candidates = [container("shop_BLUE", "shop", Slot::Blue), container("shop_GREEN", "shop", Slot::Green)];
        let routes = [route(&["shop.test"], "/", ("shop_GREEN", 9000)), route(&["old.test"], "/", ("legacy", 80))];
        let (services, left) = sort(&candidates, &routes);
        assert_eq!((services.len(), services[0].live), (1, Slot::Green));
        let addresses: Vec<String> = services[0].instances.iter().map(|one| one.endpoint.to_string()).collect();
        assert_eq!(addresses, ["shop_BLUE:9000", "shop_GREEN:9000"]);
        assert_eq!(services[0].line(), "shop: shop_GREEN is live, for shop.test; shop_BLUE is its idle slot");
        assert_eq!(left, ["old.test below /, which goes to legacy:80"]);
    }

    #[test]
    fn routes_that_are_no_product_of_hosts_and_paths_are_left() {
        let candidates = [container("api_BLUE", "api", Slot::Blue)];
        let product = [route(&[], "/v1/", ("api_BLUE", 80)), route(&[], "/v2", ("api_BLUE", 80))];
        let (services, left) = sort(&candidates, &product);
        assert!(left.is_empty() && services[0].routes.domains.is_empty());
        assert_eq!(services[0].routes.paths.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/v1", "/v2"]);
        let skewed = [route(&["a.test"], "/", ("api_BLUE", 80)), route(&["b.test"], "/b", ("api_BLUE", 80))];
        let (services, left) = sort(&candidates, &skewed);
        assert_eq!((services.len(), left.as_slice()), (0, &["api: its hosts have different paths".to_owned()][..]));
    }
}
