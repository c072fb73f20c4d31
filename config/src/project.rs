//! `bluegreen.toml`, which is bgctl's: where a project runs, and how its services are reached.
//!
//! The same four steps as the proxy's own file: text, [`file::Project`], [`mod@validate`], [`Project`].

use std::path::Path;

use crate::error::{self, Problem, Source};
use crate::file;
use crate::model::Project;
use crate::validate;

/// The name that is looked for in the working folder.
pub const FILE: &str = "bluegreen.toml";

/// Returns the project in a file.
///
/// # Errors
/// Every problem of the file; one that says so where it can't be read.
pub fn load(path: &Path) -> Result<Project, Vec<Problem>> {
    match error::read(path) {
        Ok(text) => parse(&Source::new(path, text)),
        Err(error) => Err(vec![Problem::of_file(path, format!("the file can't be read: {error}"))]),
    }
}

/// Returns the project that a text means.
///
/// # Errors
/// Every problem of the text. A text that is not TOML, or has an unknown key, has that one alone.
pub fn parse(source: &Source) -> Result<Project, Vec<Problem>> {
    let file: file::Project = toml::from_str(source.text()).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        vec![source.problem(span, error.message()).hint("docs/bluegreen-toml.md lists every key")]
    })?;
    validate::project(file, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse(&Source::new(FILE, text)).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_loads_and_a_table_that_is_left_out_leaves_what_is_in_force() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bluegreen.toml");
        let project = load(&path).unwrap_or_else(|problems| panic!("{}", problems[0].render()));
        let names: Vec<&str> = project.services.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["api", "shop"]);
        assert!(project.services[0].1.options.is_some() && project.services[1].1.options.is_none());
    }

    #[test]
    fn every_problem_has_its_place() {
        let text = "[services.shop]\ndomains = [\"shop.test\"]\n[services.other]\ndomains = [\"shop.test\"]\n\
            [services.other.options]\nrequest_bytes = \"1x\"\nburst = 3\n";
        let problems = problems(text);
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[0].starts_with("bluegreen.toml:4:12: `other` has the same route as `shop`"), "{problems:#?}");
        assert!(problems[1].starts_with("bluegreen.toml:6:17: `1x` is not a size"), "{problems:#?}");
        assert!(problems[2].starts_with("bluegreen.toml:7:9: `burst` has no rate"), "{problems:#?}");
        assert!(self::problems("[services.shop]\nimages = 1\n")[0].contains("unknown field `images`"));
    }
}
