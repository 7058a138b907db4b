//! The figures of this process for Prometheus: `GET /metrics`.

use axum::response::{IntoResponse, Response};
use http::header;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::failure::Failure;

/// The type of Prometheus' text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From a round trip on one machine to one around the world and over a bad link, in seconds.
const ROUND_TRIPS: [f64; 10] = [
    0.0001, 0.0005, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// The recorder of the process.
#[derive(Clone)]
pub(crate) struct Figures(PrometheusHandle);

impl Figures {
    /// Begins to record. A process does so once.
    pub(crate) fn record() -> Result<Figures, Failure> {
        let trips = Matcher::Full("unstall_round_trip_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(trips, &ROUND_TRIPS);
        let recorder = builder.and_then(PrometheusBuilder::install_recorder);
        let recorder = recorder.map_err(Failure::work)?;
        unstall::metrics::describe();
        unstall_topics::metrics::describe();
        Ok(Figures(recorder))
    }

    /// The page as it is now.
    pub(crate) fn page(&self) -> Response {
        unstall::metrics::update();
        self.0.run_upkeep();
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.0.render()).into_response()
    }
}
