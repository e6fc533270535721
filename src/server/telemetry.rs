//! Figures for Prometheus. Labels are route templates and fixed words, never ids.

use std::{sync::OnceLock, time::Duration};

use axum::http::{Method, StatusCode};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const REQUESTS: &str = "finetuned_http_requests_total";
const REQUEST_SECONDS: &str = "finetuned_http_request_seconds";
const UPLOADS: &str = "finetuned_uploads_total";
const UPLOADED_BYTES: &str = "finetuned_uploaded_bytes_total";
const SECONDS_BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0];

/// The process has one recorder, whoever asks first.
pub fn handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Full(REQUEST_SECONDS.to_owned()), SECONDS_BUCKETS)
            // Only an empty list is refused.
            .unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics shows nothing");
        }
        describe();
        handle
    })
}

fn describe() {
    metrics::describe_counter!(REQUESTS, "Requests answered, by route template, method and status.");
    metrics::describe_histogram!(REQUEST_SECONDS, "Seconds until an answer began, by route template and method.");
    metrics::describe_counter!(UPLOADS, "Uploads that became a file, by its status.");
    metrics::describe_counter!(UPLOADED_BYTES, "Bytes of uploads that became a file.");
}

/// Counts an answered request.
pub fn request_done(method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
    let labels = [("route", route.to_owned()), ("method", method_label(method).to_owned())];
    metrics::histogram!(REQUEST_SECONDS, &labels).record(elapsed.as_secs_f64());
    let [route, method] = labels;
    metrics::counter!(REQUESTS, &[route, method, ("status", status.as_u16().to_string())]).increment(1);
}

/// Clients can send any word as a method; a label must not have any value.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::DELETE | Method::HEAD | Method::PUT | Method::PATCH | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
}

/// Counts an upload that became a file.
pub fn upload_done(status: &'static str, bytes: u64) {
    metrics::counter!(UPLOADS, "status" => status).increment(1);
    metrics::counter!(UPLOADED_BYTES).increment(bytes);
}
