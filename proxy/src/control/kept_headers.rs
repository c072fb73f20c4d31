//! Header fields of probes, kept by the deployments that they were given for. Their values may be secrets, so that they lie here alone:
//! whoever deploys again, or goes back, has only their names.

use config::admin::{AdminError, ErrorCode};
use serde::{Deserialize, Serialize};

/// The fields of so many deployments are kept: more than a journal has entries to go back to.
const MOST: usize = 64;

/// What is kept of a service, the latest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptHeaders(Vec<OfDeployment>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OfDeployment {
    deployment: String,
    headers: Vec<(String, String)>,
}

impl KeptHeaders {
    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the fields of a deployment, in the place of those that it had.
    pub(super) fn keep(&mut self, deployment: Option<&str>, headers: &[(String, String)]) {
        let Some(deployment) = deployment.filter(|_| !headers.is_empty()) else { return };
        self.0.retain(|of| of.deployment != deployment);
        self.0.push(OfDeployment { deployment: deployment.to_owned(), headers: headers.to_vec() });
        let beyond = self.0.len().saturating_sub(MOST);
        self.0.drain(..beyond);
    }

    /// Returns the fields of these names: each as the first of the deployments has it, else as it was given last.
    ///
    /// # Errors
    /// Where one was never given, or so long ago that it is forgotten.
    pub(super) fn find(
        &self,
        names: Vec<String>,
        deployments: [Option<&str>; 2],
    ) -> Result<Vec<(String, String)>, AdminError> {
        let value = |name: &str| {
            let first = deployments
                .into_iter()
                .flatten()
                .filter_map(|wanted| self.0.iter().find(|of| of.deployment == wanted))
                .chain(self.0.iter().rev());
            let mut fields = first.flat_map(|of| &of.headers).filter(|(known, _)| known.eq_ignore_ascii_case(name));
            fields.next().map(|(_, value)| value.clone())
        };
        let fields = names.into_iter().map(|name| match value(&name) {
            Some(value) => Ok((name, value)),
            None => {
                let message = format!("the value of the probe's header field `{name}` is not kept here");
                Err(AdminError::new(ErrorCode::BadRequest, message)
                    .hint(format!("give it again: --health-header {name}=VALUE, or health_headers of the file")))
            }
        });
        fields.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(value: &str) -> (String, String) {
        ("X-Probe".to_owned(), value.to_owned())
    }

    #[test]
    fn a_field_is_that_of_its_deployment_else_of_the_live_one_else_the_last() {
        let mut kept = KeptHeaders::default();
        kept.keep(Some("1"), &[field("one")]);
        kept.keep(Some("2"), &[field("two")]);
        kept.keep(Some("3"), &[field("three")]);
        kept.keep(Some("4"), &[]);
        kept.keep(None, &[field("nobody's")]);
        let found = |deployments| kept.find(vec!["x-probe".to_owned()], deployments).unwrap()[0].1.clone();
        assert_eq!(found([Some("1"), Some("2")]), "one");
        assert_eq!(found([Some("new"), Some("2")]), "two");
        assert_eq!(found([Some("new"), None]), "three");
        let error = kept.find(vec!["Other".to_owned()], [Some("1"), None]).unwrap_err();
        assert!(error.message.contains("`Other`") && !error.message.contains("one"), "{error:?}");
    }

    #[test]
    fn the_oldest_are_forgotten_and_one_that_is_given_again_is_the_latest() {
        let mut kept = KeptHeaders::default();
        (0..MOST).for_each(|number| kept.keep(Some(&number.to_string()), &[field("x")]));
        kept.keep(Some("0"), &[field("again")]);
        kept.keep(Some("new"), &[field("y")]);
        let deployments: Vec<&str> = kept.0.iter().map(|of| of.deployment.as_str()).collect();
        assert_eq!((deployments.len(), deployments[0], deployments[MOST - 2]), (MOST, "2", "0"));
    }
}
