//! The metrics in Prometheus' text form. `docs/metrics.md` lists them; a test compares both.

use std::fmt::Write as _;

use super::counters::{BUCKETS, CLASSES, Histogram, Sums};

/// A metric and its values, written as they are added.
struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

/// What is told of one slot of a service.
pub(crate) struct SlotMetrics {
    /// The service; letters, digits and dashes, so there is nothing to escape.
    pub(crate) service: String,
    /// The slot, in lower case.
    pub(crate) slot: &'static str,
    /// What was counted.
    pub(crate) sums: Sums,
    /// Requests and tunnels now.
    pub(crate) in_flight: u64,
    /// Whether it takes new requests.
    pub(crate) is_live: bool,
    /// Endpoints that are healthy, and all of them.
    pub(crate) endpoints: (usize, usize),
}

/// What is told of the proxy as a whole.
pub(crate) struct ProxyMetrics {
    /// The version.
    pub(crate) version: &'static str,
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// Client connections now.
    pub(crate) connections: u64,
    /// Requests whose heads came.
    pub(crate) received: u64,
    /// Client connections that were refused, for their address had too many.
    pub(crate) refused: u64,
    /// TLS handshakes that were done, and those that failed.
    pub(crate) handshakes: (u64, u64),
    /// Certificates by their first names, and when the first of each ends, in seconds since 1970.
    pub(crate) certificates: Vec<(String, u64)>,
    /// Lines of the access log that were dropped.
    pub(crate) log_dropped: u64,
    /// Notices of the webhook that a receiver took, that none did, and that were dropped.
    pub(crate) webhooks: [u64; 3],
    /// Certificates that came by themselves, and tries that failed.
    pub(crate) acme: [u64; 2],
    /// Panics.
    pub(crate) panics: u64,
    /// Flips of each service.
    pub(crate) flips: Vec<(String, u64)>,
    /// Answers of each that no slot had a part in, by class.
    pub(crate) own: Vec<(String, [u64; CLASSES.len()])>,
    /// Answers of each out of folders.
    pub(crate) files: Vec<(String, u64)>,
    /// Drains of each that ended.
    pub(crate) drains: Vec<(String, u64)>,
}

