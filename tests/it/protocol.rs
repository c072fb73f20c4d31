//! The examples of `docs/admin-protocol.md`, run as they stand there.

use std::process::Command;

use serde_json::Value;
use tests::{proxy, skipped, upstream};

/// What differs from run to run.
const VOLATILE: [&str; 4] = ["seconds", "flip_micros", "since", "lease"];

/// The `$` lines of the page's code blocks, each with the answer that is shown below it.
fn examples() -> Vec<(String, Vec<Value>)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/admin-protocol.md");
    let text = std::fs::read_to_string(page).unwrap();
    let mut examples: Vec<(String, Vec<Value>)> = Vec::new();
    for block in text.split("```\n").skip(1).step_by(2) {
        let mut is_shown = false;
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                examples.push((command.to_owned(), Vec::new()));
                is_shown = true;
            } else if is_shown {
                examples.last_mut().unwrap().1.push(serde_json::from_str(line).unwrap());
            }
        }
    }
    examples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_the_admin_protocol_answers_as_it_is_shown() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("every_example_of_the_admin_protocol", "there is no curl");
    }
    let app = upstream("v1").await;
    let proxy = proxy();
    let examples = examples();
    assert!(examples.len() > 10, "the page was not understood: {examples:?}");
    for (command, shown) in examples {
        let (run, admin) = (command.replace("127.0.0.1:3000", &app.address().to_string()), proxy.admin());
        let curl = move || Command::new("sh").args(["-c", &run]).env("ADMIN", admin).output().unwrap();
        let output = tokio::task::spawn_blocking(curl).await.unwrap();
        let answer = String::from_utf8(output.stdout).unwrap().replace(&app.address().to_string(), "127.0.0.1:3000");
        let answered =
            serde_json::Deserializer::from_str(&answer).into_iter::<Value>().map(|value| steady(value.unwrap()));
        let shown: Vec<Value> = shown.into_iter().map(steady).collect();
        assert_eq!(answered.collect::<Vec<_>>(), shown, "{command}");
    }
}

/// Takes out what differs from run to run, and leaves the rest to be compared.
fn steady(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (String, Value)| {
                let is_volatile = VOLATILE.contains(&key.as_str()) && !value.is_null();
                (key, if is_volatile { Value::from("differs") } else { steady(value) })
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(steady).collect()),
        // A moment within a sentence.
        Value::String(text) => {
            let is_time = |word: &str| word.len() == 20 && word.ends_with('Z') && word.starts_with("20");
            let words: Vec<&str> = text.split(' ').map(|word| if is_time(word) { "TIME" } else { word }).collect();
            Value::String(words.join(" "))
        }
        other => other,
    }
}
