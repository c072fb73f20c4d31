//! Commands that messages suggest: each is one that bgctl takes as it stands, but for what the reader alone knows.

use std::path::Path;

/// Files whose words reach whoever runs bgctl.
const SOURCES: [&str; 3] = ["../ctl/src", "../proxy/src", "../config/src"];

#[test]
fn every_command_that_a_message_suggests_can_be_typed_as_it_stands() {
    // With the stack of a program's first thread, which all that bgctl can be told needs in a build without optimisation.
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(read_all).unwrap();
    thread.join().unwrap();
}

fn read_all() {
    use clap::Parser as _;
    let (mut seen, mut wrong) = (0, Vec::new());
    for source in SOURCES {
        each_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source), &mut |path, text| {
            for command in suggested(text) {
                seen += 1;
                let words: Vec<String> = command.split_whitespace().map(filled).collect();
                if let Err(error) = ctl::cli::Cli::try_parse_from(words)
                    && !["--help", "--version"].iter().any(|asks| command.contains(asks))
                {
                    wrong.push(format!("{}: `{command}`: {error}", path.display()));
                }
            }
        });
    }
    assert!(seen > 60, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn each_file(path: &Path, act: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_file(&path, act);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            act(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Returns the commands in a file's words: those in backquotes, and those that are put together with the way to their place.
fn suggested(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    // A literal goes on behind a backslash at the end of its line.
    let text = lines.fold(String::new(), |all, line| match all.strip_suffix('\\') {
        Some(begun) => format!("{begun}{}", line.trim_start()),
        None => format!("{all}\n{line}"),
    });
    let quoted = text.split('\n').flat_map(|line| line.split('`').skip(1).step_by(2));
    let quoted = quoted.filter(|piece| piece.starts_with("bgctl ") && !piece.contains('"')).map(str::to_owned);
    let made = text.split(".line(\"").skip(1).filter_map(|rest| {
        let (command, rest) = rest.split_once("\", ")?;
        (rest.contains("name") && !command.is_empty()).then(|| format!("bgctl {command} shop"))
    });
    let made_with = text.split(".line_with(\"").skip(1).filter_map(|rest| {
        let (command, rest) = rest.split_once("\", ")?;
        let more = rest.split('"').nth(1)?;
        Some(format!("bgctl {command} shop {more}"))
    });
    quoted.chain(made).chain(made_with).collect()
}

/// Returns a word with what is filled in when it is printed, or by its reader: a number where one is wanted.
fn filled(word: &str) -> String {
    match word {
        "PERCENT" | "{wanted}" => "5".to_owned(),
        "PORT:PORT" => "80:80".to_owned(),
        "SERVICE" => "shop".to_owned(),
        "CIDR" => "10.0.0.0/8".to_owned(),
        "ADDRESS" => "127.0.0.1:3000".to_owned(),
        word if word.starts_with('{') && word.ends_with('}') => "shop".to_owned(),
        // The option of another gateway, behind the name of a command.
        word => word.split('{').next().unwrap_or_default().to_owned(),
    }
}
