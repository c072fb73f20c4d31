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
        let names = self.0.iter().map(|pair| format!("{}=***", pair.split('=').next().unwrap_or_default()));
        f.debug_list().entries(names).finish()
    }
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
    fn a_value_is_saved_and_not_shown() {
        let variables = Variables::from(vec!["TOKEN=hunter2=x".to_owned()]);
        assert_eq!(format!("{variables:?}"), "[\"TOKEN=***\"]");
        assert_eq!(serde_json::to_string(&variables).unwrap(), "[\"TOKEN=hunter2=x\"]");
    }
}
