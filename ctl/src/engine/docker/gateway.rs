//! `up`: network, holder and proxy, made, completed or found.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, Mount, MountType,
    NetworkCreateRequest, NetworkingConfig, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectNetworkOptions, ListContainersOptions, RestartContainerOptions,
    StartContainerOptions, StopContainerOptions,
};
use config::admin::Call;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::binary::{self, Machine, Search};
use super::container::describe;
use super::labels::{self, Role};
use super::names::ALIAS;
use super::ports::{self, Published};
use super::program_image::{ProgramImage, UID};
use super::proxy_image::{self, Content, PROGRAM};
use super::refusal::{found, refusal, status};
use super::spec::{log_config, restart_policy};
use super::{Docker, FALLBACK_LOG_DRIVER};
use crate::engine::{EngineError, Gateway, GatewaySpec};

/// A proxy opens its socket within milliseconds; one with much saved state or a slow disk may take longer.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// Between two knocks at a socket that is not there yet.
const KNOCK: Duration = Duration::from_millis(25);
/// A proxy that is told to stop drains for 30 s.
const PROXY_GRACE: i32 = 35;

/// One run of `up`: what it did, and what to take back when it fails.
pub(super) struct Raising<'a> {
    pub(super) docker: &'a Docker,
    spec: &'a GatewaySpec,
    pub(super) report: Gateway,
    made: Vec<Made>,
    /// The networks whose forwarded headers the proxy believes: those asked for, else those it believes already.
    pub(super) trusted: Vec<String>,
}

/// Something that this run made.
pub(super) enum Made {
    Network(String),
    Volume(String),
    Container(String),
}

/// A container that came up with this log driver.
pub(super) struct Started {
    pub(super) id: String,
    pub(super) log_driver: String,
}

impl Docker {
    pub(super) async fn bring_up(&self, spec: &GatewaySpec) -> Result<Gateway, EngineError> {
        let mut raising = Raising::new(self, spec, Vec::new());
        match raising.run().await {
            Ok(()) => {
                raising.report.changed = !raising.report.done.is_empty();
                // Once, when it is made; `status` and `doctor` say it again.
                if raising.report.changed {
                    raising.report.warnings.extend(self.host_warnings().await?);
                }
                Ok(raising.report)
            }
            Err(error) => {
                raising.take_back().await;
                Err(error)
            }
        }
    }

    /// Returns a part of the gateway by its name, `None` where it is not there.
    ///
    /// # Errors
    /// [`EngineError::NoProxy`] where someone else's container has the name.
    async fn own_container(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let Some(container) = self.inspect(name).await? else { return Ok(None) };
        let own_labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        if labels::is_ours(own_labels, &self.names.network()) {
            return Ok(Some(container));
        }
        Err(EngineError::NoProxy(format!(
            "`{name}` is {}, which bluegreen did not make; nothing was touched\nhint: when bgproxy is to take its place: \
             `docker rm -f {name}`, then the same command again",
            describe(&container)
        )))
    }

    /// Returns where the proxy is reached by the ports that its holder publishes.
    pub(in crate::engine) async fn published(&self) -> Result<Vec<String>, EngineError> {
        let holder = self.own_container(&self.names.holder()).await?;
        let published = ports::read(holder.and_then(|holder| holder.host_config?.port_bindings).as_ref());
        Ok(published.iter().map(|port| port.url(self.place.host())).collect())
    }

