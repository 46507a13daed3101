//! Masked tokens guessed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mlxt_models::Task;

use super::load;
use crate::options::{Builder, Load, Options};
use crate::pipeline::{Pipeline, finite};
use crate::text::{AutoTokenizer, TokenIds};
use crate::{Error, Info, Result};

/// A token that may stand in a mask's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// The token as text.
    pub token: String,
    /// Its id.
    pub token_id: u32,
    /// Its probability among the whole vocabulary.
    pub score: f32,
    /// The text with the guess in place. Without special tokens, unless other masks are left in it.
    pub sequence: String,
}

/// A model that guesses masked tokens.
///
/// Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/bert");
/// use mlx_transformers::FillMask;
///
/// let model = FillMask::from_pretrained(folder)?;
/// let text = format!("the quick {} fox", model.mask_token());
/// let masks = &model.fill(&[text], 3)?[0];
/// assert_eq!((masks.len(), masks[0].len()), (1, 3));
/// println!("{} {:.3}: {}", masks[0][0].token, masks[0][0].score, masks[0][0].sequence);
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct FillMask {
    pipeline: Pipeline,
    mask: (String, u32),
    pad: Option<u32>,
}

impl FillMask {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`Error::Model`] if it has no such head.
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`FillMask::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// The `top_k` best guesses for each mask of each text, best first; all of the vocabulary if `top_k` is more.
    ///
    /// # Errors
    /// [`Error::NoMask`] or [`Error::MaskCut`] naming the first text without a mask, [`Error::ZeroOption`]; texts that cannot be tokenised or
    /// are too long, results that are not finite, the device's own.
    pub fn fill<S: AsRef<str> + Sync>(&self, texts: &[S], top_k: usize) -> Result<Vec<Vec<Vec<Guess>>>> {
        if top_k == 0 {
            return Err(Error::ZeroOption { option: "the number of guesses" });
        }
        let ids = self.pipeline.tokenise(texts)?;
        let (mask, mask_id) = &self.mask;
        if let Some(index) = ids.iter().position(|text| !text.ids.contains(mask_id)) {
            let (mask, limit) = (mask.clone(), self.pipeline.limit());
            let cut = ids[index].ids.len() >= limit && texts[index].as_ref().contains(&mask);
            return Err(if cut { Error::MaskCut { index, mask, limit } } else { Error::NoMask { index, mask } });
        }
        let mut best: Vec<Vec<Vec<(u32, f32)>>> = vec![Vec::new(); ids.len()];
        self.pipeline.for_each_batch(&ids, |batch, places| {
            let mut rows = Vec::new();
            let mut owners = Vec::new();
            for (&place, range) in places.iter().zip(batch.segments().ranges()) {
                for row in range.filter(|&row| batch.ids()[row] == *mask_id) {
                    rows.push(row as u32);
                    owners.push(place);
                }
            }
            // Only these go through the head: the product with the vocabulary costs as much as several layers.
            self.pipeline.session().logits(batch, &rows, &mut |row, logits| {
                finite(owners[row], logits)?;
                best[owners[row]].push(most_probable(logits, top_k));
                Ok(())
            })
        })?;
        self.pipeline.tokenizer().map(&ids, |place, text| self.guesses(text, &best[place]))
    }

    /// The token that stands for a word to be guessed.
    #[must_use]
    pub fn mask_token(&self) -> &str {
        &self.mask.0
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &AutoTokenizer {
        self.pipeline.tokenizer()
    }

    /// What this runs on.
    #[must_use]
    pub fn info(&self) -> &Info {
        self.pipeline.info()
    }

    fn guesses(&self, text: &TokenIds, best: &[Vec<(u32, f32)>]) -> Result<Vec<Vec<Guess>>> {
        let tokenizer = self.pipeline.tokenizer();
        let masks = (0..text.ids.len()).filter(|&i| text.ids[i] == self.mask.1);
        let guess = |mask: usize, token_id: u32, score: f32| {
            let mut ids = text.ids.clone();
            ids[mask] = token_id;
            ids.retain(|&id| Some(id) != self.pad);
            // Special tokens are left out, but not where that would hide the other masks.
            let sequence = tokenizer.decode(&ids, best.len() == 1)?;
            Ok(Guess { token: tokenizer.decode(&[token_id], false)?, token_id, score, sequence })
        };
        masks.zip(best).map(|(mask, best)| best.iter().map(|&(id, score)| guess(mask, id, score)).collect()).collect()
    }
}

impl Load for FillMask {
    type Extra = ();

    fn load(name: &str, options: &Options, (): ()) -> Result<Self> {
        let pipeline = load(name, options, Task::FillMask)?;
        let tokenizer = pipeline.tokenizer();
        let mask = tokenizer.mask_token().ok_or(Error::NoMaskToken)?;
        let mask_id = tokenizer.token_to_id(mask).ok_or(Error::NoMaskToken)?;
        let pad = tokenizer.pad_token().and_then(|pad| tokenizer.token_to_id(pad));
        Ok(Self { mask: (mask.to_owned(), mask_id), pad, pipeline })
    }
}

/// The ids of the `k` largest logits with their probabilities, best first; of equal ones the lower id first.
fn most_probable(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    // The heap's top is the worst kept: most of a vocabulary is only compared with it.
    let mut kept: BinaryHeap<(Reverse<Ordered>, u32)> = BinaryHeap::with_capacity(k.min(logits.len()) + 1);
    for (id, &logit) in logits.iter().enumerate() {
        kept.push((Reverse(Ordered(logit)), id as u32));
        if kept.len() > k {
            kept.pop();
        }
    }
    let probability = |logit: f32| (f64::from(logit - largest).exp() / sum) as f32;
    kept.into_sorted_vec().into_iter().map(|(Reverse(Ordered(logit)), id)| (id, probability(logit))).collect()
}

/// A finite logit, which has an order.
#[derive(PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::softmax;

    #[test]
    fn the_largest_come_first_and_equal_ones_by_id() {
        let logits = [0.5, 2.0, -1.0, 2.0, 1.0];
        let all = softmax(&logits);
        let best = |k| most_probable(&logits, k);
        assert_eq!(best(3), [(1, all[1]), (3, all[3]), (4, all[4])]);
        assert_eq!(best(99).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 4, 0, 2]);
    }
}
