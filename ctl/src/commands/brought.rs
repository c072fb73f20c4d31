//! Own certificates of `bluegreen.toml`, brought to the proxy: files of this machine, which the proxy in its container can't see.

use std::path::Path;
use std::time::SystemTime;

use ::config::admin::ErrorCode;
use ::config::admin::response::CertificateStatus;
use ::config::brought::{Brought, CertificateName};
use ::config::certificate::Certificate;
use ::config::project::CertificateFiles;

use crate::admin::{self, Client};
use crate::context::Context;
use crate::error::Error;

/// Certificates that can be served, read from their files.
pub(crate) struct Own(Vec<(CertificateName, Brought, Certificate)>);

impl Own {
    /// Reads certificates; all are looked at before one is sent, and what clients take amiss is told.
    ///
    /// # Errors
    /// Wrong usage with each that can't be served.
    pub(crate) fn read(context: &Context<'_>, files: &[CertificateFiles]) -> Result<Self, Error> {
        let (mut read, mut wrong) = (Vec::new(), Vec::new());
        for file in files {
            match one(file) {
                Ok(one) => {
                    for complaint in one.2.complaints(SystemTime::now()) {
                        context.ui.warn(&format!("{}: {complaint}", file.cert.display()));
                    }
                    read.push(one);
                }
                Err(why) => wrong.push(why),
            }
        }
        if wrong.is_empty() {
            return Ok(Self(read));
        }
        let error = Error::usage("certificates can't be sent, so nothing was changed");
        let error = wrong.iter().fold(error, |error, (why, _)| error.detail(why.clone()));
        let hint = wrong.iter().map(|(_, hint)| *hint).find(|hint| !hint.is_empty());
        Err(hint.map_or(error.clone(), |hint| error.hint(hint)))
    }

    /// Brings those that the proxy does not show, and says so.
    ///
    /// # Errors
    /// As of every call.
    pub(crate) async fn send(&self, context: &Context<'_>, client: &mut Client) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let shown = client.status().await?.certificates;
        for (name, brought, certificate) in self.0.iter().filter(|(.., one)| !is_shown(&shown, one)) {
            match client.put_certificate(name, brought).await {
                Ok(()) => {}
                Err(admin::Error::Refused(refusal)) if refusal.code == ErrorCode::NoSuchCall => {
                    return Err(Error::usage(
                        "the proxy that runs there is of an older build and takes no certificates",
                    )
                    .hint("`bgctl up --upgrade` replaces it"));
                }
                Err(error) => return Err(error.into()),
            }
            context.ui.say(&line(certificate));
        }
        Ok(())
    }

    /// Returns what of them would be brought to a proxy that shows these.
    pub(crate) fn missing_from(&self, shown: &[CertificateStatus]) -> Vec<CertificateStatus> {
        self.0.iter().filter(|(.., one)| !is_shown(shown, one)).map(|(.., one)| one.into()).collect()
    }
}

/// Reads certificates and brings those that the proxy does not show.
///
/// # Errors
/// Wrong usage with each that can't be served, and as of every call.
pub(crate) async fn send(context: &Context<'_>, client: &mut Client, files: &[CertificateFiles]) -> Result<(), Error> {
    Own::read(context, files)?.send(context, client).await
}

fn one(CertificateFiles { cert, key }: &CertificateFiles) -> Result<(CertificateName, Brought, Certificate), Wrong> {
    let text =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| (format!("{}: {error}", path.display()), ""));
    let brought = Brought { chain: text(cert)?, key: text(key)? };
    let certificate = Certificate::read(&brought.chain, &brought.key).map_err(|error| {
        let file = if error.is_of_key() { key } else { cert };
        (format!("{}: {error}", file.display()), error.hint())
    })?;
    let name = CertificateName::of(&certificate)
        .ok_or_else(|| (format!("{}: it names no host, so no browser takes it", cert.display()), ""))?;
    Ok((name, brought, certificate))
}

/// Why one can't be served, and what to do about it.
type Wrong = (String, &'static str);

fn is_shown(shown: &[CertificateStatus], certificate: &Certificate) -> bool {
    let fingerprint = certificate.fingerprint();
    shown.iter().any(|known| known.fingerprint == fingerprint)
}

fn line(certificate: &Certificate) -> String {
    let ends = humantime::format_rfc3339_seconds(certificate.not_after);
    format!("certificate for {}, until {ends}", certificate.names.join(", "))
}