    /// Returns the containers that publish a port of the host, by name.
    pub(super) async fn publishers(&self, port: u16) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("publish".to_owned(), vec![port.to_string()])]);
        let options = ListContainersOptions { filters: Some(filters), ..ListContainersOptions::default() };
        let list = self.handles.call.list_containers(Some(options)).await;
        let list = list.map_err(|error| refusal("list the containers", error))?;
        // The filter knows ports inside of containers too, so the host's are looked at here.
        let has_port = |container: &bollard::models::ContainerSummary| {
            container.ports.iter().flatten().any(|published| published.public_port == Some(port))
        };
        let names = list.into_iter().filter(has_port).filter_map(|container| {
            let image = container.image.unwrap_or_default();
            Some(format!("`{}` (image {image})", container.names?.first()?.trim_start_matches('/')))
        });
        Ok(names.collect())
    }

    /// Asks the proxy for its version; `None` while it does not answer.
    pub(super) async fn proxy_version(&self) -> Result<Option<config::admin::response::Version>, EngineError> {
        let Some(mut stream) = self.open_relay().await? else { return Ok(None) };
        let call = Call::Version;
        let request =
            format!("{} {} HTTP/1.1\r\nhost: bgproxy\r\nconnection: close\r\n\r\n", call.method(), call.path());
        let mut answer = Vec::new();
        let conversation = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            (&mut stream).take(64 * 1024).read_to_end(&mut answer).await
        };
        match timeout(Duration::from_secs(5), conversation).await {
            Ok(Ok(_)) => Ok(parse_version(&answer)),
            // The relay's complaint that nobody listens, or a proxy that is stopping: not ready.
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    pub(super) async fn machine(&self) -> Result<Machine, EngineError> {
        let version =
            self.handles.call.version().await.map_err(|error| refusal("ask the engine for its version", error))?;
        let word = version.arch.unwrap_or_default();
        Machine::parse(&word).ok_or_else(|| {
            EngineError::NoProxy(format!("the engine runs on `{word}`; bgproxy runs on x86_64 and arm64"))
        })
    }

    /// Puts the proxy's image together from the binary that `up` takes.
    ///
    /// # Errors
    /// Where there is no binary that could run there.
    pub(super) async fn proxy_image(
        &self,
        named: Option<&Path>,
        trusted: Vec<String>,
    ) -> Result<ProgramImage, EngineError> {
        let machine = self.machine().await?;
        let own = std::env::current_exe().ok();
        let search = Search {
            named,
            beside: own.as_deref().and_then(Path::parent).map(Path::to_owned),
            path: config::paths::variable("PATH"),
        };
        let name = self.names.image();
        let made = tokio::task::spawn_blocking({
            let file = search.find(machine)?;
            move || {
                let program = binary::load(&file, machine)?;
                let content = Content { program: &program, machine, trusted_proxies: &trusted };
                let built = proxy_image::build(&name, &content);
                built.map_err(|error| EngineError::NoProxy(format!("put the proxy's image together: {error}")))
            }
        });
        made.await.map_err(|error| EngineError::NoProxy(format!("put the proxy's image together: {error}")))?
    }
}

fn parse_version(answer: &[u8]) -> Option<config::admin::response::Version> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let is_ok = head.split(' ').nth(1) == Some("200");
    // The body may be chunked, so the document is taken by its braces.
    let document = &body[body.find('{')?..=body.rfind('}')?];
    if is_ok { serde_json::from_str(document).ok() } else { None }
}

impl<'a> Raising<'a> {
    /// Returns a run that may have made something already.
    pub(super) fn new(docker: &'a Docker, spec: &'a GatewaySpec, made: Vec<Made>) -> Self {
        let report = Gateway { changed: false, done: Vec::new(), warnings: Vec::new(), addresses: Vec::new() };
        Self { docker, spec, report, made, trusted: Vec::new() }
    }

    /// Returns what it made, so that another run goes on.
    pub(super) fn into_made(self) -> Vec<Made> {
        self.made
    }
}

