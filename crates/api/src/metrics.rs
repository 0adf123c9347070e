//! `/metrics`: what this process counted, and a snapshot of the whole system from the database.
//!
//! Labels are few by construction: route templates, known methods, classes of status. While the
//! database is away the process's own counts are still shown, with `callq_up 0`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpResponse, get, web};
use callq_domain::{StoreError, SystemGauges};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::Api;
use crate::problem::Problem;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the system's figures are waited for. Prometheus waits ten seconds for the whole page.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts kept by this process and shown on `/metrics`.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    admissions: Family<AdmissionLabels, Counter>,
    campaigns_full: Counter,
    withdrawn_listed: Counter,
    audits: AuditMetrics,
}

/// What the recounts of this process found. Cheap to clone; shown on `/metrics`.
#[derive(Clone)]
pub struct AuditMetrics {
    audits: Counter,
    differences: Gauge,
    seconds: Gauge<f64, AtomicU64>,
}

impl AuditMetrics {
    /// Notes a recount: how many counters differed from their rows, and how long it took.
    pub fn tell(&self, differences: usize, took: Duration) {
        self.audits.inc();
        self.differences
            .set(i64::try_from(differences).unwrap_or(i64::MAX));
        self.seconds.set(took.as_secs_f64());
    }
}

/// A request that was answered.
pub(crate) struct Answered {
    pub(crate) route: String,
    pub(crate) method: Method,
    pub(crate) status: u16,
    pub(crate) elapsed: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionLabels {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    call_type: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::in_registry(Registry::default())
    }
}

impl Metrics {
    /// Metrics that are shown together with what the registry already holds.
    #[must_use]
    pub fn in_registry(mut registry: Registry) -> Self {
        let requests = Family::default();
        let durations = Family::new_with_constructor(request_seconds as fn() -> Histogram);
        let admissions = Family::default();
        registry.register(
            "callq_http_requests",
            "Requests answered, by route template, method and class of status",
            requests.clone(),
        );
        registry.register(
            "callq_http_request_seconds",
            "Time from a request's head to its answer, by route template",
            durations.clone(),
        );
        registry.register(
            "callq_admissions",
            "Direct calls asked for, by answer",
            admissions.clone(),
        );
        let campaigns_full = Counter::default();
        registry.register(
            "callq_campaigns_queue_full",
            "Times that a campaign's contacts were not queued because too many calls of its user wait",
            campaigns_full.clone(),
        );
        let withdrawn_listed = Counter::default();
        registry.register(
            "callq_do_not_call_withdrawn",
            "Waiting calls cancelled because their number was put on a do-not-call list",
            withdrawn_listed.clone(),
        );
        let audits = AuditMetrics {
            audits: Counter::default(),
            differences: Gauge::default(),
            seconds: Gauge::default(),
        };
        registry.register(
            "callq_audits",
            "Recounts of every kept counter",
            audits.audits.clone(),
        );
        registry.register(
            "callq_audit_differences",
            "Counters that differed from their rows at the last recount; anything but 0 is a defect",
            audits.differences.clone(),
        );
        registry.register(
            "callq_audit_seconds",
            "How long the last recount took",
            audits.seconds.clone(),
        );
        Self {
            registry,
            requests,
            durations,
            admissions,
            campaigns_full,
            withdrawn_listed,
            audits,
        }
    }

    /// Where to say what recounts found.
    #[must_use]
    pub fn audits(&self) -> AuditMetrics {
        self.audits.clone()
    }

    pub(crate) fn count(&self, answered: &Answered) {
        let route = answered.route.clone();
        let labels = RequestLabels {
            route: route.clone(),
            method: known_method(&answered.method),
            status: status_class(answered.status),
        };
        self.requests.get_or_create(&labels).inc();
        self.durations
            .get_or_create(&RouteLabels { route })
            .observe(answered.elapsed.as_secs_f64());
    }

    pub(crate) fn count_admission(&self, answer: &'static str) {
        self.admissions
            .get_or_create(&AdmissionLabels { answer })
            .inc();
    }

    pub(crate) fn count_campaign_queue_full(&self) {
        self.campaigns_full.inc();
    }

    pub(crate) fn count_withdrawn_listed(&self, calls: u64) {
        self.withdrawn_listed.inc_by(calls);
    }

    fn render(&self, system: Result<SystemGauges, StoreError>) -> Result<String, Problem> {
        let mut text = String::new();
        let snapshot = snapshot(system.ok().as_ref());
        encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &snapshot))
            .and_then(|()| encode_eof(&mut text))
            .map_err(|error| Problem::internal(format!("metrics cannot be written: {error}")))?;
        Ok(text)
    }
}

fn request_seconds() -> Histogram {
    // 1 ms to about 33 s: an admission that waits for its provider may take its ten seconds.
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn status_class(status: u16) -> &'static str {
    match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// The system's figures as a registry of their own, made anew for each scrape so that an old
/// figure is never shown as a present one.
fn snapshot(system: Option<&SystemGauges>) -> Registry {
    let mut registry = Registry::default();
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    gauge(
        "callq_up",
        "1 while the database answers",
        u64::from(system.is_some()),
    );
    let Some(system) = system else {
        return registry;
    };
    gauge(
        "callq_slots_limit",
        "Calls that may be up at once",
        system.slots.limit.into(),
    );
    gauge(
        "callq_slots_active",
        "Calls holding a slot",
        system.slots.active.into(),
    );
    gauge(
        "callq_calls_unknown",
        "Calls whose placement is being looked up",
        system.unknown,
    );
    gauge(
        "callq_priority_violations",
        "Campaign calls that started before a waiting direct call; anything but 0 is a defect",
        system.priority_violations,
    );
    let oldest = Gauge::<f64, AtomicU64>::default();
    oldest.set(system.oldest_snapshot.as_secs_f64());
    registry.register(
        "callq_oldest_snapshot_seconds",
        "Age of the oldest snapshot that a database connection holds",
        oldest,
    );
    let (queued, processing) = (
        by_type(system, |it| it.queued),
        by_type(system, |it| it.processing),
    );
    registry.register("callq_calls_queued", "Calls waiting, by type", queued);
    registry.register(
        "callq_calls_processing",
        "Calls holding a slot, by type",
        processing,
    );
    registry
}

fn by_type(
    system: &SystemGauges,
    figure: impl Fn(&callq_domain::TypeCount) -> u64,
) -> Family<TypeLabels, Gauge> {
    let family = Family::<TypeLabels, Gauge>::default();
    for (call_type, count) in [("direct", &system.direct), ("campaign", &system.campaign)] {
        let value = i64::try_from(figure(count)).unwrap_or(i64::MAX);
        family.get_or_create(&TypeLabels { call_type }).set(value);
    }
    family
}

/// Figures for Prometheus.
#[utoipa::path(
    tag = "operation",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"))
)]
#[get("/metrics")]
pub(crate) async fn show_metrics(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let gauges = api.ports.operators.gauges();
    let system = tokio::time::timeout(PATIENCE, gauges).await;
    let system = system.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer".into())));
    if let Err(error) = &system {
        log::warn!(cause = error.to_string().as_str(); "the metrics page has no system figures");
    }
    let text = api.metrics.render(system)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, CONTENT_TYPE))
        .body(text))
}
