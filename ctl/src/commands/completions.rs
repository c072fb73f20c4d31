//! `bgctl completions`: what a shell needs to complete our commands and options, and the names of services that there are.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Print completions for a shell
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell; `bgctl completions bash > /etc/bash_completion.d/bgctl` is for everybody on this machine
    shell: Shell,
}

impl Completions {
    /// The command line is given, since it lists this command too.
    #[expect(clippy::unused_async, reason = "every command is run in the same way")]
    pub(crate) async fn run(self, context: &Context<'_>, line: Command) -> Result<ExitCode, Error> {
        context.ui.text(&script(self.shell, line));
        Ok(ExitCode::DONE)
    }
}

/// Returns a shell's script. Bash, zsh and fish ask `bgctl complete` for names; the others know commands and options.
fn script(shell: Shell, line: Command) -> String {
    let named: Vec<String> = line
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .filter(|command| command.get_positionals().any(|argument| argument.get_id() == "service"))
        .map(|command| command.get_name().to_owned())
        .collect();
    // The two slots are always the same, and a script may know them.
    let mut line = line.mut_subcommands(|command| {
        command.mut_args(|argument| {
            let is_slot = argument.get_value_names().is_some_and(|names| names.iter().any(|name| name == "blue|green"));
            if is_slot { argument.value_parser(["blue", "green"]) } else { argument }
        })
    });
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut line, "bgctl", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => bash(&script, &named),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(script, &named),
        _ => script,
    }
}

/// Puts the names beside the options of every command that takes one.
fn bash(script: &str, named: &[String]) -> String {
    let mut is_named = false;
    let line = |line: &str| {
        if let Some(command) = line.trim().strip_prefix("bgctl__subcmd__").and_then(|rest| rest.strip_suffix(')')) {
            is_named = named.iter().any(|name| name == command);
        }
        match line.strip_suffix('"') {
            Some(front) if is_named && line.trim_start().starts_with("opts=\"") => {
                format!("{front} $(bgctl complete services -- \"${{COMP_WORDS[@]:1}}\" 2>/dev/null)\"\n")
            }
            _ => format!("{line}\n"),
        }
    };
    script.lines().map(line).collect()
}

/// Gives every argument that is a service a function of its own.
fn zsh(script: &str) -> String {
    let function = "_bgctl_services() {\n    local -a names\n    \
                    names=(${(f)\"$(bgctl complete services -- ${words[2,-1]} 2>/dev/null)\"})\n    \
                    compadd -a names\n}\n";
    let line = |line: &str| {
        let trimmed = line.trim_start();
        let is_service = trimmed.starts_with("':service -- ") || trimmed.starts_with("'::service -- ");
        let line = if is_service { line.replace(":_default'", ":_bgctl_services'") } else { line.to_owned() };
        format!("{line}\n")
    };
    let script: String = script.lines().map(line).collect();
    match script.split_once('\n') {
        Some((head, rest)) => format!("{head}\n\n{function}{rest}"),
        None => script,
    }
}

/// Adds the names as one more rule.
fn fish(mut script: String, named: &[String]) -> String {
    script += &format!(
        "complete -c bgctl -n \"__fish_bgctl_using_subcommand {}\" -f -a '(bgctl complete services -- (commandline -opc)[2..-1] \
         2>/dev/null)'\n",
        named.join(" ")
    );
    script
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn line() -> Command {
        let service = || Arg::new("service").help("The service");
        let slot = Arg::new("to").long("to").value_name("blue|green");
        Command::new("bgctl")
            .subcommand(Command::new("flip").about("Flip").arg(service()).arg(slot))
            .subcommand(Command::new("status").about("Status").arg(service().required(false)))
            .subcommand(Command::new("up").about("Up"))
            .subcommand(Command::new("complete").hide(true).arg(service()))
    }

    #[test]
    fn names_are_asked_for_where_a_service_may_stand_and_nowhere_else() {
        let bash = script(Shell::Bash, line());
        assert_eq!(bash.matches("$(bgctl complete services").count(), 2, "{bash}");
        assert!(bash.contains("compgen -W \"blue green\""), "{bash}");
        let zsh = script(Shell::Zsh, line());
        assert!(zsh.contains("'::service -- The service:_bgctl_services'"), "{zsh}");
        let fish = script(Shell::Fish, line());
        assert!(fish.contains("using_subcommand flip status\" -f -a '(bgctl complete services"), "{fish}");
    }
}
