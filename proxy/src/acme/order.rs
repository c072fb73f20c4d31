//! One order, from the first word to the certificate: the domain is proved, a new key is made, and its certificate taken.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::acme::{AcmeSettings, Challenge};
use config::certificate::Certificate;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, KeyAuthorization, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio::sync::Mutex;

use super::account;
use super::failure::{Failure, is, said};
use super::hook::{self, Verb};
use super::shelf::Shelf;
use super::wire::Wire;
use crate::tls::answers::{Answering, Answers};

/// How long an authority may take to look, and then to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

/// What an order is made with.
pub(super) struct Desk {
    pub(super) settings: AcmeSettings,
    pub(super) shelf: Arc<Shelf>,
    pub(super) answers: Arc<Answers>,
    /// One account is made at a time, and one record of DNS written: many hooks replace what was there.
    pub(super) account: Arc<Mutex<()>>,
    pub(super) records: Arc<Mutex<()>>,
}

/// A certificate that came.
pub(super) struct Issued {
    pub(super) certificate: Certificate,
    pub(super) chain: String,
    pub(super) key: String,
}

impl Desk {
    /// Gets a certificate for a domain, in the place of one that it had.
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Cancel safety
    /// Dropping it answers the authority no more; a record of DNS may be left.
    pub(super) async fn get(
        &self,
        domain: &str,
        challenge: Challenge,
        before: Option<&Certificate>,
    ) -> Result<Issued, Failure> {
        let wire = Wire::new(self.settings.ca.as_deref()).map_err(Failure::ours)?;
        let mut account = self.open(&wire).await?;
        let order = match self.begin(&account, &wire, domain, before).await {
            // It has lost its memory, as authorities for trials do, or someone closed the account.
            Err(Refused::Unknown) => {
                self.shelf.forget_account(self.settings.directory());
                account = self.open(&wire).await?;
                self.begin(&account, &wire, domain, before).await
            }
            begun => begun,
        };
        let mut order = order.map_err(|refused| match refused {
            Refused::Unknown => Failure::ours("the authority does not know the account that it has just made"),
            Refused::Other(failure) => failure,
        })?;
        self.prove(&mut order, &wire, domain, challenge).await?;
        let (key, request) = request(domain).map_err(|error| Failure::ours(error.to_string()))?;
        order.finalize_csr(&request).await.map_err(|error| Failure::of(&error, &wire))?;
        let chain = order.poll_certificate(&PATIENCE).await.map_err(|error| Failure::of(&error, &wire))?;
        let certificate = Certificate::read(&chain, &key);
        let certificate =
            certificate.map_err(|error| Failure::of_domain(format!("the certificate that came: {error}")))?;
        Ok(Issued { certificate, chain, key })
    }

    /// Asks when a certificate is to be renewed (RFC 9773); `None` where the authority does not say.
    pub(super) async fn ask(&self, certificate: &Certificate) -> Option<((SystemTime, SystemTime), Duration)> {
        let wire = Wire::new(self.settings.ca.as_deref()).ok()?;
        let account = self.open(&wire).await.ok()?;
        let id = CertificateIdentifier::try_from(certificate.certified.cert.first()?).ok()?;
        let (info, again) = account.renewal_info(&id).await.ok()?;
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let window = info.suggested_window;
        Some(((time(window.start.unix_timestamp()), time(window.end.unix_timestamp())), again))
    }

    async fn open(&self, wire: &Wire) -> Result<Account, Failure> {
        let _one = self.account.lock().await;
        account::open(&self.settings, &self.shelf, wire).await
    }

