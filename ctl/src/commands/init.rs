//! `bgctl init`: a commented `bluegreen.toml` to begin with, from what the folder says already.

use std::path::{Path, PathBuf};

use ::config::error::Source;
use ::config::name::ServiceName;
use ::config::project::{self, Reading};
use clap::Args;

use super::compose::{self, Found};
use super::running;
use crate::commands::described::reading;
use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::global::Global;

/// Write a commented bluegreen.toml, from the Dockerfile or the compose file of this folder where there is one
#[derive(Debug, Args)]
pub struct Init {
    /// Describe the services that run, instead of what this folder holds
    #[arg(long)]
    from_running: bool,
}

/// How a file begins.
const HEAD: [&str; 4] = [
    "# How this project is deployed. `bgctl check` validates it, `bgctl plan` shows what would change, `bgctl deploy`",
    "# does it. What is left out stays as it runs, else has its default.",
    "",
    "# Where it runs: an ssh name, user@host, or a URL. Without it: the Docker engine of this machine.",
];

/// What stands under a service for someone to take the `#` from.
const SUGGESTIONS: [(&str, &str); 8] = [
    ("port", "port = 8080"),
    ("domains", "domains = [\"shop.example.com\"]"),
    ("health_path", "health_path = \"/up\""),
    ("before", "before = \"rake db:migrate\"   # in a one-off container of the new image"),
    ("drain", "drain = \"30s\"                # how long requests on the old version may go on"),
    ("bake", "bake = \"10s\"                 # how long it is watched, and taken back where it does badly"),
    ("memory", "memory = \"512m\""),
    ("env_inherit", "env_inherit = [\"DATABASE_URL\"]   # from the environment of bgctl"),
];

impl Init {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let file = context.global.file.clone().unwrap_or_else(|| PathBuf::from(project::FILE));
        if file.exists() && !context.global.yes {
            return Err(Error::usage(format!("{} is there already, and was left as it is", file.display()))
                .hint("`-y` writes a new one over it"));
        }
        if self.from_running {
            let running = running::find(context).await?;
            let text = HEAD.join("\n") + "\n" + &host(context.global.host.as_deref());
            let text = running.iter().fold(text, |text, service| text + "\n" + &service.text + "\n");
            let names = running.iter().map(|service| service.name.as_str()).collect();
            return write(context, &file, &text, (names, "what runs"));
        }
        let folder = std::path::absolute(&file).ok().and_then(|file| file.parent().map(Path::to_owned));
        let found = find(&folder.unwrap_or_default())?;
        let text = text(&found);
        let names = found.services.iter().map(|service| service.name.as_str()).collect();
        write(context, &file, &text, (names, &found.source))
    }
}

fn write(
    context: &Context<'_>,
    file: &Path,
    text: &str,
    (names, source): (Vec<&str>, &str),
) -> Result<ExitCode, Error> {
    std::fs::write(file, text).map_err(|error| Error::usage(format!("write {}: {error}", file.display())))?;
    if context.ui.tone().json {
        context.ui.document(&serde_json::json!({ "file": file.display().to_string(), "services": names }));
    } else {
        context.ui.data(&format!("wrote {} for {}, from {source}", file.display(), names.join(", ")));
        context.ui.say("look through it, then `bgctl plan` and `bgctl deploy`");
    }
    Ok(ExitCode::DONE)
}

/// Returns the line of the host, which is a comment where none was named.
fn host(host: Option<&str>) -> String {
    host.map_or_else(
        || "# host = \"production-server\"\n".to_owned(),
        |host| format!("host = {}\n", compose::quoted(host)),
    )
}

/// Looks through a folder.
fn find(folder: &Path) -> Result<Found, Error> {
    let exposed = std::fs::read_to_string(folder.join("Dockerfile")).ok().map(|text| exposed_port(&text));
    for name in compose::FILES {
        let Ok(text) = std::fs::read_to_string(folder.join(name)) else { continue };
        let mut found = compose::read(name, &text).map_err(|error| Error::usage(format!("{name}: {error}")))?;
        // The Dockerfile is that of the one service that is built here.
        if let [only] = found.services.as_mut_slice() {
            only.port = only.port.or(exposed.flatten().filter(|_| only.is_built));
        }
        if !found.services.is_empty() {
            return Ok(found);
        }
    }
    let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_ascii_lowercase());
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
    let name = name.trim_matches('-').parse::<ServiceName>();
    let name = name.or_else(|_| "app".parse()).map_err(|error| Error::usage(format!("{error}")))?;
    let source = if exposed.is_some() { "the Dockerfile" } else { "nothing but the folder's name" };
    let mut service = compose::Service::new(name);
    service.port = exposed.flatten();
    Ok(Found { source: source.to_owned(), services: vec![service], left_out: Vec::new() })
}

/// Returns the only TCP port that a Dockerfile exposes; of several none is the one.
fn exposed_port(text: &str) -> Option<u16> {
    let mut ports: Vec<u16> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(instruction) = words.next() else { continue };
        // Each stage begins anew; the last one is the image.
        if instruction.eq_ignore_ascii_case("FROM") {
            ports.clear();
        } else if instruction.eq_ignore_ascii_case("EXPOSE") {
            ports.extend(words.filter_map(|word| word.strip_suffix("/tcp").unwrap_or(word).parse::<u16>().ok()));
        }
    }
    match ports.as_slice() {
        [port] => Some(*port),
        _ => None,
    }
}