impl Raising<'_> {
    async fn run(&mut self) -> Result<(), EngineError> {
        let names = &self.docker.names;
        // Both names are looked at before anything is made.
        let holder = self.docker.own_container(&names.holder()).await?;
        let proxy = self.docker.own_container(&names.proxy()).await?;
        let wanted = self.spec.publish.iter().map(|text| Published::parse(text)).collect::<Result<Vec<_>, _>>()?;

        // Both are there and belong together, so that at most they are to be started.
        let is_made = holder
            .as_ref()
            .is_some_and(|holder| proxy.as_ref().is_some_and(|proxy| self.shares(proxy, holder.id.as_deref())));
        self.trusted = trusted_proxies(&self.spec.trusted_proxies, proxy.as_ref())?;
        let image = match self.docker.proxy_image(self.spec.proxy_binary.as_deref(), self.trusted.clone()).await {
            Ok(image) => Some(image),
            // A binary is needed only by those who asked for one, and for what is to be made.
            Err(_) if is_made && !self.spec.upgrade && self.spec.proxy_binary.is_none() => None,
            Err(error) => return Err(error),
        };
        self.ensure_network().await?;
        self.ensure_volume().await?;

        let present = holder.is_some();
        let holder = match holder {
            Some(holder) => self.complete_holder(holder).await?,
            None => {
                let image = needed(image.as_ref())?;
                self.create_holder(image, &wanted).await?
            }
        };
        let inspected = self.docker.inspect(&holder.id).await?;
        let bound = inspected.as_ref().and_then(|holder| holder.host_config.as_ref()?.port_bindings.as_ref());
        let published = ports::read(bound);
        let urls = || published.iter().map(|port| port.url(self.docker.place.host())).collect::<Vec<_>>();
        if present && !wanted.is_empty() && !wanted.iter().all(|port| published.contains(port)) {
            let now = urls();
            self.report.warnings.push(format!(
                "the ports stay as they are ({}): to publish others, `bgctl down{flag}`, then `bgctl up{flag} --publish ...`",
                now.join(", "),
                flag = names.flag()
            ));
        }
        self.report.addresses = urls();
        self.ensure_proxy(proxy, inspected.as_ref(), &holder, image.as_ref()).await
    }

    pub(super) async fn ensure_network(&mut self) -> Result<(), EngineError> {
        let docker = self.docker;
        let name = docker.names.network();
        let what = format!("make the network {name}");
        let present = docker.handles.call.inspect_network(&name, None::<InspectNetworkOptions>).await;
        if found(&what, present)?.is_some() {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels::of_part(&name, None)),
            ..NetworkCreateRequest::default()
        };
        docker.handles.call.create_network(request).await.map_err(|error| refusal(&what, error))?;
        self.report.done.push(format!("made the network {name}"));
        self.made.push(Made::Network(name));
        Ok(())
    }

    pub(super) async fn ensure_volume(&mut self) -> Result<(), EngineError> {
        let docker = self.docker;
        let name = docker.names.volume();
        let what = format!("make the volume {name}");
        if found(&what, docker.handles.call.inspect_volume(&name).await)?.is_some() {
            return Ok(());
        }
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels::of_part(&docker.names.network(), None)),
            ..VolumeCreateRequest::default()
        };
        docker.handles.call.create_volume(request).await.map_err(|error| refusal(&what, error))?;
        self.report.done.push(format!("made the volume {name}"));
        self.made.push(Made::Volume(name));
        Ok(())
    }

    /// Starts a holder that is there and does not run.
    async fn complete_holder(&mut self, holder: ContainerInspectResponse) -> Result<Started, EngineError> {
        let name = self.docker.names.holder();
        let driver = holder.host_config.as_ref().and_then(|host| host.log_config.as_ref()?.typ.clone());
        let started =
            Started { id: id_of(&holder)?, log_driver: driver.unwrap_or_else(|| FALLBACK_LOG_DRIVER.to_owned()) };
        if !is_running(&holder) {
            let published = ports::read(holder.host_config.as_ref().and_then(|host| host.port_bindings.as_ref()));
            let answer = self.docker.handles.call.start_container(&started.id, None::<StartContainerOptions>).await;
            if let Err(error) = answer {
                return Err(self.explain_start(&name, &published, &refusal(&format!("start {name}"), error)).await);
            }
            self.report.done.push(format!("started {name}, which holds the ports"));
        }
        Ok(started)
    }

    async fn create_holder(&mut self, image: &ProgramImage, wanted: &[Published]) -> Result<Started, EngineError> {
        self.load(image).await?;
        let name = self.docker.names.holder();
        let usual = [Published::usual(80), Published::usual(443)];
        let mut published = if wanted.is_empty() { usual.to_vec() } else { wanted.to_vec() };
        loop {
            let body = self.holder_body(image, &published);
            match self.start_new(&name, body, None).await {
                Ok(started) => {
                    self.report.done.push(format!("started {name}, which holds the ports"));
                    return Ok(started);
                }
                Err(error) => {
                    let is_443 = ports::taken(&published, &error.to_string()).is_some_and(|port| port.host == 443);
                    if !(is_443 && wanted.is_empty()) {
                        return Err(self.explain_start(&name, &published, &error).await);
                    }
                    // Nobody asked for 443 by name, and plain HTTP works without it.
                    published.retain(|port| port.host != 443);
                    let who = self.who_has(443).await;
                    self.report.warnings.push(format!("port 443 is taken{who}; only port 80 is published"));
                }
            }
        }
    }

    async fn ensure_proxy(
        &mut self,
        proxy: Option<ContainerInspectResponse>,
        holder_now: Option<&ContainerInspectResponse>,
        holder: &Started,
        image: Option<&ProgramImage>,
    ) -> Result<(), EngineError> {
        let name = self.docker.names.proxy();
        let Some(proxy) = proxy else {
            return self.create_proxy(needed(image)?, holder).await;
        };
        let id = id_of(&proxy)?;
        if !self.shares(&proxy, Some(&holder.id)) {
            // Its holder is gone for good, and a container can't move to another namespace.
            self.docker.discard(&id).await?;
            return self.create_proxy(needed(image)?, holder).await;
        }
        let running_image = proxy.config.as_ref().and_then(|config| config.image.clone()).unwrap_or_default();
        let is_other = image.is_some_and(|image| image.reference != running_image);
        if is_other && self.spec.upgrade {
            return self.replace_proxy(&id, needed(image)?, holder).await;
        }
        if !is_running(&proxy) {
            let answer = self.docker.handles.call.start_container(&id, None::<StartContainerOptions>).await;
            answer.map_err(|error| no_proxy(&refusal(&format!("start {name}"), error)))?;
            self.wait_ready(&id).await?;
            self.report.done.push(format!("started {name}"));
        } else if started_at(&proxy) < holder_now.and_then(started_at) {
            // The holder was restarted under it: what the proxy is in has no network any more.
            let options = RestartContainerOptions { signal: None, t: Some(1) };
            let answer = self.docker.handles.long.restart_container(&id, Some(options)).await;
            answer.map_err(|error| no_proxy(&refusal(&format!("restart {name}"), error)))?;
            self.wait_ready(&id).await?;
            self.report.done.push(format!("restarted {name}: the holder of its ports had been restarted"));
        } else {
            self.wait_ready(&id).await?;
        }
        if is_other {
            self.report.warnings.push(format!(
                "the running proxy is of another build or has other trusted networks ({running_image}) and was left alone: `bgctl up{} --upgrade` \
                 replaces it",
                self.docker.names.flag()
            ));
        }
        Ok(())
    }

    /// Tells whether a proxy is in the namespace of that holder.
    fn shares(&self, proxy: &ContainerInspectResponse, holder_id: Option<&str>) -> bool {
        let mode = proxy.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
        let holder = mode.and_then(|mode| mode.strip_prefix("container:"));
        holder.is_some_and(|holder| Some(holder) == holder_id || holder == self.docker.names.holder())
    }

    pub(super) async fn create_proxy(&mut self, image: &ProgramImage, holder: &Started) -> Result<(), EngineError> {
        self.load(image).await?;
        let name = self.docker.names.proxy();
        let body = self.proxy_body(image, holder);
        let started = self.start_new(&name, body, Some(&holder.log_driver)).await.map_err(|error| no_proxy(&error))?;
        self.wait_ready(&started.id).await?;
        self.report.done.push(format!("started {name} ({})", image.reference));
        Ok(())
    }

    /// Puts another build in the proxy's place; the old one waits under another name until the new one answers.
    async fn replace_proxy(&mut self, old: &str, image: &ProgramImage, holder: &Started) -> Result<(), EngineError> {
        let docker = self.docker;
        self.load(image).await?;
        let (name, waiting) = (docker.names.proxy(), docker.names.replaced_proxy());
        if let Some(left) = docker.own_container(&waiting).await? {
            docker.discard(&id_of(&left)?).await?;
        }
        docker.rename(old, &waiting).await?;
        let gap = Instant::now();
        let stop = StopContainerOptions { signal: None, t: Some(PROXY_GRACE) };
        let stopped = docker.handles.long.stop_container(old, Some(stop)).await;
        let outcome = match stopped {
            Err(error) if status(&error) != Some(304) => Err(refusal(&format!("stop {name}"), error)),
            _ => self.create_proxy(image, holder).await,
        };
        if let Err(error) = outcome {
            if let Some(failed) = docker.inspect(&name).await? {
                docker.discard(&id_of(&failed)?).await?;
            }
            docker.rename(old, &name).await?;
            let answer = docker.handles.call.start_container(old, None::<StartContainerOptions>).await;
            answer.map_err(|again| no_proxy(&refusal(&format!("start the old {name} again"), again)))?;
            self.wait_ready(old).await?;
            return Err(EngineError::NoProxy(format!("{error}\nThe old proxy serves again")));
        }
        docker.discard(old).await?;
        let gap = gap.elapsed().as_millis();
        self.report.done.push(format!("replaced the old proxy; new connections were refused for at most {gap} ms"));
        Ok(())
    }

    pub(super) async fn load(&mut self, image: &ProgramImage) -> Result<(), EngineError> {
        if self.docker.load_image(image).await.map_err(|error| no_proxy(&error))? {
            self.report.done.push(format!("loaded the image {}", image.reference));
        }
        Ok(())
    }

    /// Creates a container and starts it; where no driver is given, tries journald and, refused, the fallback.
    pub(super) async fn start_new(
        &mut self,
        name: &str,
        body: ContainerCreateBody,
        log_driver: Option<&str>,
    ) -> Result<Started, EngineError> {
        let drivers = match log_driver {
            Some(driver) => vec![driver],
            None => vec!["journald", FALLBACK_LOG_DRIVER],
        };
        let mut last = None;
        for driver in drivers {
            let mut body = body.clone();
            if let Some(host) = &mut body.host_config {
                host.log_config = Some(log_config(driver));
            }
            let call = &self.docker.handles.call;
            let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
            let created = call.create_container(Some(options), body).await;
            let id = match created {
                Ok(created) => created.id,
                // The plugin is not even listed.
                Err(error) if log_driver.is_none() && error.to_string().contains("logg") => {
                    last = Some(refusal(&format!("create {name}"), error));
                    continue;
                }
                Err(error) => return Err(refusal(&format!("create {name}"), error)),
            };
            match call.start_container(&id, None::<StartContainerOptions>).await {
                Ok(()) => {
                    self.made.push(Made::Container(id.clone()));
                    return Ok(Started { id, log_driver: driver.to_owned() });
                }
                Err(error) => {
                    let error = refusal(&format!("start {name}"), error);
                    self.docker.discard(&id).await?;
                    // journald may be listed and refuse all the same; any other refusal would come again.
                    let text = error.to_string();
                    if log_driver.is_some() || !(text.contains("logging driver") || text.contains("journald")) {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| EngineError::NoProxy(format!("start {name}: no log driver works"))))
    }

    /// Waits until the proxy answers on its admin socket, or has ended.
    pub(super) async fn wait_ready(&self, id: &str) -> Result<(), EngineError> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            if self.docker.proxy_version().await?.is_some() {
                return Ok(());
            }
            let state = self.docker.inspect(id).await?;
            let has_ended =
                state.as_ref().is_none_or(|proxy| proxy.restart_count.unwrap_or(0) > 0 || !is_running(proxy));
            if has_ended || Instant::now() > deadline {
                let words = self.docker.last_words(id, 10).await;
                let what = if has_ended {
                    "ended by itself".to_owned()
                } else {
                    format!("gave no answer in {READY_DEADLINE:?}")
                };
                return Err(EngineError::NoProxy(format!(
                    "the proxy {} was started and {what}; its last words:\n  {}",
                    self.docker.names.proxy(),
                    if words.is_empty() { "(none)".to_owned() } else { words.join("\n  ") }
                )));
            }
            sleep(KNOCK).await;
        }
    }

    async fn explain_start(&self, name: &str, published: &[Published], error: &EngineError) -> EngineError {
        let Some(port) = ports::taken(published, &error.to_string()) else { return no_proxy(error) };
        let host = port.host;
        let who = self.who_has(host).await;
        EngineError::NoProxy(format!(
            "{name} can't publish port {host}: it is taken{who}; nothing was touched\nhint: stop what holds it (`ss -ltnp \
             'sport = :{host}'` shows it), or publish another port: `bgctl up{} --publish 8080:80`",
            self.docker.names.flag()
        ))
    }

    async fn who_has(&self, port: u16) -> String {
        match self.docker.publishers(port).await {
            Ok(names) if !names.is_empty() => format!(" by the container {}", names.join(", ")),
            _ => " by a program on the host".to_owned(),
        }
    }

    pub(super) fn holder_body(&self, image: &ProgramImage, published: &[Published]) -> ContainerCreateBody {
        let network = self.docker.names.network();
        let alias = EndpointSettings { aliases: Some(vec![ALIAS.to_owned()]), ..EndpointSettings::default() };
        ContainerCreateBody {
            image: Some(image.reference.clone()),
            cmd: Some(vec!["hold".to_owned()]),
            user: Some(format!("{UID}:{UID}")),
            labels: Some(labels::of_part(&network, Some(Role::Holder))),
            exposed_ports: Some(published.iter().map(|port| format!("{}/tcp", port.container)).collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(ports::bindings(published)),
                // The proxy has no capability, and ports below 1024 are its business.
                sysctls: Some(HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())])),
                network_mode: Some(network.clone()),
                ..hardened()
            }),
            networking_config: Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, alias)])) }),
            ..ContainerCreateBody::default()
        }
    }

    pub(super) fn proxy_body(&self, image: &ProgramImage, holder: &Started) -> ContainerCreateBody {
        let names = &self.docker.names;
        let state = Mount {
            typ: Some(MountType::VOLUME),
            source: Some(names.volume()),
            target: Some(config::paths::STATE_DIR.to_owned()),
            ..Mount::default()
        };
        let mut own_labels = labels::of_part(&names.network(), Some(Role::Proxy));
        own_labels.insert(labels::TRUSTED.to_owned(), self.trusted.join(","));
        let run = format!("rw,nosuid,nodev,noexec,size=1m,mode=0700,uid={UID},gid={UID}");
        ContainerCreateBody {
            image: Some(image.reference.clone()),
            entrypoint: Some(vec![PROGRAM.to_owned()]),
            user: Some(format!("{UID}:{UID}")),
            labels: Some(own_labels),
            host_config: Some(HostConfig {
                network_mode: Some(format!("container:{}", holder.id)),
                mounts: Some(vec![state]),
                tmpfs: Some(HashMap::from([("/run/bluegreen".to_owned(), run)])),
                ..hardened()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Removes what this run made, the last first; what can't be removed carries our labels, and `down` finds it.
    pub(super) async fn take_back(&mut self) {
        while let Some(made) = self.made.pop() {
            let call = &self.docker.handles.call;
            let _ = match made {
                Made::Container(id) => self.docker.discard(&id).await,
                Made::Network(name) => call.remove_network(&name).await.map_err(|error| refusal(&name, error)),
                Made::Volume(name) => {
                    let options = None::<bollard::query_parameters::RemoveVolumeOptions>;
                    call.remove_volume(&name, options).await.map_err(|error| refusal(&name, error))
                }
            };
        }
    }
}

/// Returns the networks to trust: those of `--trusted-proxy`, else those that the present proxy was made with.
pub(super) fn trusted_proxies(
    asked: &[String],
    proxy: Option<&ContainerInspectResponse>,
) -> Result<Vec<String>, EngineError> {
    if asked.is_empty() {
        let own_labels = proxy.and_then(|proxy| proxy.config.as_ref()?.labels.as_ref());
        let present = own_labels.and_then(|labels| labels.get(labels::TRUSTED)).map_or("", String::as_str);
        return Ok(present.split(',').filter(|network| !network.is_empty()).map(str::to_owned).collect());
    }
    match asked.iter().find(|network| !is_network(network)) {
        Some(wrong) => Err(EngineError::Usage(format!(
            "--trusted-proxy `{wrong}`: write a network such as 10.0.0.0/8, an address, or `private`"
        ))),
        None => Ok(asked.to_vec()),
    }
}

fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let fits = |most: u8| length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most));
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => fits(32),
        Ok(IpAddr::V6(_)) => fits(128),
        Err(_) => text == "private",
    }
}

