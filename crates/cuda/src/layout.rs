//! Where values lie in one block of memory: two that are needed at the same time never share a byte.

/// Every value begins at a multiple of this, which suits any load.
const ALIGNMENT: usize = 256;

/// From when to when a value is needed, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// The step that makes it.
    pub(crate) first: usize,
    /// The last step that reads it, at least `first`.
    pub(crate) last: usize,
    /// Its size.
    pub(crate) bytes: usize,
}

/// Offsets of all values, and the size of the block. Large values are placed first, each as low as it can be.
pub(crate) fn place(values: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(values[i].bytes));
    let mut offsets = vec![0; values.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let value = values[i];
        let bytes = value.bytes.next_multiple_of(ALIGNMENT);
        let together = |&&j: &&usize| values[j].first <= value.last && value.first <= values[j].last;
        let taken = placed.iter().filter(together);
        let mut taken: Vec<_> = taken.map(|&j| (offsets[j], offsets[j] + values[j].bytes)).collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + bytes <= start {
                break;
            }
            offset = offset.max(end.next_multiple_of(ALIGNMENT));
        }
        offsets[i] = offset;
        total = total.max(offset + bytes);
        placed.push(i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lifetimes() -> impl Strategy<Value = Vec<Lifetime>> {
        let one = (0_usize..30, 0_usize..10, 0_usize..5000);
        prop::collection::vec(one.prop_map(|(first, more, bytes)| Lifetime { first, last: first + more, bytes }), 0..40)
    }

    proptest! {
        #[test]
        fn values_needed_together_lie_apart(values in lifetimes()) {
            let (offsets, total) = place(&values);
            for (i, a) in values.iter().enumerate() {
                prop_assert!(offsets[i] % ALIGNMENT == 0 && offsets[i] + a.bytes <= total);
                for (j, b) in values.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!together || apart, "{i} and {j}");
                }
            }
        }

        #[test]
        fn no_more_is_taken_than_all_would_take_side_by_side(values in lifetimes()) {
            let all: usize = values.iter().map(|v| v.bytes.next_multiple_of(ALIGNMENT)).sum();
            prop_assert!(place(&values).1 <= all);
        }
    }

    #[test]
    fn values_needed_one_after_the_other_share_their_place() {
        let chain: Vec<_> = (0..50).map(|i| Lifetime { first: i, last: i + 1, bytes: 1000 }).collect();
        assert_eq!(place(&chain).1, 2 * 1024);
    }
}