/// Returns the file.
fn text(found: &Found) -> String {
    let mut lines: Vec<String> = HEAD.map(str::to_owned).to_vec();
    lines.push(host(None).trim_end().to_owned());
    if !found.left_out.is_empty() {
        lines.push(String::new());
        lines.push(format!("# Left out, since nothing comes to it by HTTP: {}.", found.left_out.join(", ")));
    }
    for service in &found.services {
        lines.push(String::new());
        lines.push(format!("[services.{}]", service.name));
        let written = service.lines();
        let is_written = |key: &str| written.iter().any(|line| line.starts_with(&format!("{key} = ")));
        lines.extend(written.iter().filter(|line| is_image(line)).map(|line| accepted(line)));
        let suggested = SUGGESTIONS.iter().filter(|(key, _)| !is_written(key));
        lines.extend(written.iter().filter(|line| !is_image(line)).map(|line| accepted(line)));
        lines.extend(suggested.map(|(_, line)| format!("# {line}")));
        lines.push(String::new());
        if service.env.is_empty() {
            lines.push(format!("# [services.{}.env]", service.name));
            lines.push("# LOG_LEVEL = \"info\"".to_owned());
        } else {
            lines.push(format!("[services.{}.env]", service.name));
            lines.extend(
                service
                    .env
                    .iter()
                    .map(|(name, value)| format!("{} = {}", compose::quoted(name), compose::quoted(value))),
            );
        }
    }
    lines.join("\n") + "\n"
}

fn is_image(line: &str) -> bool {
    line.starts_with("image = ")
}

/// Returns a line as it is where it is good, else as a comment that says why.
fn accepted(line: &str) -> String {
    let text = format!("[services.x]\n{line}\n");
    // Its variables may be set by whoever deploys.
    let global = Global::default();
    let reading = Reading { variable: &|_| Some(String::new()), ..reading(&global) };
    match project::parse(&Source::new(project::FILE, text), reading) {
        Ok(_) => line.to_owned(),
        Err(problems) => {
            let why = problems.first().map(|problem| problem.what.lines().next().unwrap_or_default().to_owned());
            format!("# {line}   # not taken over: {}", why.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> String {
        let folder = tempfile::Builder::new().prefix("shop-").tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        let text = text(&find(folder.path()).unwrap());
        let parsed = project::parse(&Source::new(project::FILE, text.as_str()), reading(&Global::default()));
        parsed.unwrap_or_else(|problems| panic!("{}\n{text}", problems[0].render()));
        text
    }

    #[test]
    fn what_a_dockerfile_exposes_is_the_port_where_it_is_one() {
        assert_eq!(exposed_port("FROM a\nEXPOSE 1\nFROM b\nexpose 3000/tcp\nEXPOSE 53/udp $X\n"), Some(3000));
        assert_eq!(exposed_port("FROM a\nEXPOSE 80 443\n"), None);
        assert!(written(&[("Dockerfile", "FROM a\nEXPOSE 3000\n")]).contains("\nport = 3000\n"));
    }

    #[test]
    fn an_empty_folder_gets_a_service_of_its_own_name() {
        let text = written(&[]);
        assert!(text.contains("[services.shop-") && text.contains("# port = 8080"), "{text}");
    }

    #[test]
    fn every_suggestion_is_good_without_its_comment_sign() {
        for (key, line) in SUGGESTIONS {
            assert_eq!(accepted(line), line, "{key}");
        }
    }

    #[test]
    fn a_compose_file_gives_services_that_answer_and_what_they_run_with() {
        let text = written(&[
            ("Dockerfile", "FROM a\nEXPOSE 3000\n"),
            (
                "compose.yaml",
                "services:\n  web:\n    build: .\n    image: team/web:7\n    command: [serve, --fast]\n    env_file: .env\n    \
                 volumes: ['./data:/data', 'bad']\n    environment:\n      LEVEL: info\n      N: 3\n      TOKEN: ${TOKEN}\n  \
                 db:\n    image: postgres:17\n    ports: ['5432:5432']\n",
            ),
        ]);
        for line in [
            "[services.web]\nimage = \"team/web:7\"\nport = 3000\n",
            "command = [\"serve\", \"--fast\"]\n",
            "env_files = [\".env\"]\n",
            "env_inherit = [\"TOKEN\"]\n",
            "# volumes = [\"./data:/data\", \"bad\"]   # not taken over: ",
            "[services.web.env]\n\"LEVEL\" = \"info\"\n\"N\" = \"3\"\n",
            "# Left out, since nothing comes to it by HTTP: db.\n",
        ] {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
        assert!(!text.contains("[services.db]"), "{text}");
    }

    #[test]
    fn what_can_not_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("compose.yml"), "services: [\n").unwrap();
        assert!(find(folder.path()).unwrap_err().message.starts_with("compose.yml: "));
    }
}