/// Writes all metrics.
pub(crate) fn render(proxy: &ProxyMetrics, slots: &[SlotMetrics]) -> String {
    let mut text = String::with_capacity(4096);
    let out = &mut text;
    family(out, "bgproxy_build_info", "gauge", "The version that runs.")
        .value(&format!("version=\"{}\"", proxy.version), 1);
    family(out, "bgproxy_start_time_seconds", "gauge", "When it started, in seconds since 1970.")
        .value("", proxy.started);
    family(out, "bgproxy_connections", "gauge", "Client connections open now.").value("", proxy.connections);
    family(out, "bgproxy_connections_refused_total", "counter", "Connections beyond those that one address may have.")
        .value("", proxy.refused);
    family(out, "bgproxy_panics_total", "counter", "Panics: each is a fault of bgproxy, told in the log.")
        .value("", proxy.panics);
    family(out, "bgproxy_tls_handshakes_total", "counter", "TLS handshakes that were done.")
        .value("", proxy.handshakes.0);
    family(out, "bgproxy_tls_handshakes_failed_total", "counter", "TLS handshakes that failed or were broken off.")
        .value("", proxy.handshakes.1);
    let mut ends = family(out, "bgproxy_certificate_not_after_seconds", "gauge", "When a certificate ends.");
    for (name, seconds) in &proxy.certificates {
        // A name is a text of the certificate's maker.
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        ends.value(&format!("certificate=\"{name}\""), seconds);
    }
    family(out, "bgproxy_requests_received_total", "counter", "Requests whose heads came.").value("", proxy.received);
    family(out, "bgproxy_access_log_dropped_total", "counter", "Lines of the access log that were dropped.")
        .value("", proxy.log_dropped);
    let mut webhooks =
        family(out, "bgproxy_webhooks_total", "counter", "What the proxy did alone, told by the webhook.");
    for (outcome, count) in ["sent", "failed", "dropped"].into_iter().zip(proxy.webhooks) {
        webhooks.value(&format!("outcome=\"{outcome}\""), count);
    }
    let mut acme =
        family(out, "bgproxy_acme_orders_total", "counter", "Certificates that the authority was asked for.");
    for (outcome, count) in ["issued", "failed"].into_iter().zip(proxy.acme) {
        acme.value(&format!("outcome=\"{outcome}\""), count);
    }
    for (name, help, counts) in [
        ("bgproxy_files_total", "Answers of a service out of folders, which no slot is asked for.", &proxy.files),
        ("bgproxy_flips_total", "Flips of a service.", &proxy.flips),
        ("bgproxy_drains_total", "Drains of a service that ended.", &proxy.drains),
    ] {
        let mut family = family(out, name, "counter", help);
        for (service, count) in counts {
            family.value(&format!("service=\"{service}\""), count);
        }
    }
    let mut requests = family(out, "bgproxy_requests_total", "counter", "Requests at their end, by class of status.");
    for slot in slots {
        for (class, count) in CLASSES.iter().zip(slot.sums.classes) {
            requests.value(&format!("{},class=\"{class}\"", slot.labels()), count);
        }
    }
    for (service, counts) in &proxy.own {
        for (class, count) in CLASSES.iter().zip(counts) {
            requests.value(&format!("service=\"{service}\",slot=\"none\",class=\"{class}\""), count);
        }
    }
    let mut seconds = family(
        out,
        "bgproxy_request_duration_seconds",
        "histogram",
        "From the head of a request to the end of its answer.",
    );
    for slot in slots {
        seconds.histogram(&slot.labels(), &slot.sums.total);
    }
    let mut seconds = family(
        out,
        "bgproxy_upstream_duration_seconds",
        "histogram",
        "From the sending of a request to the head of the application's answer.",
    );
    for slot in slots {
        seconds.histogram(&slot.labels(), &slot.sums.upstream);
    }
    let bytes = |slot: &SlotMetrics| slot.sums.bytes;
    of_slots(out, slots, ("bgproxy_response_bytes_total", "counter", "Bytes of answers' bodies."), bytes);
    for (name, help, value) in [
        ("bgproxy_requests_held_total", "Requests that waited for the application to come back.", held as Value),
        ("bgproxy_requests_retried_total", "Requests that were sent a second time.", retried),
        ("bgproxy_ejections_total", "Endpoints that were left aside for failed requests.", ejected),
        (
            "bgproxy_requests_closed_total",
            "WebSockets and event streams that a drain deadline ended as they should end.",
            closed,
        ),
        ("bgproxy_requests_cut_total", "Requests that a drain deadline ended.", cut),
        ("bgproxy_requests_failed_total", "Requests that the application failed.", failed),
        ("bgproxy_old_assets_total", "Assets that a slot answered and the other one lacks.", assets),
    ] {
        of_slots(out, slots, (name, "counter", help), value);
    }
    of_slots(out, slots, ("bgproxy_in_flight", "gauge", "Requests and tunnels on a slot now."), |slot| slot.in_flight);
    of_slots(out, slots, ("bgproxy_slot_live", "gauge", "1 for the slot that takes new requests."), |slot| {
        u64::from(slot.is_live)
    });
    let healthy = |slot: &SlotMetrics| slot.endpoints.0 as u64;
    of_slots(out, slots, ("bgproxy_endpoints_healthy", "gauge", "Endpoints whose probes pass."), healthy);
    let all = |slot: &SlotMetrics| slot.endpoints.1 as u64;
    of_slots(out, slots, ("bgproxy_endpoints", "gauge", "Endpoints in a slot."), all);
    text
}

type Value = fn(&SlotMetrics) -> u64;

fn held(slot: &SlotMetrics) -> u64 {
    slot.sums.held
}

fn retried(slot: &SlotMetrics) -> u64 {
    slot.sums.retried
}

fn ejected(slot: &SlotMetrics) -> u64 {
    slot.sums.ejected
}

fn closed(slot: &SlotMetrics) -> u64 {
    slot.sums.closed
}

fn cut(slot: &SlotMetrics) -> u64 {
    slot.sums.cut
}

fn failed(slot: &SlotMetrics) -> u64 {
    slot.sums.failed
}

fn assets(slot: &SlotMetrics) -> u64 {
    slot.sums.assets
}

fn of_slots(
    text: &mut String,
    slots: &[SlotMetrics],
    (name, kind, help): (&'static str, &str, &str),
    value: impl Fn(&SlotMetrics) -> u64,
) {
    let mut family = family(text, name, kind, help);
    for slot in slots {
        family.value(&slot.labels(), value(slot));
    }
}

fn family<'t>(text: &'t mut String, name: &'static str, kind: &str, help: &str) -> Family<'t> {
    // Writing to a string never fails, here and below.
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    Family { text, name }
}

impl Family<'_> {
    fn value(&mut self, labels: &str, value: impl std::fmt::Display) {
        self.line("", labels, value);
    }

    fn line(&mut self, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        let name = self.name;
        _ = match labels {
            "" => writeln!(self.text, "{name}{suffix} {value}"),
            labels => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, labels: &str, histogram: &Histogram) {
        let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(histogram.buckets) {
            self.line("_bucket", &format!("{labels},le=\"{bound}\""), count);
        }
        self.line("_sum", labels, histogram.seconds);
        self.line("_count", labels, histogram.buckets[BUCKETS.len()]);
    }
}

impl SlotMetrics {
    fn labels(&self) -> String {
        format!("service=\"{}\",slot=\"{}\"", self.service, self.slot)
    }
}
