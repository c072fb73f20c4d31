//! Values that nobody may see: read from where the file says they are, and warned of where they are typed.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use ::config::name::ServiceName;
use ::config::paths;
use ::config::project::{Secret, SecretSource};
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::Error;
use crate::mask::{MASK, has_password, is_named_so};
use crate::ui::Ui;

/// A password manager that asks somebody for something takes longer, and nobody can answer it here.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A variable with its value.
#[derive(Clone)]
pub struct Revealed {
    name: String,
    value: String,
}

impl Revealed {
    /// Returns it as an engine takes it: `K=V`.
    pub(crate) fn pair(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={MASK}", self.name)
    }
}

/// Reads secrets from their sources.
///
/// # Errors
/// Wrong usage with the name of each that could not be read, never with what was read.
///
/// # Cancel safety
/// Dropping it ends the command that is under way.
pub(crate) async fn reveal(service: &ServiceName, secrets: &[Secret]) -> Result<Vec<Revealed>, Error> {
    let mut revealed = Vec::new();
    let mut failures = Vec::new();
    for Secret { name, source } in secrets {
        match read(source).await.and_then(checked) {
            Ok(value) => revealed.push(Revealed { name: name.clone(), value }),
            Err(why) => failures.push(format!("{name}: {why}")),
        }
    }
    if failures.is_empty() {
        return Ok(revealed);
    }
    let names = if failures.len() == 1 { "a secret" } else { "secrets" };
    let error = Error::usage(format!("{names} of {service} could not be read, so nothing was done"));
    Err(failures.into_iter().fold(error, Error::detail))
}

async fn read(source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::File(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("the file {}: {error}", path.display()))
        }
        SecretSource::Variable(name) => {
            paths::variable(name).ok_or_else(|| format!("the variable {name} is not set, or is empty"))
        }
        SecretSource::Command { line, folder } => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
            // What a program says of a secret may be the secret.
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            let ended = timeout(TIMEOUT, command.output()).await;
            let ended = ended.map_err(|_| format!("its command did not end within {} s", TIMEOUT.as_secs()))?;
            let ended = ended.map_err(|error| format!("its command could not be run: {error}"))?;
            if !ended.status.success() {
                return Err(match ended.status.code() {
                    Some(code) => format!("its command ended with code {code}; what it said is not shown"),
                    None => "its command was killed".to_owned(),
                });
            }
            String::from_utf8(ended.stdout).map_err(|_| "its command wrote what is no text".to_owned())
        }
    }
}

/// Takes the line feed off that ends nearly every file, and refuses what is no value.
fn checked(mut text: String) -> Result<String, String> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.as_str() {
        "" => Err("it is empty".to_owned()),
        text if text.contains('\0') => Err("it holds a NUL, which no variable can".to_owned()),
        _ => Ok(text),
    }
}

/// Warns of what everybody on this machine can read while it is typed.
pub(crate) fn warn_of_typed(ui: &Ui, variables: &[String]) {
    for (name, value) in variables.iter().filter_map(|pair| pair.split_once('=')) {
        if !value.is_empty() && (is_named_so(name) || has_password(value)) {
            ui.warn(&format!(
                "the value of --env {name}=... can be read in the list of processes and in the shell's history; `--env {name}` \
                 takes it from the environment"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, source: SecretSource) -> Secret {
        Secret { name: name.to_owned(), source }
    }

    fn command(line: &str) -> SecretSource {
        SecretSource::Command { line: line.to_owned(), folder: "/".into() }
    }

    #[tokio::test]
    async fn a_secret_comes_from_a_file_a_command_or_a_variable_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "two\nlines\r\n").unwrap();
        let service = "shop".parse().unwrap();
        let sources = [secret("A", SecretSource::File(path)), secret("B", command("echo b; echo noise >&2"))];
        let revealed = reveal(&service, &sources).await.unwrap();
        let pairs: Vec<String> = revealed.iter().map(Revealed::pair).collect();
        assert_eq!(pairs, ["A=two\nlines", "B=b"]);
        assert_eq!(format!("{revealed:?}"), "[A=***, B=***]");
    }

    #[tokio::test]
    async fn each_that_fails_is_named_and_nothing_of_what_it_said_is_repeated() {
        let sources = [
            secret("A", command("echo hunter2; echo hunter2 >&2; exit 3")),
            secret("B", SecretSource::Variable("BG_TEST_NOT_SET".to_owned())),
            secret("C", SecretSource::File("/nowhere/at/all".into())),
            secret("D", command("printf '\\0'")),
            secret("E", command("true")),
        ];
        let error = reveal(&"shop".parse().unwrap(), &sources).await.unwrap_err();
        let starts = [
            "A: its command ended with code 3",
            "B: the variable",
            "C: the file /nowhere",
            "D: it holds",
            "E: it is empty",
        ];
        assert_eq!(error.details.len(), starts.len(), "{error:?}");
        error.details.iter().zip(starts).for_each(|(line, start)| assert!(line.starts_with(start), "{line}"));
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_that_is_typed_is_warned_of_without_its_value() {
        let (ui, captured) = Ui::captured();
        warn_of_typed(
            &ui,
            &["API_TOKEN=hunter2", "LEVEL=info", "API_KEY", "DB=x://u:hunter2@db", "TOKEN="].map(str::to_owned),
        );
        let said = captured.stderr();
        assert!(said.contains("--env API_TOKEN=...") && said.contains("`--env DB`"), "{said}");
        assert!(said.lines().count() == 2 && !said.contains("hunter2"), "{said}");
    }
}
