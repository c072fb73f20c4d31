//! The account with an authority: kept from before, else made anew.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use config::acme::{AcmeSettings, EabKey};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::failure::Failure;
use super::shelf::Shelf;
use super::wire::Wire;

/// Returns the account by which the authority of the settings is asked.
///
/// # Errors
/// Why it can't be asked.
pub(super) async fn open(settings: &AcmeSettings, shelf: &Shelf, wire: &Wire) -> Result<Account, Failure> {
    let directory = settings.directory();
    let builder = Account::builder_with_http(Box::new(wire.clone()));
    let kept = shelf.account(directory).and_then(|text| serde_json::from_str::<AccountCredentials>(&text).ok());
    if let Some(kept) = kept {
        return builder.from_credentials(kept).await.map_err(|error| Failure::of_authority(&error, wire));
    }
    let contact = settings.email.as_ref().map(|email| format!("mailto:{}", email.as_str()));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let bound = bound(settings)?;
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let made = builder.create(&new, directory.to_owned(), bound.as_ref()).await;
    let (account, credentials) = made.map_err(|error| Failure::of_authority(&error, wire))?;
    let text = serde_json::to_string(&credentials).map_err(|error| Failure::ours(error.to_string()))?;
    // Without it the next start would make another one, and authorities count them.
    shelf
        .keep_account(directory, &text)
        .map_err(|error| Failure::ours(format!("the account can't be kept: {error}")))?;
    tracing::info!(directory, "an account was made with the authority of certificates");
    Ok(account)
}

/// Returns the key that binds it to another one (RFC 8555 section 7.3.4).
fn bound(settings: &AcmeSettings) -> Result<Option<ExternalAccountKey>, Failure> {
    let Some(id) = &settings.eab_key_id else { return Ok(None) };
    let key = match (&settings.eab_hmac, &settings.eab_hmac_file) {
        (Some(key), _) => key.clone(),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
            let key = text.and_then(|text| EabKey::try_from(text).map_err(|error| error.to_string()));
            key.map_err(|error| Failure::ours(format!("{} can't be used: {error}", file.display())))?
        }
        (None, None) => return Err(Failure::ours("`eab_key_id` has no key")),
    };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(key.reveal());
    let bytes = bytes.map_err(|_| Failure::ours("the key of `eab_key_id` is no base64 for addresses"))?;
    Ok(Some(ExternalAccountKey::new(id.clone(), &bytes)))
}
