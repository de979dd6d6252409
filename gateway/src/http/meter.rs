//! Counts requests by pattern, method and status without a look-up on the way.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{Method, StatusCode};
use prometheus_client::metrics::counter::Counter;

use crate::telemetry::Metrics;
use crate::telemetry::metrics::HttpLabels;

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "other"];

/// The statuses that are answered often; others are looked up.
const STATUSES: [u16; 10] = [200, 202, 204, 207, 304, 400, 404, 405, 422, 503];

/// The counters of one pattern, each made when it is first needed.
#[derive(Debug)]
pub(super) struct Meter {
    pattern: String,
    metrics: Arc<Metrics>,
    cells: [[OnceLock<Counter>; STATUSES.len()]; METHODS.len()],
}

impl Meter {
    pub(super) fn new(pattern: &str, metrics: Arc<Metrics>) -> Self {
        Self { pattern: pattern.to_owned(), metrics, cells: Default::default() }
    }

    /// Counts a request that is being answered, until what it gives is dropped.
    pub(super) fn open(&self) -> Open {
        self.metrics.http_open.inc();
        Open(Arc::clone(&self.metrics))
    }

    /// Counts an answer to a request that began at `begun`.
    pub(super) fn count(&self, method: &Method, status: StatusCode, begun: Instant) {
        self.metrics.http_request_seconds.observe(begun.elapsed().as_secs_f64());
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        match STATUSES.iter().position(|known| *known == status.as_u16()) {
            Some(at) => self.cells[method][at].get_or_init(|| self.counter(method, status)).inc(),
            None => self.counter(method, status).inc(),
        };
    }

    fn counter(&self, method: usize, status: StatusCode) -> Counter {
        let labels = HttpLabels { route: self.pattern.clone(), method: METHODS[method], status: status.as_u16() };
        self.metrics.http_requests.get_or_create(&labels).clone()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.http_open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_pattern_method_and_status() {
        let metrics = Arc::new(Metrics::new());
        let meter = Meter::new("/orders/{id}", Arc::clone(&metrics));
        for (method, status) in
            [(Method::GET, StatusCode::OK), (Method::GET, StatusCode::OK), (Method::PUT, StatusCode::IM_A_TEAPOT)]
        {
            meter.count(&method, status, Instant::now());
        }
        let text = metrics.render();
        assert!(
            text.contains("sluice_http_requests_total{route=\"/orders/{id}\",method=\"GET\",status=\"200\"} 2"),
            "{text}"
        );
        assert!(text.contains("method=\"other\",status=\"418\"} 1"), "{text}");
    }
}
