//! Latencies and their percentiles.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::Result;

/// In nanoseconds, to three digits.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Latencies> {
        Ok(Latencies(Histogram::new(3)?))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0 += latency.as_nanos() as u64;
    }

    /// In microseconds.
    pub(crate) fn figures(&self) -> BTreeMap<String, f64> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        let figures = [
            ("p50_us", at(0.5)),
            ("p99_us", at(0.99)),
            ("p999_us", at(0.999)),
            ("max_us", self.0.max() as f64 / 1e3),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }
}
