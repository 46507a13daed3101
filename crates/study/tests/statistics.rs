//! Statistics against numpy and scipy, on samples stored with what those say of them (`data/make_statistics.py`).

#![allow(clippy::unwrap_used)]

use mlxt_study::stats::{Interval, Samples, ratio_interval};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    plain: Vec<Plain>,
    ratio: Vec<Ratio>,
    nested: Nested,
}

#[derive(Deserialize)]
struct Plain {
    values: Vec<f64>,
    quantiles: Vec<(f64, f64)>,
    median: f64,
    interval: Ends,
}

#[derive(Deserialize)]
struct Ratio {
    a: Vec<f64>,
    b: Vec<f64>,
    interval: Ends,
}

#[derive(Deserialize)]
struct Nested {
    processes: Vec<Vec<f64>>,
    interval: Ends,
}

/// Where each end may lie.
#[derive(Debug, Deserialize)]
struct Ends {
    low: (f64, f64),
    high: (f64, f64),
}

impl Ends {
    fn hold(&self, found: Interval) {
        let within = |(from, to): (f64, f64), value: f64| from <= value && value <= to;
        assert!(within(self.low, found.low) && within(self.high, found.high), "{found:?}, and the reference {self:?}");
    }
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("data/statistics.json")).unwrap()
}

fn one_process(values: &[f64]) -> Samples {
    Samples::new(vec![values.to_vec()]).unwrap()
}

#[test]
fn quantiles_are_numpys() {
    for case in expected().plain {
        let samples = one_process(&case.values);
        assert_eq!(samples.median(), case.median);
        for (q, value) in case.quantiles {
            assert!((samples.quantile(q) - value).abs() <= 2.0 * f64::EPSILON * value, "{q}");
        }
    }
}

#[test]
fn the_interval_of_a_median_is_scipys() {
    for case in expected().plain {
        case.interval.hold(one_process(&case.values).median_interval().unwrap());
    }
}

#[test]
fn the_interval_of_a_ratio_is_scipys() {
    for case in expected().ratio {
        case.interval.hold(ratio_interval(&[(&one_process(&case.a), &one_process(&case.b))]).unwrap());
    }
}

#[test]
fn processes_are_drawn_before_their_samples() {
    let case = expected().nested;
    let samples = Samples::new(case.processes.clone()).unwrap();
    case.interval.hold(samples.median_interval().unwrap());
    // The plain bootstrap, which takes all samples for independent, is far narrower: the test can tell them apart.
    let pooled = one_process(&case.processes.concat()).median_interval().unwrap();
    assert!(pooled.low > case.interval.low.1 && pooled.high < case.interval.high.0);
}

#[test]
fn outliers_are_counted_and_kept() {
    let case = &expected().plain[1];
    let samples = one_process(&case.values);
    assert_eq!(samples.outliers(), 1);
    assert_eq!(samples.quantile(1.0), 400.0);
    assert_eq!(samples.sorted().len(), case.values.len());
}
