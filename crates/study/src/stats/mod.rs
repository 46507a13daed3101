//! What samples say: quantiles, intervals, outliers. No times, no engines, no records: numbers in, numbers out.
//!
//! `quantile.rs` is numpy's linear rule, `bootstrap.rs` how sure a median or a ratio of medians is. Both are checked against
//! numpy and scipy on stored samples (`tests/statistics.rs`).

mod bootstrap;
mod quantile;

pub use bootstrap::{Interval, RESAMPLES, ratio_interval};
pub use quantile::quantile;

/// Repeated measurements of one thing: a list for each process that measured it.
///
/// Never empty, and every value is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// For each process the places of its values in `sorted`.
    places: Vec<Vec<usize>>,
    sorted: Vec<f64>,
}

impl Samples {
    /// Keeps every value; `None` where there is none, or one that is no number.
    #[must_use]
    pub fn new(processes: Vec<Vec<f64>>) -> Option<Self> {
        let processes: Vec<_> = processes.into_iter().filter(|values| !values.is_empty()).collect();
        let values = processes.iter().enumerate().flat_map(|(p, values)| values.iter().map(move |&value| (value, p)));
        let mut order: Vec<(f64, usize)> = values.collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut places = vec![Vec::new(); processes.len()];
        for (place, &(_, process)) in order.iter().enumerate() {
            places[process].push(place);
        }
        let sorted: Vec<f64> = order.into_iter().map(|(value, _)| value).collect();
        let usable = !sorted.is_empty() && sorted.iter().all(|value| value.is_finite());
        usable.then_some(Self { places, sorted })
    }

    /// How many processes there are.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.places.len()
    }

    /// All values of all processes, ascending.
    #[must_use]
    pub fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// The value below which a part `q` in 0..=1 of all values lies.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(&self.sorted, q).unwrap_or_default() // never empty
    }

    /// The middle of all values.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Where the median lies with 95 % confidence; `None` of a single value, which says nothing of its spread.
    #[must_use]
    pub fn median_interval(&self) -> Option<Interval> {
        bootstrap::median_interval(self)
    }

    /// How many values lie beyond Tukey's far fences, three interquartile ranges outside the quartiles. They stay in.
    #[must_use]
    pub fn outliers(&self) -> usize {
        let (first, third) = (self.quantile(0.25), self.quantile(0.75));
        let reach = 3.0 * (third - first);
        self.sorted.iter().filter(|&&value| value < first - reach || value > third + reach).count()
    }
}