/// What holder and proxy have in common: no rights, nothing to write to, always there.
fn hardened() -> HostConfig {
    HostConfig {
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        restart_policy: Some(restart_policy(RestartPolicyNameEnum::ALWAYS)),
        ..HostConfig::default()
    }
}

fn needed(image: Option<&ProgramImage>) -> Result<&ProgramImage, EngineError> {
    image.ok_or_else(|| EngineError::NoProxy("the proxy stopped at this very moment\nhint: run it again".to_owned()))
}

pub(super) fn no_proxy(error: &EngineError) -> EngineError {
    match error {
        EngineError::Unreachable(words) => EngineError::Unreachable(words.clone()),
        EngineError::Usage(words) => EngineError::Usage(words.clone()),
        EngineError::Refused(words) | EngineError::NoProxy(words) => EngineError::NoProxy(words.clone()),
    }
}

pub(super) fn id_of(container: &ContainerInspectResponse) -> Result<String, EngineError> {
    container.id.clone().ok_or_else(|| EngineError::Refused("the engine named no id of a container".to_owned()))
}

pub(super) fn is_running(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.running).unwrap_or(false)
}

fn started_at(container: &ContainerInspectResponse) -> Option<std::time::SystemTime> {
    humantime::parse_rfc3339(container.state.as_ref()?.started_at.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_networks_are_checked_and_stay_when_nobody_names_any() {
        for good in ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "private"] {
            assert_eq!(trusted_proxies(&[good.to_owned()], None).unwrap(), [good]);
        }
        for bad in ["10.0.0.0/33", "proxy", "10.0.0.0/8\"", "", "::/129"] {
            assert!(matches!(trusted_proxies(&[bad.to_owned()], None), Err(EngineError::Usage(_))), "{bad}");
        }
        let own_labels = HashMap::from([(labels::TRUSTED.to_owned(), "10.0.0.0/8,private".to_owned())]);
        let config = bollard::models::ContainerConfig {
            labels: Some(own_labels),
            ..bollard::models::ContainerConfig::default()
        };
        let proxy = ContainerInspectResponse { config: Some(config), ..ContainerInspectResponse::default() };
        assert_eq!(trusted_proxies(&[], Some(&proxy)).unwrap(), ["10.0.0.0/8", "private"]);
        assert!(trusted_proxies(&[], None).unwrap().is_empty());
    }

    #[test]
    fn a_version_is_read_from_an_answer_in_one_piece_or_in_chunks() {
        let document = r#"{"program":"bgproxy","version":"0.1.0","protocol":1,"build":"ab","pid":7}"#;
        let plain = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
        assert_eq!(parse_version(plain.as_bytes()).unwrap().build, "ab");
        let chunked = format!("HTTP/1.1 200 OK\r\n\r\n{:x}\r\n{document}\r\n0\r\n\r\n", document.len());
        assert_eq!(parse_version(chunked.as_bytes()).unwrap().pid, 7);
        let refused = format!("HTTP/1.1 503 No\r\n\r\n{document}");
        assert!(parse_version(refused.as_bytes()).is_none());
        assert!(parse_version(b"").is_none() && parse_version(b"HTTP/1.1 200 OK\r\n\r\n}{").is_none());
    }
}
