//! What drains ended of everybody's requests between two moments, by the proxy's own counters.
//!
//! Those of the service, which no staging and no flip begins anew: a request may be cut long after the flip that left it behind.

use config::name::ServiceName;

/// The counters of a service at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ended {
    /// When the proxy started: a later one counts from zero.
    started: f64,
    /// Requests and tunnels that were cut at a drain deadline.
    pub(crate) cut: u64,
    /// Tunnels and event streams that were closed there as they should be.
    pub(crate) closed: u64,
}

impl Ended {
    /// Reads the answer of `GET /metrics`, of both slots; `None` where it does not say when the proxy started.
    pub(crate) fn of(service: &ServiceName, text: &str) -> Option<Self> {
        let started = text.lines().find_map(|line| line.strip_prefix("bgproxy_start_time_seconds "))?.parse().ok()?;
        let label = format!("service=\"{service}\",");
        let sum = |name: &str| {
            let of_service = text.lines().filter_map(|line| {
                let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
                labels.starts_with(&label).then(|| value.parse::<u64>().ok()).flatten()
            });
            of_service.sum()
        };
        let (cut, closed) = (sum("bgproxy_requests_cut_total"), sum("bgproxy_requests_closed_total"));
        Some(Self { started, cut, closed })
    }

    /// Returns what was added since an earlier moment; `None` where the proxy was started in between.
    pub(crate) fn since(self, earlier: Self) -> Option<Self> {
        let is_same = self.started.total_cmp(&earlier.started).is_eq();
        is_same.then(|| Self {
            started: self.started,
            cut: self.cut.saturating_sub(earlier.cut),
            closed: self.closed.saturating_sub(earlier.closed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_slots_of_the_service_count_and_no_other_service_and_no_other_proxy() {
        let text = |started: u64, cut: u64| {
            format!(
                "# TYPE bgproxy_requests_cut_total counter\n\
                 bgproxy_start_time_seconds {started}\n\
                 bgproxy_requests_cut_total{{service=\"shop\",slot=\"blue\"}} {cut}\n\
                 bgproxy_requests_cut_total{{service=\"shop\",slot=\"green\"}} 2\n\
                 bgproxy_requests_cut_total{{service=\"shop2\",slot=\"blue\"}} 40\n\
                 bgproxy_requests_closed_total{{service=\"shop\",slot=\"green\"}} 5\n"
            )
        };
        let shop = "shop".parse().unwrap();
        let at = |started, cut| Ended::of(&shop, &text(started, cut)).unwrap();
        assert_eq!((at(7, 1).cut, at(7, 1).closed), (3, 5));
        let since = at(7, 4).since(at(7, 1)).unwrap();
        assert_eq!((since.cut, since.closed), (3, 0));
        assert_eq!(at(9, 4).since(at(7, 1)), None);
        assert_eq!(Ended::of(&shop, "bgproxy_up 1\n"), None);
    }
}
