//! Any text as `bgproxy.toml`: it is read or refused, and each problem stands in the text.
#![no_main]

use config::error::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = Source::new("bgproxy.toml", text);
    for problem in config::load::parse(&source).err().unwrap_or_default() {
        let position = problem.place.position.expect("a problem of a text has a place in it");
        assert!(position.line <= text.lines().count() + 1, "line {} of {}", position.line, text.lines().count());
        drop(problem.render());
    }
});
