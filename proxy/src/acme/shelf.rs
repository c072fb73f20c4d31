//! Accounts and certificates in the state folder: `acme/AUTHORITY/account.json` and `acme/AUTHORITY/DOMAIN.pem`, a key and its chain
//! in one file. Nobody else can read them, and each is there whole or not at all.

use std::path::{Path, PathBuf};
use std::{fs, io};

use config::certificate::Certificate;

use crate::private_file;

/// Where they are.
pub(super) struct Shelf {
    folder: PathBuf,
}

/// A certificate that was found.
pub(super) struct Found {
    pub(super) certificate: Certificate,
    /// Another authority issued it than the one that is asked now.
    pub(super) is_of_another: bool,
}

impl Shelf {
    pub(super) fn new(state: &Path) -> Self {
        Self { folder: state.join("acme") }
    }

    /// Returns the account with an authority, as it was kept.
    pub(super) fn account(&self, directory: &str) -> Option<String> {
        fs::read_to_string(self.of(directory).join("account.json")).ok()
    }

    /// Keeps the account with an authority.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub(super) fn keep_account(&self, directory: &str, text: &str) -> io::Result<()> {
        private_file::write(&self.of(directory), "account.json", text.as_bytes())
    }

    /// Forgets an account that the authority does not know any more. Its file is kept beside, for whoever wonders.
    pub(super) fn forget_account(&self, directory: &str) {
        let file = self.of(directory).join("account.json");
        if let Err(error) = fs::rename(&file, file.with_extension("json.unknown")) {
            tracing::warn!(%error, file = %file.display(), "an account that is no more can't be put aside");
        }
    }

    /// Keeps a certificate and its key.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub(super) fn keep_certificate(&self, directory: &str, domain: &str, chain: &str, key: &str) -> io::Result<()> {
        let text = format!("{}\n{chain}", key.trim_end());
        private_file::write(&self.of(directory), &file_of(domain), text.as_bytes())
    }

    /// Returns the certificate of a domain: of this authority, else the one of another that ends last.
    pub(super) fn certificate(&self, directory: &str, domain: &str) -> Option<Found> {
        let own = self.of(directory);
        if let Some(certificate) = read(&own.join(file_of(domain))) {
            return Some(Found { certificate, is_of_another: false });
        }
        let folders = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let others = folders.filter(|folder| *folder != own).filter_map(|folder| read(&folder.join(file_of(domain))));
        let certificate = others.max_by_key(|certificate| certificate.not_after)?;
        Some(Found { certificate, is_of_another: true })
    }

    fn of(&self, directory: &str) -> PathBuf {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let name = directory.trim_start_matches("https://").replace(|c| !is_plain(c), "_");
        // Too long for a name of a file it would be no authority's.
        self.folder.join(name.chars().take(200).collect::<String>())
    }
}

fn file_of(domain: &str) -> String {
    format!("{}.pem", domain.replace('*', "wildcard"))
}

fn read(path: &Path) -> Option<Certificate> {
    let text = fs::read_to_string(path).ok()?;
    let read = Certificate::read(&text, &text);
    read.map_err(
        |error| tracing::warn!(%error, path = %path.display(), "a certificate can't be shown; another is ordered"),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_read_back_by_nobody_else_and_another_authoritys_is_known_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        let (one, two) = ("https://one.test/directory", "https://two.test:14000/dir?x");
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["*.a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        shelf.keep_certificate(one, "*.a.test", &cert.pem(), &key.serialize_pem()).unwrap();
        shelf.keep_account(one, "{}").unwrap();
        let found = shelf.certificate(one, "*.a.test").unwrap();
        assert!(!found.is_of_another && found.certificate.names == ["*.a.test"]);
        assert!(shelf.certificate(two, "*.a.test").unwrap().is_of_another);
        assert!(shelf.certificate(one, "a.test").is_none() && shelf.account(two).is_none());
        for file in ["acme/one.test_directory/wildcard.a.test.pem", "acme/one.test_directory/account.json"] {
            let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        shelf.forget_account(one);
        assert_eq!(shelf.account(one), None);
    }
}
