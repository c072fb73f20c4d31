//! Who an engine on a port is, and who we are to it: the certificates that docker's own command uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::credentials;
use crate::engine::EngineError;

/// Who signed the engine's certificate.
const CA: &str = "ca.pem";
/// Our own.
const CERTIFICATE: &str = "cert.pem";
/// Its key.
const KEY: &str = "key.pem";

/// A folder with `ca.pem`, `cert.pem` and `key.pem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificates(PathBuf);

impl Certificates {
    /// Returns those that docker's environment asks for: `DOCKER_TLS_VERIFY`, and `DOCKER_CERT_PATH`, else docker's own folder.
    ///
    /// # Errors
    /// Where it asks for a connection that is encrypted and tells nobody who the other end is.
    pub(super) fn of_environment(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
        if !is_set("DOCKER_TLS_VERIFY") {
            return if is_set("DOCKER_TLS") { Err(unverified("DOCKER_TLS", "DOCKER_TLS_VERIFY=1")) } else { Ok(None) };
        }
        let folder = env("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| credentials::folder(env));
        folder.map(|folder| Some(Self(folder))).ok_or_else(|| "DOCKER_CERT_PATH names no folder".to_owned())
    }

    /// Returns those of a docker context, where it has some.
    ///
    /// # Errors
    /// Where the context leaves open who the other end is.
    pub(super) fn of_context(folder: PathBuf, skips_verification: bool) -> Result<Option<Self>, String> {
        if !folder.is_dir() {
            return Ok(None);
        }
        if skips_verification {
            return Err(unverified("its SkipTLSVerify", "`docker context update` with a ca"));
        }
        Ok(Some(Self(folder)))
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`EngineError::Usage`] with the file that is missing or is none of its kind.
    pub(super) fn connector(&self) -> Result<TlsConnector, EngineError> {
        let mut roots = RootCertStore::empty();
        for authority in chain(&self.0.join(CA))? {
            roots.add(authority).map_err(|error| unusable(&self.0.join(CA), &error))?;
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| unusable(&self.0, &error))?.with_root_certificates(roots);
        let key_path = self.0.join(KEY);
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| unusable(&key_path, &error))?;
        let config = config.with_client_auth_cert(chain(&self.0.join(CERTIFICATE))?, key);
        let config = config.map_err(|error| unusable(&key_path, &error))?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Returns what may be wrong, where a connection with them has failed.
    pub(super) fn hint(&self, why: &str) -> Option<String> {
        let folder = self.0.display();
        if why.contains("UnknownIssuer") || why.contains("BadSignature") {
            return Some(format!("the engine's certificate is not signed by {folder}/{CA}"));
        }
        if why.contains("not valid for name") || why.contains("NotValidForName") {
            return Some("write the host as its certificate names it".to_owned());
        }
        if why.contains("received fatal alert") {
            return Some(format!("the engine does not take {folder}/{CERTIFICATE}"));
        }
        why.contains("InvalidContentType").then(|| "what listens there does not speak TLS".to_owned())
    }
}

fn unverified(what: &str, instead: &str) -> String {
    format!("with {what} the other end could be anybody, so this is not done\nhint: use {instead}")
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(unusable(path, &"there is no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(path, &error)),
    }
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> EngineError {
    EngineError::Usage(format!(
        "{}: {why}\nhint: DOCKER_CERT_PATH names a folder with {CA}, {CERTIFICATE} and {KEY}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_folder_and_nothing_that_is_not_verified_is_spoken_to() {
        let of = |env: &[(&str, &str)]| {
            let env: Vec<(String, String)> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Certificates::of_environment(&move |name| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(of(&[("DOCKER_CERT_PATH", "/c")]), Ok(None));
        let named = of(&[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")]);
        assert_eq!(named, Ok(Some(Certificates("/c".into()))));
        let home = of(&[("DOCKER_TLS_VERIFY", "1"), ("HOME", "/home/a")]);
        assert_eq!(home, Ok(Some(Certificates("/home/a/.docker".into()))));
        assert!(of(&[("DOCKER_TLS", "1")]).unwrap_err().contains("could be anybody"));
        let folder = tempfile::tempdir().unwrap();
        assert!(Certificates::of_context(folder.path().to_owned(), true).is_err());
        assert_eq!(Certificates::of_context(folder.path().join("none"), true), Ok(None));
    }

    #[test]
    fn a_file_that_is_missing_or_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |certificates: &Certificates| match certificates.connector() {
            Err(EngineError::Usage(text)) => text,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was taken"),
        };
        let certificates = Certificates(folder.path().to_owned());
        assert!(refused(&certificates).contains("ca.pem: "));
        std::fs::write(folder.path().join(CA), "nonsense").unwrap();
        assert!(refused(&certificates).contains("there is no certificate in it"));
    }
}
