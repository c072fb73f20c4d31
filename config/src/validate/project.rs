//! `bluegreen.toml`: the services of a project, each as the options of `bgctl switch`.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_spanned::Spanned;

use super::service::{Reached, is_probe_path};
use super::{Check, Hot, Routes, shorten};
use crate::defaults;
use crate::duration;
use crate::error::{Problem, Source};
use crate::file::{Number, Text};
use crate::name::ServiceName;
use crate::project::file::{self, Scalar};
use crate::project::model::{CertificateFiles, Deployment, Hooks, Project, Secret, SecretSource, Service};
use crate::project::schema::{FLIP_IN, IMAGE_HEALTH, KEEP, PULL};

/// Judges what is written in docker's own words: a key and one value of it. Only who runs containers knows them.
pub type Judge<'j> = &'j dyn Fn(&str, &str) -> Result<(), String>;

/// How far a file is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What it says; whether the files are there that it names is seen by whoever opens them.
    AtTheText,
    /// Its certificates too, and whether clients will take them.
    AtTheFilesToo,
}

/// Returns the project that `bluegreen.toml` means.
///
/// # Errors
/// Every problem of the file, in its order.
pub fn project(file: file::File, source: &Source, judge: Judge<'_>, look: Look) -> Result<Project, Vec<Problem>> {
    let mut check = Check { source, problems: Vec::new(), complaints: Vec::new(), files: Vec::new() };
    let mut services: Vec<_> = file.services.into_iter().collect();
    services.sort_by_key(|(name, _)| name.span().start);
    let together = check.together(&services);
    let mut routes = Routes::new();
    let mut valid = Vec::new();
    for (name, service) in services {
        valid.extend(check.project_service(&name, service, judge, &mut routes));
    }
    for service in &mut valid {
        service.with = together.get(service.name.as_str()).cloned().unwrap_or_default();
    }
    valid.sort_by(|a, b| a.name.cmp(&b.name));
    let host = file.host.and_then(|text| check.filled("host", text));
    let proxy = file.proxy.map(|table| {
        let hot = Hot {
            trusted_proxies: table.trusted_proxies,
            proxy_protocol: table.proxy_protocol,
            webhook: table.webhook,
            acme: table.acme,
        };
        check.proxy_settings(hot, table.limits, table.log)
    });
    if look == Look::AtTheFilesToo {
        check.certificates_of_project(&file.certificates, &valid);
    }
    let beside = |text: &Text| source.beside(Path::new(text.get_ref()));
    let files = file.certificates.iter();
    let certificates = files.map(|one| CertificateFiles { cert: beside(&one.cert), key: beside(&one.key) }).collect();
    check.end(Project { host, proxy, certificates, services: valid })
}

