//! The certificates of the file.

use std::path::Path;
use std::time::SystemTime;

use super::{Check, shorten};
use crate::certificate::Certificate;
use crate::error;
use crate::file::{self, Text};

impl Check<'_> {
    pub(super) fn certificates(&mut self, files: &[file::Certificate]) -> Vec<Certificate> {
        files.iter().filter_map(|file| self.certificate(file)).collect()
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
