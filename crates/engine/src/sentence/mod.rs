//! Sentence embeddings, as sentence-transformers makes them.
//!
//! Where next: `config.rs` for what a folder says, `steps.rs` for what follows pooling, `embeddings.rs` for the result.

mod activation;
mod config;
mod dense;
mod embeddings;
mod pooling;
mod steps;
pub(crate) mod transformer;

use std::borrow::Cow;
use std::sync::Arc;

use mlxt_models::Pooling;

pub use self::activation::Elementwise;
pub use self::config::SentenceConfig;
pub use self::dense::Dense;
pub use self::embeddings::{Embeddings, cosine_similarity};
pub use self::steps::{LayerNorm, Step};
pub(crate) use self::transformer::{SENTENCE_CONFIGS, transformer_settings};

use self::steps::Loaded;
use crate::options::{Builder, Load, Options};
use crate::pipeline::{Pipeline, finite};
use crate::text::AutoTokenizer;
use crate::{Error, Info, Result, hub};

/// A model that turns texts into vectors whose angle tells how alike they are.
///
/// A folder in the layout of sentence-transformers (`modules.json`) is honoured: pooling, dense layers, norms, number of
/// columns, prompt, length and case. A plain checkpoint gets mean pooling and unit length; [`Builder::pooling`] and [`Builder::normalize`]
/// change either. Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/bert");
/// use mlx_transformers::SentenceTransformer;
///
/// let model = SentenceTransformer::from_pretrained(folder)?;
/// let embeddings = model.encode(&["a quick fox", "a slow dog"])?;
/// assert_eq!((embeddings.len(), embeddings.dim()), (2, model.dim()));
/// println!("{} on {}", embeddings.similarity(0, 1), embeddings.info().device.hardware);
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct SentenceTransformer {
    pipeline: Pipeline,
    config: SentenceConfig,
    steps: Vec<Loaded>,
    dim: usize,
    /// Tokens at the start of each text that are not pooled: those of a prompt that is to be left out.
    skipped: usize,
}

impl SentenceTransformer {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`SentenceTransformer::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// The embedding of each text, in input order. The empty text is one too: its special tokens.
    ///
    /// # Errors
    /// Texts that cannot be tokenised or are too long, or have nothing beside a prompt that is not pooled; results that are not
    /// finite; the device's own.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Embeddings> {
        let prompted: Vec<Cow<'_, str>> = texts.iter().map(|text| self.prompted(text.as_ref())).collect();
        let ids = self.pipeline.tokenise(&prompted)?;
        if let Some(index) = ids.iter().position(|text| text.ids.len() <= self.skipped) {
            return Err(Error::OnlyPrompt { index, prompt: self.config.prompt.clone() });
        }
        let dim = self.dim();
        let mut data = vec![0.0; ids.len() * dim];
        self.pipeline.for_each_batch(&ids, |batch, places| {
            let pooled = self.pipeline.session().pooled(batch, &self.config.poolings, self.skipped)?;
            for (&place, row) in places.iter().zip(pooled.iter()) {
                let row = self.steps.iter().fold(row.to_vec(), |row, step| step.apply(row));
                finite(place, &row)?;
                data[place * dim..][..dim].copy_from_slice(&row);
            }
            Ok(())
        })?;
        let tokens = ids.iter().map(|text| text.ids.len()).collect();
        Ok(Embeddings::new(dim, data, tokens, Arc::clone(self.pipeline.info())))
    }

    /// Columns of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How rows become one; several stand side by side.
    #[must_use]
    pub fn poolings(&self) -> &[Pooling] {
        &self.config.poolings
    }

    /// Whether embeddings have unit length.
    #[must_use]
    pub fn normalizes(&self) -> bool {
        self.config.normalizes()
    }

    /// Whether the folder is in the layout of sentence-transformers; a plain checkpoint's pooling is a guess.
    #[must_use]
    pub fn is_sentence_transformer(&self) -> bool {
        self.config.from_folder
    }

    /// What is put before every text; most often nothing.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.config.prompt
    }

    /// What happens to the pooled row, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.config.steps
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &AutoTokenizer {
        self.pipeline.tokenizer()
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

    fn prompted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.config.prompt.as_str() {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned(format!("{prompt}{text}")),
        }
    }
}

/// What the folder says is replaced by these.
#[derive(Debug, Default)]
pub struct SentenceExtra {
    pooling: Option<Pooling>,
    normalize: Option<bool>,
    prompt_name: Option<String>,
}

impl Builder<SentenceTransformer> {
    /// How rows become one, instead of what the folder says.
    pub fn pooling(self, pooling: Pooling) -> Self {
        self.extra(|extra| extra.pooling = Some(pooling))
    }

    /// Which of the model's prompts to put before every text, instead of its default: such as `query`.
    pub fn prompt_name(self, name: impl Into<String>) -> Self {
        self.extra(|extra| extra.prompt_name = Some(name.into()))
    }

    /// Whether embeddings get unit length, instead of what the folder says.
    pub fn normalize(self, normalize: bool) -> Self {
        self.extra(|extra| extra.normalize = Some(normalize))
    }
}

impl Load for SentenceTransformer {
    type Extra = SentenceExtra;

    fn load(name: &str, options: &Options, extra: SentenceExtra) -> Result<Self> {
        let folder = hub::find(name, options)?;
        let mut config = SentenceConfig::read(folder.path(), extra.prompt_name.as_deref())?;
        if let Some(pooling) = extra.pooling {
            config.poolings = vec![pooling];
        }
        if let Some(normalize) = extra.normalize {
            config.set_normalize(normalize);
        }
        let transformer = folder.transformer();
        let pipeline = Pipeline::load(&transformer, options, transformer_settings(&transformer)?, None)?;
        let skipped = match config.prompt.as_str() {
            prompt if config.include_prompt || prompt.is_empty() => 0,
            prompt => pipeline.tokenizer().prompt_tokens(prompt)?,
        };
        let dim = config.width(config.poolings.len() * pipeline.session().hidden_size())?;
        let steps = config.steps.iter().map(Loaded::load).collect::<Result<_>>()?;
        Ok(Self { pipeline, config, steps, dim, skipped })
    }
}
