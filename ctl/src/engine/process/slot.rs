//! What a deployment does with its slots: create, start, stop, keep, remove, watch.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use config::name::{EndpointAddr, ServiceName};
use sha2::{Digest as _, Sha256};

use super::exit::reap;
use super::folders::at;
use super::identity::Identity;
use super::program::{self, Launch};
use super::record::{self, Record};
use super::{Process, log, port};
use crate::engine::{EngineError, Exit, Happening, Image, Instance, InstanceSpec, LogRange};

impl Process {
    pub(super) fn find_program(&self, reference: &str) -> Result<Image, EngineError> {
        let path = program::find(reference, config::paths::variable("PATH").as_deref())?;
        let id = program::id(&path).map_err(|error| EngineError::Refused(format!("{}: {error}", path.display())))?;
        Ok(Image {
            reference: reference.to_owned(),
            id,
            exposed_ports: Vec::new(),
            entrypoint: Vec::new(),
            revision: None,
            health_command: None,
        })
    }

    pub(super) fn list_instances(&self, service: Option<&ServiceName>) -> Result<Vec<Instance>, EngineError> {
        let records = self.records.all()?;
        let wanted = records.iter().filter(|record| service.is_none_or(|service| record.service == *service));
        Ok(wanted.map(Record::instance).collect())
    }

    pub(super) fn create_instance(&self, spec: &InstanceSpec) -> Result<Instance, EngineError> {
        program::check(&spec.run)?;
        let program = program::find(&spec.image.reference, config::paths::variable("PATH").as_deref())?;
        self.folders.make()?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.records.all()?;
        let name = record::name(&spec.service, spec.slot, spec.replica, false);
        if let Some(other) = others.iter().find(|other| other.name() == name) {
            let state = if other.is_running() { "running" } else { "stopped" };
            return Err(EngineError::Refused(format!(
                "{name} is there already ({state}, deployment {})",
                other.deployment
            )));
        }
        let endpoint = endpoint(choose_port(spec, &others)?)?;
        let now = SystemTime::now();
        let record = Record {
            id: new_id(&name, now),
            service: spec.service.clone(),
            slot: spec.slot,
            replica: spec.replica,
            kept: false,
            endpoint,
            deployment: spec.deployment.clone(),
            image: spec.image.reference.clone(),
            image_id: spec.image.id.clone(),
            program,
            run: spec.run.clone(),
            who: spec.who.clone(),
            notes: spec.notes.clone(),
            created: humantime::format_rfc3339_millis(now).to_string(),
            process: None,
            exit_code: None,
        };
        self.records.put(&record)?;
        Ok(record.instance())
    }

