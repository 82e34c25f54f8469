//! Metrics that are made when somebody asks, not counted before.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A metric with its samples, in the making.
pub(super) struct Family {
    family: MetricFamily,
    labels: &'static [&'static str],
}

impl Family {
    /// Something that goes up and down.
    pub(super) fn gauge(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        Self::new(MetricType::GAUGE, name, help, labels)
    }

    /// Something that only grows.
    pub(super) fn counter(name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        Self::new(MetricType::COUNTER, name, help, labels)
    }

    fn new(kind: MetricType, name: &str, help: &str, labels: &'static [&'static str]) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { family, labels }
    }

    /// A sample with the values of the labels, in their order. A time in milliseconds says when it was taken.
    pub(super) fn add(&mut self, labels: &[&str], value: f64, timestamp_ms: Option<i64>) {
        debug_assert_eq!(labels.len(), self.labels.len(), "{}", self.family.name());
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metric = Metric::from_label(self.labels.iter().zip(labels).map(pair).collect());
        if self.family.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        if let Some(timestamp_ms) = timestamp_ms {
            metric.set_timestamp_ms(timestamp_ms);
        }
        self.family.mut_metric().push(metric);
    }

    /// The same, at once.
    pub(super) fn with(mut self, labels: &[&str], value: f64) -> Self {
        self.add(labels, value, None);
        self
    }

    /// None without samples: a family without any is not shown.
    pub(super) fn finish(self) -> Option<MetricFamily> {
        (!self.family.get_metric().is_empty()).then_some(self.family)
    }
}
