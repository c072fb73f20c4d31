//! The proxy's own settings, those that change while it runs: what the admin API set of them, beside what the file says.

use config::admin::response;
use config::admin::{AdminError, ErrorCode, Event};
use config::model::Model;
use config::settings::ProxySettings;

use super::saved::SavedProxy;
use super::{Control, IfMatch, not_saved};

impl Control {
    /// Returns what the admin API set.
    pub(crate) fn proxy_settings(&self) -> &ProxySettings {
        &self.proxy.settings
    }

    /// Returns the settings and where each comes from, given what the file says.
    pub(crate) fn proxy(&self, file: &Model) -> response::Proxy {
        let SavedProxy { generation, settings } = self.proxy.clone();
        response::Proxy {
            generation,
            file: file.settings.keys().into_keys().collect(),
            in_force: file.with(&settings).in_force(),
            settings,
        }
    }

    /// Checks that settings may take the place of those that the admin API set before.
    ///
    /// # Errors
    /// Where someone else changed them, a value is out of bounds, or the file says something else.
    pub(crate) fn admit_proxy(
        &self,
        settings: &ProxySettings,
        if_match: IfMatch,
        file: &Model,
    ) -> Result<(), AdminError> {
        let SavedProxy { generation, .. } = self.proxy;
        match if_match {
            IfMatch::Generation(seen) if seen != generation => {
                let what =
                    format!("the proxy's settings are at generation {generation}, not {seen}: someone changed them");
                return Err(AdminError::new(ErrorCode::Stale, what));
            }
            IfMatch::Generation(_) | IfMatch::Any => {}
        }
        settings.check().map_err(|wrong| AdminError::new(ErrorCode::BadRequest, wrong))?;
        match overruled(settings, file).as_slice() {
            [] => Ok(()),
            keys => Err(AdminError::new(
                ErrorCode::OtherOrigin,
                format!("{} belongs to bgproxy.toml, which says otherwise; nothing was changed", keys.join(", ")),
            )
            .hint("change it there, or take it out of there (`bgctl up --trusted-proxy CIDR` writes trusted_proxies into it)")),
        }
    }

    /// Saves settings in the place of those before; they were admitted.
    ///
    /// # Errors
    /// Where they can't be saved; nothing has changed.
    pub(crate) fn put_proxy(&mut self, settings: ProxySettings) -> Result<(), AdminError> {
        let saved = SavedProxy { generation: self.proxy.generation + 1, settings };
        self.store.save_proxy(&saved).map_err(|error| not_saved(&error))?;
        self.news.push(Event::Configured { generation: saved.generation });
        self.proxy = saved;
        Ok(())
    }

    /// Notes what of the settings the file has its own word on, after either was changed.
    pub(crate) fn compare_with(&mut self, file: &Model) {
        self.overruled = overruled(&self.proxy.settings, file);
    }
}

/// Returns the keys of settings of which the file says something else.
fn overruled(settings: &ProxySettings, file: &Model) -> Vec<String> {
    let file = file.settings.keys();
    let differs = |(key, value)| (file.get(&key).is_some_and(|said| *said != value)).then_some(key);
    settings.keys().into_iter().filter_map(differs).collect()
}
