//! Certificates that the admin API brought: `certificates/NAME.pem` of the state folder, a key and its chain in one file that nobody
//! else can read, so that a rename replaces both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use config::admin::response::CertificateStatus;
use config::admin::{AdminError, ErrorCode};
use config::brought::{Brought, CertificateName};
use config::certificate::Certificate;
use config::model::Model;

use super::not_saved;
use super::reload::Reloader;
use crate::private_file;

impl Reloader {
    /// Shows what was brought before the start; what can't be read is told, and is brought again by the next `apply`.
    pub(crate) fn show_brought(&mut self) {
        let mut brought = BTreeMap::new();
        for (name, path) in kept(&self.shelf()) {
            let read = fs::read_to_string(&path).map_err(|error| error.to_string());
            let read = read.and_then(|text| Certificate::read(&text, &text).map_err(|error| error.to_string()));
            match read {
                Ok(certificate) => drop(brought.insert(name, certificate)),
                Err(error) => tracing::warn!(%error, path = %path.display(), "a certificate can't be shown"),
            }
        }
        if brought.is_empty() {
            return;
        }
        if let Err(closed) = self.open_for(brought.values().cloned().collect()) {
            tracing::warn!("{closed}: certificates were brought, and nobody listens for TLS");
        }
        self.shared.tls.bring(|all| *all = brought);
    }

    /// Keeps a certificate and shows it from the next handshake on, in the place of one of that name.
    ///
    /// # Errors
    /// Where it can't be served or kept; nothing has changed.
    pub(crate) fn bring(&mut self, name: &CertificateName, brought: &Brought) -> Result<CertificateStatus, AdminError> {
        let certificate = Certificate::read(&brought.chain, &brought.key).map_err(|error| {
            AdminError::new(ErrorCode::BadRequest, format!("the certificate {name}: {error}")).hint(error.hint())
        })?;
        let text = format!("{}\n{}", brought.key.trim_end(), brought.chain);
        private_file::write(&self.shelf(), &format!("{name}.pem"), text.as_bytes())
            .map_err(|error| not_saved(&error))?;
        self.open_for(vec![certificate.clone()]).map_err(|closed| AdminError::new(ErrorCode::BadRequest, closed))?;
        let status = CertificateStatus::from(&certificate);
        self.shared.tls.bring(|all| drop(all.insert(name.clone(), certificate)));
        tracing::info!(%name, not_after = status.not_after, "a certificate was brought");
        Ok(status)
    }

    /// Shows a certificate no longer, and forgets it; one that is not there is fine.
    ///
    /// # Errors
    /// Where the disk refuses; nothing has changed.
    pub(crate) fn take_away(&self, name: &CertificateName) -> Result<(), AdminError> {
        match fs::remove_file(self.shelf().join(format!("{name}.pem"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(not_saved(&error)),
            _ => {}
        }
        self.shared.tls.bring(|all| drop(all.remove(name)));
        Ok(())
    }

    fn shelf(&self) -> PathBuf {
        self.shared.spool.join("certificates")
    }

    /// Listens for TLS where nothing does yet, since there is something to show now.
    fn open_for(&mut self, certificates: Vec<Certificate>) -> Result<(), String> {
        let model = Model { certificates, ..self.model.clone() };
        let sockets = self.doors.bind(&model).map_err(|closed| closed.to_string())?;
        if !sockets.is_empty() {
            let addresses = self.doors.open(sockets);
            tracing::info!(listen_tls = ?addresses, "serving TLS, too");
            self.shared.tls.listens_on(addresses);
        }
        Ok(())
    }
}

/// Returns the files of a folder that are certificates, by their names.
fn kept(shelf: &PathBuf) -> Vec<(CertificateName, PathBuf)> {
    let files = fs::read_dir(shelf).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = files.filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".pem")?.parse().ok()?;
        Some((name, path))
    });
    named.collect()
}