impl Check<'_> {
    fn project_service(
        &mut self,
        name: &Text,
        file: file::Service,
        judge: Judge<'_>,
        routes: &mut Routes,
    ) -> Option<Service> {
        let parsed = self.word::<ServiceName>(name, "it becomes a host name: `shop`, `web-2`");
        let reached = Reached {
            domains: file.domains.as_deref().unwrap_or_default(),
            paths: file.paths.as_deref().unwrap_or_default(),
            strip_path: file.strip_path.as_ref(),
            tls: file.tls.as_ref(),
        };
        let settings = self.settings(name, reached, file.options, routes);
        if let Some(path) = file.health_path.as_ref().filter(|path| !is_probe_path(path.get_ref())) {
            self.refuse(path.span(), "the probe's path can't be asked for", "begin it with `/`, without blanks");
        }
        if let (Some(detach), Some(pause)) = (&file.detach, &file.pause)
            && *detach.get_ref()
            && *pause.get_ref()
        {
            self.refuse(pause.span(), "`pause` and `detach` exclude each other", "leave one of the two out");
        }
        for secret in file.secrets.keys() {
            let is_it = |name: &Text| name.get_ref() == secret.get_ref();
            if file.env.keys().any(is_it) || file.env_inherit.iter().any(is_it) {
                let what = format!("`{}` is among the variables too", shorten(secret.get_ref()));
                self.refuse(secret.span(), what, "leave one of the two out");
            }
        }
        let secrets = file.secrets.into_iter().filter_map(|(name, source)| self.secret(&name, source)).collect();
        let relative = |texts: &Option<Vec<Text>>, source: fn(&str) -> Option<&str>| -> Vec<bool> {
            let is_here = |text: &Text| source(text.get_ref()).is_some_and(is_relative);
            texts.iter().flatten().map(is_here).collect()
        };
        let here = [relative(&file.volumes, volume_source), relative(&file.mounts, mount_source)].concat();
        let env = file.env.into_iter().filter_map(|(name, value)| self.variable(&name, &value));
        let mut env: Vec<String> = env.collect();
        for name in file.env_inherit {
            if self.is_variable(&name) {
                env.push(name.into_inner());
            }
        }
        let env_files = file.env_files.into_iter().filter_map(|text| self.filled("env_files", text));
        let env_files: Vec<String> = env_files.collect();
        let env_files = env_files.iter().map(|text| self.beside(text)).collect();
        if let (Some(_), Some(start)) = (&file.before, &file.hooks.before_start) {
            self.refuse(start.span(), "`before_start` and `before` are the same", "leave one of the two out");
        }
        let (before_start, hooks) = self.hooks(file.hooks);
        if let (Some(to), Some(image)) = (&file.to, &file.image) {
            let hint = "leave one of the two out: an address is of what bgctl does not run";
            let problem = self.source.problem(image.span(), "`image` and `to` exclude each other").hint(hint);
            self.problems.push(problem.also(self.source, to.span(), "the addresses"));
        }
        if let (Some(no_health), None) = (&file.no_health, &file.to) {
            let hint = "add to = [\"127.0.0.1:3000\"], or take it out";
            self.refuse(no_health.span(), "`no_health` is about addresses, and there are none", hint);
        }
        let to = file.to.map(|to| {
            to.into_inner()
                .iter()
                .filter_map(|text| self.word(text, "write host:port, or unix:/run/app.sock"))
                .collect()
        });
        let no_health = file.no_health.is_some_and(Spanned::into_inner);
        let docker = |check: &mut Self, key: &str, texts: Option<Vec<Text>>| -> Option<Vec<String>> {
            Some(texts?.into_iter().map(|text| check.docker(key, text, judge)).collect())
        };
        let deployment = Deployment {
            domains: file.domains.is_some().then_some(settings.domains),
            paths: file.paths.is_some().then_some(settings.paths),
            strip_path: file.strip_path.map(Spanned::into_inner),
            tls: settings.tls,
            port: self.whole("port", file.port, 1..=65_535),
            health_path: file.health_path.map(Text::into_inner),
            health_port: self.whole("health_port", file.health_port, 1..=65_535),
            health_host: file.health_host.and_then(|text| self.probe_host(text)),
            health_headers: file.health_headers.map(|headers| {
                self.probe_headers(&headers);
                headers.iter().map(|(name, value)| format!("{}={}", name.get_ref(), value.get_ref())).collect()
            }),
            health_status: file.health_status.and_then(|text| self.word(&text, "")),
            health_timeout: self.time("health_timeout", file.health_timeout, Some(defaults::HEALTH_TIMEOUT)),
            health_interval: self.time("health_interval", file.health_interval, Some(defaults::HEALTH_INTERVAL)),
            healthy: self.whole("healthy", file.healthy, 1..=100),
            deadline: self.time("deadline", file.deadline, Some(defaults::DEADLINE)),
            image_health: self.one_of("image_health", file.image_health, IMAGE_HEALTH),
            drain: self.time("drain", file.drain, None),
            drain_tunnels: self.time("drain_tunnels", file.drain_tunnels, None),
            detach: file.detach.map(Spanned::into_inner),
            pause: file.pause.map(Spanned::into_inner),
            bake: self.time("bake", file.bake, None),
            bake_errors: self.whole("bake_errors", file.bake_errors, 0..=100),
            bake_slow: self.whole("bake_slow", file.bake_slow, 0..=1_000_000),
            keep: self.one_of("keep", file.keep, KEEP),
            stop_grace: self.time("stop_grace", file.stop_grace, None),
            keep_images: self.whole("keep_images", file.keep_images, 0..=10_000),
            pull: self.one_of("pull", file.pull, PULL),
            before: file.before.map(Text::into_inner).or(before_start),
            before_timeout: self.time("before_timeout", file.before_timeout, None).or(hooks.timeout),
            replicas: self.whole("replicas", file.replicas, 1..=1000),
            stop_first: file.stop_first,
            no_port: file.no_port,
            note: file.note.map(Text::into_inner),
            lock_wait: self.time("lock_wait", file.lock_wait, None),
            env,
            env_files,
            volumes: docker(self, "volumes", file.volumes),
            mounts: docker(self, "mounts", file.mounts),
            tmpfs: docker(self, "tmpfs", file.tmpfs),
            networks: docker(self, "networks", file.networks),
            user: self.scalar("user", file.user, judge),
            init: file.init,
            add_hosts: docker(self, "add_hosts", file.add_hosts),
            labels: docker(self, "labels", file.labels),
            memory: self.scalar("memory", file.memory, judge),
            cpus: self.scalar("cpus", file.cpus, judge),
            shm_size: self.scalar("shm_size", file.shm_size, judge),
            ulimits: docker(self, "ulimits", file.ulimits),
            entrypoint: file.entrypoint.map(Text::into_inner),
            command: file.command.map(|words| words.into_iter().map(Text::into_inner).collect()),
        };
        let image = file.image.and_then(|text| self.filled("image", text)).map(|text| self.image(text));
        let places = deployment.volumes.iter().chain(&deployment.mounts).flatten();
        let begin_here = places.zip(here).filter(|(_, is_here)| *is_here).map(|(place, _)| place.clone()).collect();
        let (with, options) = (Vec::new(), settings.options);
        Some(Service { name: parsed?, image, with, to, no_health, deployment, secrets, hooks, begin_here, options })
    }

    fn secret(&mut self, name: &Text, source: Spanned<file::Secret>) -> Option<Secret> {
        let span = source.span();
        let is_good = self.is_variable(name);
        let source = match source.into_inner() {
            file::Secret { file: Some(path), command: None, env: None } => {
                let path = self.filled("file", path)?;
                SecretSource::File(self.beside(&path).into())
            }
            file::Secret { file: None, command: Some(line), env: None } => {
                SecretSource::Command { line: self.filled("command", line)?, folder: self.beside(".").into() }
            }
            file::Secret { file: None, command: None, env: Some(variable) } => {
                SecretSource::Variable(self.filled("env", variable)?)
            }
            file::Secret { .. } => {
                let hint = "write { file = \"...\" }, { command = \"...\" } or { env = \"...\" }";
                self.refuse(span, "a secret comes from one place", hint);
                return None;
            }
        };
        is_good.then(|| Secret { name: name.get_ref().clone(), source })
    }

    /// Returns what goes before the start, which is an option of a switch too, and the rest.
    fn hooks(&mut self, file: file::Hooks) -> (Option<String>, Hooks) {
        let file::Hooks { before_start, before_flip, before_flip_in, after, on_failure, timeout } = file;
        if let (Some(place), None) = (&before_flip_in, &before_flip) {
            self.refuse(place.span(), "`before_flip_in` has nothing to run", "add before_flip = \"...\"");
        }
        let mut line = |key: &str, text: Option<Text>| text.and_then(|text| self.filled(key, text));
        let (before_flip, after, on_failure) =
            (line("before_flip", before_flip), line("after", after), line("on_failure", on_failure));
        let place = self.one_of("before_flip_in", before_flip_in, FLIP_IN);
        let hooks = Hooks {
            before_flip,
            is_inside: place.as_deref() == Some("container"),
            after,
            on_failure,
            timeout: self.time("timeout", timeout, None),
            folder: self.beside(".").into(),
        };
        (before_start.map(Text::into_inner), hooks)
    }

    /// A text that may not be empty.
    fn filled(&mut self, key: &str, text: Text) -> Option<String> {
        if text.get_ref().trim().is_empty() {
            self.refuse(text.span(), format!("`{key}` is empty"), "leave it out where there is nothing to say");
            return None;
        }
        Some(text.into_inner())
    }

    fn whole<T: TryFrom<usize>>(
        &mut self,
        key: &str,
        number: Option<Number>,
        range: RangeInclusive<usize>,
    ) -> Option<T> {
        let least = *range.start();
        number.and_then(|number| T::try_from(self.number(key, Some(number), least, range)).ok())
    }

    /// A duration; one that has a default here may not be zero.
    fn time(&mut self, key: &str, text: Option<Text>, default: Option<Duration>) -> Option<Duration> {
        let text = text?;
        if default.is_some() {
            return Some(self.duration(key, Some(text), default.unwrap_or_default()));
        }
        let parsed = duration::parse(text.get_ref());
        parsed.map_err(|error| self.refuse(text.span(), error, &format!("`{key}` is written 200ms, 30s or 1m"))).ok()
    }

    fn one_of(&mut self, key: &str, text: Option<Text>, words: &[&'static str]) -> Option<String> {
        let text = text?;
        if words.contains(&text.get_ref().as_str()) {
            return Some(text.into_inner());
        }
        let what = format!("`{}` is no {key}", shorten(text.get_ref()));
        self.refuse(text.span(), what, &format!("one of {}", words.join(", ")));
        None
    }

    fn is_variable(&mut self, name: &Text) -> bool {
        let is_good = !name.get_ref().is_empty() && !name.get_ref().contains(['=', '\0']);
        if !is_good {
            self.refuse(name.span(), "this is no name of a variable", "write its name alone, such as DATABASE_URL");
        }
        is_good
    }

    fn variable(&mut self, name: &Text, value: &Spanned<Scalar>) -> Option<String> {
        if let Scalar::Fraction(_) = value.get_ref() {
            // How it was written is lost: 1.10 would become 1.1.
            self.refuse(value.span(), "a number with a fraction is no text", "put it in quotes");
            return None;
        }
        // A value may be a secret, so it is not repeated.
        if value.get_ref().to_string().contains('\0') {
            self.refuse(value.span(), "the value holds a NUL, which no variable can", "");
            return None;
        }
        self.is_variable(name).then(|| format!("{}={}", name.get_ref(), value.get_ref()))
    }

    /// A value in docker's own words; what begins in this file's folder becomes absolute.
    fn docker(&mut self, key: &str, text: Text, judge: Judge<'_>) -> String {
        let span = text.span();
        let text = text.into_inner();
        let text = match key {
            "volumes" => self.volume(&text),
            "mounts" => self.mount(&text),
            _ => text,
        };
        if let Err(error) = judge(key, &text) {
            self.refuse(span, error, &format!("`{key}` is written as behind docker run"));
        }
        text
    }

    fn scalar(&mut self, key: &str, value: Option<Spanned<Scalar>>, judge: Judge<'_>) -> Option<String> {
        let value = value?;
        let text = value.get_ref().to_string();
        if let Err(error) = judge(key, &text) {
            self.refuse(value.span(), error, &format!("`{key}` is written as behind docker run"));
        }
        Some(text)
    }

    fn volume(&self, text: &str) -> String {
        match volume_source(text).filter(|source| is_relative(source)) {
            Some(source) => format!("{}{}", self.beside(source), &text[source.len()..]),
            None => text.to_owned(),
        }
    }

    fn mount(&self, text: &str) -> String {
        let field = |field: &str| match field.split_once('=') {
            Some((key @ ("source" | "src"), source)) if is_relative(source) => {
                format!("{key}={}", self.beside(source))
            }
            _ => field.to_owned(),
        };
        text.split(',').map(field).collect::<Vec<_>>().join(",")
    }

    /// An image that is written as a path is a program of the process engine.
    fn image(&self, text: String) -> String {
        if is_relative(&text) { self.beside(&text) } else { text }
    }

    /// Returns the path that a relative one means in this file.
    fn beside(&self, path: &str) -> String {
        let path = self.source.beside(Path::new(path));
        let path = std::path::absolute(&path).unwrap_or(path);
        // `/srv/shop/./data` is understood by everybody and liked by nobody; `..` may lead through a link, so it stays.
        let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        path.to_string_lossy().into_owned()
    }
}

fn volume_source(text: &str) -> Option<&str> {
    text.split_once(':').map(|(source, _)| source)
}

fn mount_source(text: &str) -> Option<&str> {
    let fields = text.split(',').filter_map(|field| field.split_once('='));
    fields.filter(|(key, _)| matches!(*key, "source" | "src")).map(|(_, source)| source).next_back()
}

/// Tells whether a source is written as a relative path, and not as the name of a volume.
fn is_relative(source: &str) -> bool {
    matches!(source, "." | "..") || source.starts_with("./") || source.starts_with("../")
}
