//! Quantiles by linear interpolation between order statistics: numpy's default, R's type 7.

/// The value below which a part `q` of `sorted` lies; `sorted` ascends, `q` is held to 0..=1. `None` of nothing.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let below = (at as usize).min(last);
    let above = (below + 1).min(last);
    let (low, high, part) = (sorted[below], sorted[above], at - below as f64);
    // From the nearer end, as numpy does: the result is the end itself where `part` is 0 or 1, whatever the rounding.
    Some(if part < 0.5 { low + (high - low) * part } else { high - (high - low) * (1.0 - part) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_nothing_there_is_none_and_of_one_it_is_that() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.99), Some(3.0));
    }

    proptest! {
        #[test]
        fn it_ascends_with_q_and_stays_between_the_ends(
            mut values in prop::collection::vec(-1e9..1e9, 1..60), a in 0.0..=1.0, b in 0.0..=1.0,
        ) {
            values.sort_by(f64::total_cmp);
            let (low, high) = (quantile(&values, f64::min(a, b)).unwrap(), quantile(&values, f64::max(a, b)).unwrap());
            prop_assert!(low <= high);
            prop_assert!(values[0] <= low && high <= values[values.len() - 1]);
        }

        #[test]
        fn at_each_rank_it_is_the_value_of_that_rank(mut values in prop::collection::vec(-1e9..1e9, 2..60)) {
            values.sort_by(f64::total_cmp);
            let last = values.len() - 1;
            prop_assert_eq!(quantile(&values, 0.0), Some(values[0]));
            prop_assert_eq!(quantile(&values, 1.0), Some(values[last]));
            prop_assert_eq!(quantile(&values, 2.0), Some(values[last]));
        }
    }
}