    async fn begin(
        &self,
        account: &Account,
        wire: &Wire,
        domain: &str,
        before: Option<&Certificate>,
    ) -> Result<Order, Refused> {
        let names = [Identifier::Dns(domain.to_owned())];
        let replaced = before.and_then(|before| CertificateIdentifier::try_from(before.certified.cert.first()?).ok());
        if let Some(replaced) = replaced {
            match account.new_order(&NewOrder::new(&names).replaces(replaced)).await {
                Ok(order) => return Ok(order),
                Err(error) if is(&error, "accountDoesNotExist") => return Err(Refused::Unknown),
                Err(error) if is(&error, "rateLimited") => return Err(Refused::Other(Failure::of(&error, wire))),
                // It knows nothing of renewals, or that one was renewed already.
                Err(_) => {}
            }
        }
        match account.new_order(&NewOrder::new(&names)).await {
            Ok(order) => Ok(order),
            Err(error) if is(&error, "accountDoesNotExist") => Err(Refused::Unknown),
            Err(error) => Err(Refused::Other(Failure::of(&error, wire))),
        }
    }

    async fn prove(&self, order: &mut Order, wire: &Wire, domain: &str, challenge: Challenge) -> Result<(), Failure> {
        let wanted = match challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Dns01 => ChallengeType::Dns01,
        };
        let failed = |error: &Error| Failure::of(error, wire);
        let (mut answering, mut record, mut one_at_a_time) = (None, None, None);
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| failed(&error))?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                // It was proved for another order a while ago.
                AuthorizationStatus::Valid => continue,
                other => return Err(Failure::of_domain(format!("the authority's proof of it is {other:?}"))),
            }
            let Some(mut handle) = authorization.challenge(wanted.clone()) else {
                return Err(Failure::of_domain(format!("the authority does not offer {}", challenge.as_str())));
            };
            let text = handle.key_authorization();
            match challenge {
                Challenge::Http01 => answering = Some(self.answers.add_file(&handle.token, text.as_str())),
                Challenge::TlsAlpn01 => answering = Some(self.show(domain, &text)?),
                Challenge::Dns01 => {
                    one_at_a_time = Some(self.records.lock().await);
                    let value = text.dns_value();
                    self.hook(Verb::Add, domain, &value).await.map_err(Failure::of_domain)?;
                    record = Some(value);
                }
            }
            if let Err(error) = handle.set_ready().await {
                self.clear(domain, record.as_deref()).await;
                return Err(failed(&error));
            }
        }
        let ready = order.poll_ready(&PATIENCE).await;
        self.clear(domain, record.as_deref()).await;
        drop((answering, one_at_a_time));
        match ready {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(refusal(order, challenge, None).await),
            Err(Error::Api(problem)) => Err(refusal(order, challenge, Some(&problem)).await),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn hook(&self, verb: Verb, domain: &str, value: &str) -> Result<(), String> {
        hook::run(self.settings.dns_hook.as_deref().unwrap_or_default(), verb, domain, value).await
    }

    async fn clear(&self, domain: &str, record: Option<&str>) {
        let Some(value) = record else { return };
        if let Err(error) = self.hook(Verb::Remove, domain, value).await {
            tracing::warn!(domain, error, "a record of DNS could not be taken away; it does no harm");
        }
    }

    /// Shows what proves the domain in a handshake (RFC 8737 section 3).
    fn show(&self, domain: &str, text: &KeyAuthorization) -> Result<Answering, Failure> {
        let made = (|| {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![domain.to_owned()])?;
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(text.digest().as_ref())];
            Ok::<_, rcgen::Error>((params.self_signed(&key)?.pem(), key.serialize_pem()))
        })();
        let (chain, key) = made.map_err(|error| Failure::ours(error.to_string()))?;
        let certificate = Certificate::read(&chain, &key).map_err(|error| Failure::ours(error.to_string()))?;
        Ok(self.answers.add_certificate(domain, &certificate.certified))
    }
}

/// Why there is no order.
enum Refused {
    /// The authority does not know the account.
    Unknown,
    Other(Failure),
}

/// Returns what the authority found when it looked.
async fn refusal(order: &mut Order, challenge: Challenge, problem: Option<&Problem>) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Failure::of_domain(format!("{}: {}", challenge.as_str(), said(problem)));
        }
    }
    let why = problem.map_or_else(|| "the authority does not say why it refuses".to_owned(), said);
    Failure::of_domain(format!("{}: {why}", challenge.as_str()))
}

/// Returns a new key, and what asks for its certificate.
fn request(domain: &str) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key.serialize_pem(), request))
}
