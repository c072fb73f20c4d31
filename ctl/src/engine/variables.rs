//! The environment of an instance: values may be secrets, so that nothing prints them by the way.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// Variables as `K=V`, in the order given; a later one wins. `Debug` shows their names alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(Vec<String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|pair| format!("{}=***", name_of(pair)));
        f.debug_list().entries(names).finish()
    }
}

impl Variables {
    /// Returns the names alone: what may be written where others read.
    #[must_use]
    pub fn names(&self) -> Self {
        Self(self.iter().map(|pair| name_of(pair).to_owned()).collect())
    }

    /// Returns the same with the values of an environment where there is a name alone. A name that the environment lacks stays
    /// one: docker's word for a variable of the image that is not wanted.
    #[must_use]
    pub fn valued(&self, environment: &[String]) -> Self {
        let value = |name: &str| environment.iter().rev().find(|pair| pair.contains('=') && name_of(pair) == name);
        let pairs = self.iter().map(|pair| match pair.contains('=') {
            true => pair.clone(),
            false => value(pair).unwrap_or(pair).clone(),
        });
        Self(pairs.collect())
    }

    /// Tells whether a value is missing.
    pub(super) fn lacks_values(&self) -> bool {
        self.iter().any(|pair| !pair.contains('='))
    }
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

impl Deref for Variables {
    type Target = Vec<String>;

    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl DerefMut for Variables {
    fn deref_mut(&mut self) -> &mut Vec<String> {
        &mut self.0
    }
}

impl From<Vec<String>> for Variables {
    fn from(pairs: Vec<String>) -> Self {
        Self(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_values_back_from_the_environment_that_has_them() {
        let pairs = |pairs: &[&str]| Variables::from(pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>());
        let variables = pairs(&["TOKEN=hunter2=x", "EMPTY=", "GONE"]);
        let names = variables.names();
        assert_eq!(*names, ["TOKEN", "EMPTY", "GONE"]);
        let environment = pairs(&["PORT=80", "TOKEN=old", "TOKEN=hunter2=x", "EMPTY=", "PATH=/bin"]);
        assert_eq!(names.valued(&environment), variables);
        // One that has its values, as labels had them once, keeps them.
        assert_eq!(variables.valued(&pairs(&["TOKEN=other"])), variables);
        assert!(names.lacks_values() && !pairs(&["A=1"]).lacks_values());
    }

    #[test]
    fn a_value_is_saved_and_not_shown() {
        let variables = Variables::from(vec!["TOKEN=hunter2=x".to_owned()]);
        assert_eq!(format!("{variables:?}"), "[\"TOKEN=***\"]");
        assert_eq!(serde_json::to_string(&variables).unwrap(), "[\"TOKEN=hunter2=x\"]");
    }
}
