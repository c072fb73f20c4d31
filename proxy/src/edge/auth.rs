//! Who may come with a name and a password.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::edge::{BasicAuth, PasswordHash};
use config::name::PathPrefix;
use config::options::ServiceOptions;
use http::header::{self, HeaderValue};

use super::passwords::Passwords;
use super::path::longest;
use super::seen::Seen;
use crate::error::Error;

/// A rule of names and passwords.
pub(super) struct Auth {
    path: PathPrefix,
    except: Vec<PathPrefix>,
    /// What a browser is told: the scheme and the realm.
    challenge: HeaderValue,
    users: Vec<(String, Arc<PasswordHash>)>,
}

impl Auth {
    pub(super) fn compile(options: &ServiceOptions) -> Vec<Self> {
        // Files that say so are for everybody.
        let open: Vec<&PathPrefix> =
            options.static_files.iter().filter(|files| !files.auth).map(|files| &files.path).collect();
        let compile = |auth: &BasicAuth| {
            let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", auth.realm);
            Self {
                path: auth.path.clone().unwrap_or_else(PathPrefix::root),
                except: auth.except.iter().chain(open.iter().copied()).cloned().collect(),
                challenge: HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Basic")),
                users: auth.users.iter().map(|(name, hash)| (name.clone(), Arc::new(hash.clone()))).collect(),
            }
        };
        options.basic_auth.iter().map(compile).collect()
    }
}

/// Returns who a request is from, where that is asked for any form of its path.
pub(super) async fn who(
    rules: &[Auth],
    seen: &Seen<'_>,
    forms: &[Cow<'_, str>],
    passwords: &Passwords,
) -> Result<Option<String>, Error> {
    let length = |path: &str, rule: &Auth| rule.path.takes(path).then(|| rule.path.trimmed().len());
    let mut user = None;
    for path in forms {
        let Some(rule) = longest(rules, |rule| length(path, rule)) else { continue };
        // An exception is for a path that can be read in one way alone.
        if forms.len() == 1 && rule.except.iter().any(|except| except.takes(path)) {
            continue;
        }
        let refused = || Error::Unauthorized { challenge: rule.challenge.clone() };
        let (name, password) = credentials(seen).ok_or_else(refused)?;
        let known = rule.users.iter().find(|(known, _)| *known == name);
        // For a name that nobody has a password is looked at all the same: how long it takes tells nothing.
        let (_, hash) = known.or(rule.users.first()).ok_or_else(refused)?;
        let is_right = passwords.verify(seen.address, hash, password).await?;
        if !is_right || known.is_none() {
            return Err(refused());
        }
        user = Some(name);
    }
    Ok(user)
}

/// Returns the name and the password that a request brings.
fn credentials(seen: &Seen<'_>) -> Option<(String, Vec<u8>)> {
    let value = seen.request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(text.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}
