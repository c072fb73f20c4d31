//! The certificates of the file.

use std::path::Path;
use std::time::SystemTime;

use super::{Check, shorten};
use crate::certificate::Certificate;
use crate::error;
use crate::file::{self, Text};
use crate::name::HostPattern;
use crate::project::model::Service;

impl Check<'_> {
    pub(super) fn certificates(&mut self, files: &[file::Certificate]) -> Vec<Certificate> {
        files.iter().filter_map(|file| self.certificate(file)).collect()
    }

    /// Those that bgctl brings. One for hosts that the project does not have is a slip of the pen.
    pub(super) fn certificates_of_project(&mut self, files: &[file::Certificate], services: &[Service]) {
        let domains = || services.iter().filter_map(|service| service.deployment.domains.as_ref());
        // A service without domains takes every host, and of one that the file does not describe nothing is known.
        let takes_all = services.is_empty() || domains().count() < services.len() || domains().any(Vec::is_empty);
        for file in files {
            let Some(certificate) = self.certificate(file) else { continue };
            let is_covered = |domain: &HostPattern| certificate.names.iter().any(|name| covers(name, domain));
            if !certificate.names.is_empty() && !takes_all && !domains().flatten().any(is_covered) {
                let (file_name, names) = (shorten(file.cert.get_ref()), shorten(&certificate.names.join(", ")));
                let what = format!("`{file_name}` is for {names}, and no service here has such a domain");
                self.complaints.push(self.source.problem(file.cert.span(), what).hint("name the one of a domain"));
            }
        }
        // Whoever asks for a check wants to hear of them.
        self.problems.append(&mut self.complaints);
    }

    fn certificate(&mut self, file: &file::Certificate) -> Option<Certificate> {
        let (chain, key) = (self.pem(&file.cert), self.pem(&file.key));
        match Certificate::read(&chain?, &key?) {
            Ok(certificate) => {
                for complaint in certificate.complaints(SystemTime::now()) {
                    let what = format!("`{}`: {complaint}", shorten(file.cert.get_ref()));
                    let problem = self.source.problem(file.cert.span(), what);
                    self.complaints.push(problem.hint("it is served all the same; put a good one in its place"));
                }
                Some(certificate)
            }
            Err(error) => {
                let text = if error.is_of_key() { &file.key } else { &file.cert };
                self.refuse(text.span(), format!("`{}`: {error}", shorten(text.get_ref())), error.hint());
                None
            }
        }
    }

    fn pem(&mut self, file: &Text) -> Option<String> {
        let path = self.source.beside(Path::new(file.get_ref()));
        match error::read(&path) {
            Ok(text) => {
                self.files.push((path, error::fingerprint(&text)));
                Some(text)
            }
            Err(error) => {
                let what = format!("`{}` can't be read: {error}", shorten(file.get_ref()));
                self.refuse(file.span(), what, "name a file in PEM; a relative path begins in this file's folder");
                None
            }
        }
    }
}

/// Tells whether a name of a certificate is for a domain; either may be a wildcard.
fn covers(name: &str, domain: &HostPattern) -> bool {
    let domain = domain.to_string();
    let parent = |text: &str| text.split_once('.').map(|(_, parent)| parent.to_owned());
    name == domain || name.starts_with("*.") && parent(name) == parent(&domain)
}
