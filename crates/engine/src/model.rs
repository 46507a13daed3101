//! The bare model: hidden states for each token, as `transformers`' `AutoModel` gives them.

use std::sync::Arc;

use mlxt_backend::TokenBatch;

use crate::options::{Builder, Load, Options};
use crate::pipeline::{FolderSettings, Pipeline, finite};
use crate::session::{HiddenStates, Rows};
use crate::text::AutoTokenizer;
use crate::{Info, Result, hub};

/// A text's tokens and their hidden states.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// The tokens, special tokens included, as the vocabulary writes them.
    pub tokens: Vec<String>,
    /// Their ids.
    pub ids: Vec<u32>,
    /// The last hidden states, one row for each token, `[tokens, hidden]`.
    pub hidden: Vec<f32>,
    /// Columns of a hidden state.
    pub hidden_size: usize,
    /// The pooler's output, `[hidden]`, if the model has a pooler.
    pub pooler: Option<Vec<f32>>,
    /// What really ran.
    pub info: Arc<Info>,
}

impl Features {
    /// The hidden state of token `i`.
    ///
    /// # Panics
    /// If there is no token `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.hidden[i * self.hidden_size..][..self.hidden_size]
    }
}

/// A model without a task.
///
/// Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/bert");
/// use mlx_transformers::AutoModel;
///
/// let model = AutoModel::from_pretrained(folder)?;
/// let features = model.features(&["the quick fox", ""])?;
/// assert_eq!(features[0].tokens[0], "[CLS]");
/// assert_eq!(features[0].row(0).len(), model.hidden_size());
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct AutoModel {
    pipeline: Pipeline,
}

impl AutoModel {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`AutoModel::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// The hidden states of each text, in input order.
    ///
    /// # Errors
    /// Texts that cannot be tokenised or are too long, results that are not finite, the device's own.
    pub fn features<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Features>> {
        let ids = self.pipeline.tokenise(texts)?;
        let mut results: Vec<Option<Features>> = vec![None; ids.len()];
        self.pipeline.for_each_batch(&ids, |batch, places| {
            let output = self.pipeline.session().hidden(batch)?;
            let cols = output.hidden.cols();
            for (i, (&place, range)) in places.iter().zip(batch.segments().ranges()).enumerate() {
                let hidden = output.hidden.data()[range.start * cols..range.end * cols].to_vec();
                let pooler = output.pooler.as_ref().map(|rows| row(rows, i));
                finite(place, &hidden)?;
                finite(place, pooler.as_deref().unwrap_or_default())?;
                results[place] = Some(Features {
                    tokens: self.pipeline.tokenizer().tokens(&ids[place].ids),
                    ids: ids[place].ids.clone(),
                    hidden,
                    hidden_size: cols,
                    pooler,
                    info: Arc::clone(self.pipeline.info()),
                });
            }
            Ok(())
        })?;
        // Every text is in exactly one batch.
        Ok(results.into_iter().flatten().collect())
    }

    /// The hidden states of token ids, for callers with a tokenizer of their own.
    ///
    /// # Errors
    /// Ids outside the vocabulary, sequences longer than the model's positions, the device's own.
    pub fn forward(&self, batch: &TokenBatch) -> Result<HiddenStates> {
        self.pipeline.session().hidden(batch)
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &AutoTokenizer {
        self.pipeline.tokenizer()
    }

    /// Columns of a hidden state.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.pipeline.session().hidden_size()
    }

    /// The most tokens of a text, special tokens included.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.pipeline.limit()
    }

    /// What this runs on.
    #[must_use]
    pub fn info(&self) -> &Info {
        self.pipeline.info()
    }
}

impl Load for AutoModel {
    type Extra = ();

    fn load(name: &str, options: &Options, (): ()) -> Result<Self> {
        let folder = hub::find(name, options)?;
        Ok(Self { pipeline: Pipeline::load(&folder.transformer(), options, FolderSettings::default(), None)? })
    }
}

fn row(rows: &Rows, i: usize) -> Vec<f32> {
    rows.data()[i * rows.cols()..][..rows.cols()].to_vec()
}
