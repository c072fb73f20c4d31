//! `bgctl import-nginx`: an nginx configuration as `bluegreen.toml`.

use std::path::PathBuf;

use ::config::project;
use clap::Args;

use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::import::{self, Note, Weight};
use crate::nginx;

/// Write the bluegreen.toml that is equal to an nginx configuration, and tell what has no equal
#[derive(Debug, Args)]
pub struct ImportNginx {
    /// nginx.conf, files of sites, or what `nginx -T` prints
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to write it; a file that is there is left as it is (default: bluegreen.toml)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ImportNginx {
    #[expect(clippy::unused_async, reason = "every command is run in the same way")]
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let output =
            self.output.or_else(|| context.global.file.clone()).unwrap_or_else(|| PathBuf::from(project::FILE));
        let loaded: Vec<_> =
            self.files.iter().map(|file| nginx::load(file)).collect::<Result<_, _>>().map_err(|error| {
                Error::usage(error.to_string()).hint("`nginx -t` tells what nginx says of it; nothing was written")
            })?;
        let imported = import::import(&loaded);
        let names = imported.names();
        if names.is_empty() {
            let mut error = Error::usage("there is no server in it that hands requests on; nothing was written");
            for note in &imported.notes {
                error = error.detail(said(note));
            }
            return Err(error.hint("name nginx.conf itself, or the files of its sites"));
        }
        let sources: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let text = import::write(&imported, &sources.join(", "));
        write(&output, &text)?;
        for note in &imported.notes {
            let line = said(note);
            if note.weight == Weight::LessProtected {
                context.ui.warn(&line)
            } else {
                context.ui.announce(&line)
            }
            if !context.ui.tone().json {
                context.ui.announce(&format!("  instead: {}", note.instead));
            }
        }
        if context.ui.tone().json {
            let notes: Vec<_> = imported.notes.iter().map(document).collect();
            let file = output.display().to_string();
            context.ui.document(&serde_json::json!({ "file": file, "services": names, "notes": notes }));
        } else {
            let count = imported.notes.len();
            context.ui.data(&format!(
                "wrote {} for {}, with {count} things to look at",
                output.display(),
                names.join(", ")
            ));
            context.ui.say("look through it, then `bgctl check`, `bgctl plan` and `bgctl apply`");
        }
        Ok(ExitCode::DONE)
    }
}

/// Writes a file that is not there yet; who is there already stays as it is, also where two write at once.
fn write(output: &PathBuf, text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(output);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::usage(format!("{} is there already, and was left as it is", output.display()))
                .hint("`--output FILE` names another one"))
        }
        Err(error) => Err(Error::usage(format!("write {}: {error}", output.display()))),
    }
}

fn said(note: &Note) -> String {
    format!("{}: `{}`: {}", note.place, note.directive, note.what)
}

fn document(note: &Note) -> serde_json::Value {
    serde_json::json!({
        "file": note.place.file.display().to_string(),
        "line": note.place.line,
        "directive": note.directive,
        "kind": note.weight,
        "what": note.what,
        "instead": note.instead,
    })
}
