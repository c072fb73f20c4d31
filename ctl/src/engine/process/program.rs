//! A program as an image: how its name is looked up, and how a process is made of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::engine::{EngineError, RunSettings};

/// What a process keeps of our environment: where things are and how to talk, nothing that may be a secret.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Returns the file that a reference means: a path where it has a slash, else a program in `search` (`PATH`).
///
/// # Errors
/// [`EngineError::Refused`] where there is none that can be run.
pub(super) fn find(reference: &str, search: Option<&str>) -> Result<PathBuf, EngineError> {
    let found = if reference.contains('/') {
        std::path::absolute(reference).ok().filter(|path| is_program(path))
    } else {
        std::env::split_paths(search.unwrap_or_default())
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(reference))
            .find(|path| is_program(path))
    };
    found.ok_or_else(|| {
        EngineError::Refused(format!(
            "image {reference}: no such program\nhint: with --engine process an image is a program on this machine, by its path or in PATH"
        ))
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Returns the id of a program: what is in it.
///
/// # Errors
/// Where it can't be read.
pub(super) fn id(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match io::Read::read(&mut file, &mut chunk)? {
            0 => break,
            read => digest.update(&chunk[..read]),
        }
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// Refuses what only containers have, rather than to run without it.
///
/// # Errors
/// [`EngineError::Usage`] with the first such option.
pub(super) fn check(run: &RunSettings) -> Result<(), EngineError> {
    let wanted = [
        ("--volume", !run.volumes.is_empty()),
        ("--mount", !run.mounts.is_empty()),
        ("--tmpfs", !run.tmpfs.is_empty()),
        ("--network", !run.networks.is_empty()),
        ("--user", run.user.is_some()),
        ("--init", run.init),
        ("--add-host", !run.add_hosts.is_empty()),
        ("--memory", run.memory.is_some()),
        ("--cpus", run.cpus.is_some()),
        ("--shm-size", run.shm_size.is_some()),
        ("--ulimit", !run.ulimits.is_empty()),
        ("--entrypoint", run.entrypoint.is_some()),
    ];
    match wanted.into_iter().find(|(_, is_wanted)| *is_wanted) {
        None => Ok(()),
        Some((option, _)) => Err(EngineError::Usage(format!(
            "{option}: a plain process has none\nhint: leave it out, or use --engine docker"
        ))),
    }
}

/// Returns the port that the settings themselves put into the environment; the last one wins.
///
/// # Errors
/// [`EngineError::Usage`] where it is no port.
pub(super) fn own_port(run: &RunSettings) -> Result<Option<u16>, EngineError> {
    let Some(text) = run.env.iter().rev().find_map(|pair| pair.strip_prefix("PORT=")) else { return Ok(None) };
    match text.parse() {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(EngineError::Usage(format!("--env PORT={text}: the port is a number from 1 to 65535"))),
    }
}

/// A process to be started, with all that its instance gives it.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) run: &'a RunSettings,
    pub(super) port: u16,
    pub(super) log: &'a Path,
}

impl Launch<'_> {
    /// Starts it in a group of its own, so that a Ctrl-C meant for us does not reach it and all of it can be killed.
    ///
    /// # Errors
    /// Where the log can't be opened or the kernel refuses to run the program.
    pub(super) fn spawn(&self) -> io::Result<Child> {
        let mut command = command(self.program, self.run, self.port);
        command.args(&self.run.command);
        detach(&mut command, self.log)?.spawn()
    }
}

/// Returns a program with the environment that its instance gives it.
pub(super) fn command(program: &Path, run: &RunSettings, port: u16) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for key in INHERITED {
        command.envs(config::paths::variable(key).map(|value| (key, value)));
    }
    command.env("PORT", port.to_string());
    command.envs(run.env.iter().filter_map(|pair| pair.split_once('=')));
    command
}

/// Lets a command outlive this run: its own group, no terminal, its words appended to a log.
///
/// # Errors
/// Where the log can't be opened.
pub(super) fn detach<'a>(command: &'a mut Command, log: &Path) -> io::Result<&'a mut Command> {
    let log = File::options().create(true).append(true).open(log)?;
    let errors = log.try_clone()?;
    Ok(command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_path_and_a_path_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let search = folder.path().to_str();
        assert!(find("app", search).is_err(), "a file that can't be run is no program");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("app", search).unwrap(), file);
        assert_eq!(find(file.to_str().unwrap(), None).unwrap(), file);
        assert!(matches!(find("app", None), Err(EngineError::Refused(words)) if words.contains("no such program")));
    }

    #[test]
    fn two_programs_have_one_id_only_where_they_are_equal() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        for (file, text) in [(&a, "abc"), (&b, "abc"), (&c, "abd")] {
            fs::write(file, text).unwrap();
        }
        assert_eq!(id(&a).unwrap(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(id(&a).unwrap(), id(&b).unwrap());
        assert_ne!(id(&a).unwrap(), id(&c).unwrap());
    }

    #[test]
    fn an_option_that_only_containers_have_is_refused_by_its_name() {
        check(&RunSettings { env: vec!["A=1".to_owned()].into(), ..RunSettings::default() }).unwrap();
        let run = RunSettings { memory: Some("1g".to_owned()), ..RunSettings::default() };
        assert!(matches!(check(&run), Err(EngineError::Usage(words)) if words.starts_with("--memory")));
    }

    #[test]
    fn a_port_of_the_settings_own_is_the_one_that_counts() {
        let with = |env: &[&str]| RunSettings {
            env: env.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>().into(),
            ..RunSettings::default()
        };
        assert_eq!(own_port(&with(&["A=1"])).unwrap(), None);
        assert_eq!(own_port(&with(&["PORT=1", "PORT=81"])).unwrap(), Some(81));
        assert!(own_port(&with(&["PORT=http"])).is_err());
    }
}