    pub(super) fn start_instance(&self, instance: &Instance) -> Result<(), EngineError> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.found(&instance.id)?;
        if record.is_running() {
            return self.records.put(&record);
        }
        let name = record.name();
        let port = record.endpoint.port();
        if !port::is_free(port) {
            return Err(EngineError::Refused(format!("{name}: port {port} of 127.0.0.1 is taken by someone else")));
        }
        let log = self.log(&record.id);
        let launch = Launch { program: &record.program, run: &record.run, port, log: &log };
        let child = launch
            .spawn()
            .map_err(|error| EngineError::Refused(format!("start {}: {error}", record.program.display())))?;
        let identity = Identity::of(child.id());
        record.process = identity.clone();
        record.exit_code = None;
        let saved = self.records.put(&record);
        let end = reap(child, identity.clone(), self.exit_recorder(&record));
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(record.id.clone(), end);
        drop(changing);
        if saved.is_err()
            && let Some(identity) = identity
        {
            // Without a record nobody would ever stop it.
            identity.kill();
        }
        saved
    }

    /// Returns a record with the process that runs, also where the run that started it was killed before it could note which.
    fn found(&self, id: &str) -> Result<Record, EngineError> {
        let mut record = self.records.get(id)?;
        if !record.is_running()
            && let Some(unnoted) = Identity::writing_to(&self.log(id))
        {
            record.process = Some(unnoted);
        }
        Ok(record)
    }

    /// Returns what writes an exit code down, unless the instance is gone or was started again.
    fn exit_recorder(&self, started: &Record) -> impl FnOnce(i64) + Send + 'static {
        let records = self.records.clone();
        let changing = self.changing.clone();
        let (id, process) = (started.id.clone(), started.process.clone());
        move |code| {
            let _changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(mut record) = records.get(&id)
                && record.process == process
            {
                record.exit_code = Some(code);
                // A code that can't be saved is one that a later run calls unknown; this one has it all the same.
                drop(records.put(&record));
            }
        }
    }

    pub(super) async fn stop_instance(&self, instance: &Instance, grace: Duration) -> Result<(), EngineError> {
        let record = self.found(&instance.id)?;
        let Some(identity) = &record.process else { return Ok(()) };
        identity.stop(grace).await.map_err(|error| EngineError::Refused(format!("stop {}: {error}", record.name())))
    }

    pub(super) async fn remove_instance(&self, instance: &Instance) -> Result<(), EngineError> {
        match self.records.get(&instance.id) {
            Ok(_) => self.stop_instance(instance, Duration::ZERO).await?,
            // Someone else removed it first.
            Err(EngineError::Refused(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance.id);
        self.records.remove(&instance.id)?;
        record::remove(&self.log(&instance.id))
    }

    pub(super) fn rename_kept(&self, instance: &Instance, kept: bool) -> Result<Instance, EngineError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.records.get(&instance.id)?;
        if record.kept != kept {
            record.kept = kept;
            let name = record.name();
            if self.records.all()?.iter().any(|other| other.id != record.id && other.name() == name) {
                return Err(EngineError::Refused(format!("the name {name} is taken by another instance")));
            }
            self.records.put(&record)?;
        }
        Ok(record.instance())
    }

    pub(super) async fn watch_instance(&self, instance: &Instance) -> Result<Happening, EngineError> {
        let record = self.records.get(&instance.id)?;
        let end = self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(&instance.id).cloned();
        let seen = match end {
            Some(mut end) => end.wait_for(Option::is_some).await.ok().and_then(|code| *code),
            None => None,
        };
        let code = match (seen, &record.process) {
            (Some(code), _) => code,
            // Another run of bgctl started it, so the kernel tells us that it ended, but not how.
            (None, Some(process)) => {
                process
                    .ended()
                    .await
                    .map_err(|error| EngineError::Unreachable(format!("watch {}: {error}", record.name())))?;
                self.records.get(&instance.id)?.exit_code.unwrap_or(Exit::UNKNOWN)
            }
            (None, None) => record.exit_code.unwrap_or(Exit::UNKNOWN),
        };
        Ok(Happening::Exited(Exit { code, oom: false }))
    }

    pub(super) async fn read_log(
        &self,
        instance: &Instance,
        range: LogRange,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), EngineError> {
        let record = self.records.get(&instance.id)?;
        let path = self.log(&record.id);
        let read = async {
            let mut reader = log::read(&path, range.tail, line).await?;
            if range.follow {
                reader.follow(&|| record.is_running(), line).await?;
            }
            reader.finish(line);
            Ok::<(), std::io::Error>(())
        };
        match read.await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && record.process.is_none() => Ok(()),
            other => other.map_err(|error| at(&path, &error)),
        }
    }

    fn log(&self, id: &str) -> PathBuf {
        self.folders.logs().join(format!("{id}.log"))
    }
}

/// Returns the port of a new instance: what its own settings say, else the wanted one or the next free one.
fn choose_port(spec: &InstanceSpec, others: &[Record]) -> Result<u16, EngineError> {
    if let Some(port) = program::own_port(&spec.run)? {
        return Ok(port);
    }
    let reserved: Vec<u16> = others.iter().map(|record| record.endpoint.port()).collect();
    port::choose(spec.port, &reserved)
        .ok_or_else(|| EngineError::Refused(format!("no port of 127.0.0.1 is free from {} on", spec.port)))
}

fn endpoint(port: u16) -> Result<EndpointAddr, EngineError> {
    format!("127.0.0.1:{port}").parse().map_err(|error| EngineError::Usage(format!("{error}")))
}

fn new_id(name: &str, now: SystemTime) -> String {
    let seed = format!("{name} {now:?} {}", std::process::id());
    Sha256::digest(seed.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
