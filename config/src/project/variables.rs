//! `${NAME}` and `${NAME:-default}` in the texts of a file, from the environment; `$${` is a literal `${`.

use std::borrow::Cow;
use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, Source};

/// Keys whose text is a command line: the shell that runs it knows the variables, and a value that was put in would stand in the
/// list of processes, in logs, and be read as words of the shell.
const COMMAND_LINES: [&str; 6] = ["after", "before", "before_flip", "before_start", "command", "on_failure"];

/// Looks a variable up; one that is empty is as good as none.
pub type Variable<'v> = &'v dyn Fn(&str) -> Option<String>;

/// Puts values into texts.
pub(super) struct Filler<'a> {
    pub(super) source: &'a Source,
    pub(super) variable: Variable<'a>,
    /// Each variable that is missing, at its own place.
    pub(super) problems: Vec<Problem>,
    /// The texts that they are missing in: what else is wrong with those is nobody's fault.
    pub(super) unfilled: Vec<Range<usize>>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(source: &'a Source, variable: Variable<'a>) -> Self {
        Self { source, variable, problems: Vec::new(), unfilled: Vec::new() }
    }

    pub(super) fn table(&mut self, table: &mut DeTable<'_>) {
        for (key, value) in table.iter_mut() {
            let is_line = COMMAND_LINES.contains(&&**key.get_ref()) && matches!(value.get_ref(), DeValue::String(_));
            if !is_line {
                self.value(value);
            }
        }
    }

    pub(super) fn value(&mut self, value: &mut Spanned<DeValue<'_>>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => {
                if text.contains("${") {
                    let known = self.problems.len();
                    *text = Cow::Owned(self.text(text, &span));
                    if self.problems.len() > known {
                        self.unfilled.push(span);
                    }
                }
            }
            DeValue::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            DeValue::Table(inner) => self.table(inner),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn text(&mut self, text: &str, span: &Range<usize>) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        for number in 0.. {
            let Some(at) = rest.find("${") else { break };
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = &from[2..];
                continue;
            }
            filled.push_str(before);
            let Some((inside, behind)) = from[2..].split_once('}') else {
                self.refuse(span, number, 2, "`${` has no `}`", "a literal one is written `$${`");
                break;
            };
            rest = behind;
            let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, text)| (name, Some(text)));
            if !is_name(name) {
                let hint = "write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`";
                self.refuse(span, number, inside.len() + 3, "this is no name of a variable", hint);
                continue;
            }
            match ((self.variable)(name), default) {
                (Some(value), _) => filled.push_str(&value),
                (None, Some(default)) => filled.push_str(default),
                (None, None) => {
                    let what = format!("the variable {name} is not set, or is empty");
                    self.refuse(
                        span,
                        number,
                        inside.len() + 3,
                        &what,
                        &format!("set it, or write ${{{name}:-default}}"),
                    );
                }
            }
        }
        filled.push_str(rest);
        filled
    }

    /// Tells a problem at the so manieth `${` of the text.
    fn refuse(&mut self, span: &Range<usize>, number: usize, length: usize, what: &str, hint: &str) {
        let written = self.source.text().get(span.clone()).unwrap_or_default();
        // Escapes may hide it: then the whole text is the place.
        let place = written.match_indices("${").nth(number).map(|(at, _)| span.start + at);
        let place = place.map_or(span.clone(), |start| start..start + length);
        self.problems.push(self.source.problem(place, what).hint(hint));
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_first) && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}
