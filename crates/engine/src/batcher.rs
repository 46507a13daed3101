//! Which texts run together: sorted by length, packed into ragged batches under a budget of tokens.
//!
//! There is no padding, so a batch costs the tokens it holds. Sorting keeps sequences of one length together (attention
//! tiles alike) and starts with the longest (the buffers of the first batches serve all later ones). Nothing here
//! changes a result: a row never depends on the other sequences of its batch.

/// Cuts texts of `lengths` tokens into batches of at most `budget` tokens; a longer text gets a batch of its own.
///
/// Each batch lists places in `lengths`. Every place stands in exactly one batch, longest texts first, texts of one
/// length in input order.
pub(crate) fn plan(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for i in order {
        match batches.last_mut() {
            Some(batch) if lengths[i] <= room => batch.push(i),
            _ => {
                room = budget.max(lengths[i]);
                batches.push(vec![i]);
            }
        }
        room -= lengths[i];
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_text_makes_no_batch() {
        assert!(plan(&[], 100).is_empty());
    }

    #[test]
    fn longest_first_and_ties_in_input_order() {
        assert_eq!(plan(&[2, 5, 2, 5, 1], 10), [vec![1, 3], vec![0, 2, 4]]);
    }

    proptest! {
        #[test]
        fn every_text_runs_once_and_the_budget_holds(
            lengths in prop::collection::vec(1_usize..600, 0..200),
            budget in 0_usize..2000,
        ) {
            let batches = plan(&lengths, budget);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                prop_assert!(tokens <= budget || batch.len() == 1, "{tokens} tokens in {batch:?}");
            }
        }

        #[test]
        fn no_two_neighbours_would_fit_into_one(
            lengths in prop::collection::vec(1_usize..600, 0..200),
            budget in 1_usize..2000,
        ) {
            let batches = plan(&lengths, budget);
            for pair in batches.windows(2) {
                let tokens: usize = pair[0].iter().map(|&i| lengths[i]).sum();
                prop_assert!(tokens + lengths[pair[1][0]] > budget);
            }
        }
    }
}
