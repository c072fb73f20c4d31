//! What the head of an answer says of an application's health.

use config::health::HealthCheck;
use http::{HeaderMap, header};

use super::Outcome;

/// Judges an answer by its status, and a redirect by where it leads.
pub(super) fn judge(status: u16, headers: &HeaderMap, host: &str, check: &HealthCheck) -> Outcome {
    if !check.status.contains(status) {
        return Outcome::Failed(status.to_string());
    }
    if (300..400).contains(&status) {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let elsewhere = location.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        let own = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // An application that sends visitors elsewhere is not the one that was asked for.
        if let Some(elsewhere) = elsewhere.filter(|elsewhere| !elsewhere.eq_ignore_ascii_case(own)) {
            return Outcome::Failed(format!("{status} to another host ({elsewhere})"));
        }
    }
    Outcome::Passed(status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(to: &str) -> Outcome {
        let headers = [(header::LOCATION, to.parse().unwrap())].into_iter().collect();
        judge(302, &headers, "shop.example", &HealthCheck::default())
    }

    #[test]
    fn a_redirect_passes_within_the_host_and_fails_to_another() {
        assert!(redirect("/login").passed());
        assert!(redirect("https://shop.example/login").passed());
        assert_eq!(redirect("https://other.example/").words(), "302 to another host (other.example)");
    }
}
