//! Texts with variables that are filled in for each request: `https://$host$request_uri`.

use std::fmt;
use std::str::FromStr;

use super::shorten;

/// A text with variables, taken apart. `$$` is a literal `$`, `$1` to `$9` are what a path's `*` or groups stood for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is written.
    Text(String),
    /// What a request says.
    Variable(Variable),
    /// What the so manieth `*` or group of the path stood for, from 1.
    Capture(usize),
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The host that it names, in lower case and without a port.
    Host,
    /// The client's address, as far as it is to be believed.
    RemoteAddr,
    /// `http` or `https`.
    Scheme,
    /// Its path as it came, without the query.
    Uri,
    /// Its path and query as they came.
    RequestUri,
    /// Its query, without the `?`.
    Args,
    /// `?` where it has a query.
    IsArgs,
    /// Its method.
    RequestMethod,
    /// Its id.
    RequestId,
    /// Who it is, where that was asked.
    RemoteUser,
    /// The service that takes it.
    Service,
    /// The slot that it is sent to: `blue` or `green`; empty where it is sent nowhere.
    Slot,
    /// A field of its head, by its name in lower case.
    Field(String),
}

/// Every name but `$http_NAME`.
const NAMES: [(&str, Variable); 12] = [
    ("host", Variable::Host),
    ("remote_addr", Variable::RemoteAddr),
    ("scheme", Variable::Scheme),
    ("uri", Variable::Uri),
    ("request_uri", Variable::RequestUri),
    ("args", Variable::Args),
    ("is_args", Variable::IsArgs),
    ("request_method", Variable::RequestMethod),
    ("request_id", Variable::RequestId),
    ("remote_user", Variable::RemoteUser),
    ("service", Variable::Service),
    ("slot", Variable::Slot),
];

impl Template {
    /// What is told to whoever writes a variable that there is not.
    pub const HINT: &'static str = "the variables are $host $remote_addr $scheme $uri $request_uri $args $is_args $request_method $request_id \
         $remote_user $service $slot, and $http_NAME for a field of the request; a literal `$` is written `$$`";

    /// Returns its pieces, in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the highest capture that it uses; 0: none.
    pub fn captures(&self) -> usize {
        let numbers = self.parts.iter().map(|part| match part {
            Part::Capture(number) => *number,
            Part::Text(_) | Part::Variable(_) => 0,
        });
        numbers.max().unwrap_or(0)
    }

    /// Tells whether it uses a variable.
    pub fn uses(&self, variable: &Variable) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(used) if used == variable))
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("it holds a control character".to_owned());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                literal.push('$');
                rest = behind;
                continue;
            }
            let (part, behind) = part(rest)?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

/// Reads what stands behind a `$`; returns the rest too.
fn part(text: &str) -> Result<(Part, &str), String> {
    let (name, behind) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or("`${` has no `}`")?,
        None if text.starts_with(|c: char| c.is_ascii_digit()) => text.split_at(1),
        None => text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())),
    };
    if let Some(number) = name.parse().ok().filter(|number| name.len() == 1 && *number > 0) {
        return Ok((Part::Capture(number), behind));
    }
    if let Some((_, variable)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok((Part::Variable(variable.clone()), behind));
    }
    match name.strip_prefix("http_").filter(|field| !field.is_empty()) {
        Some(field) => Ok((Part::Variable(Variable::Field(field.to_ascii_lowercase().replace('_', "-"))), behind)),
        None if name.is_empty() => Err("a `$` stands before no variable; a literal one is written `$$`".to_owned()),
        None => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    let meant = NAMES.iter().map(|(known, _)| (distance(name, known), known)).min();
    match meant {
        Some((far, known)) if far <= 2 => format!("there is no variable `${}`; `${known}` is one", shorten(name)),
        _ => format!("there is no variable `${}`", shorten(name)),
    }
}

/// Returns how many letters have to be changed to make one name of another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(80).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

super::serde_as_text!(Template);
