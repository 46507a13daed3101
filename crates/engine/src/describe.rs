//! What a model's folder says of it, without loading weights onto a device. Quick for a model of any size.

use mlxt_models::{Inspection, inspect};

use crate::limits::Limits;
use crate::options::{Builder, Load, Options};
use crate::sentence::{SentenceConfig, transformer_settings};
use crate::text::AutoTokenizer;
use crate::{ModelFolder, Result, hub};

/// A model, described. What is wrong with its tokenizer or its sentence-transformers files is part of the answer.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/bert");
/// use mlx_transformers::Description;
///
/// let description = Description::of(folder)?;
/// println!("{} parameters", description.model.parameters());
/// assert!(description.model.misfit.is_empty());
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Description {
    /// Where it lies.
    pub folder: ModelFolder,
    /// Settings and tensors.
    pub model: Inspection,
    /// The tokenizer.
    pub tokenizer: Result<AutoTokenizer>,
    /// How sentence embeddings are made.
    pub sentence: Result<SentenceConfig>,
    /// The most tokens of a text to embed, special tokens included, if the tokenizer can be used.
    pub max_length: Option<usize>,
}

impl Description {
    /// Of the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn of(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`Description::of`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }
}

impl Load for Description {
    type Extra = ();

    fn load(name: &str, options: &Options, (): ()) -> Result<Self> {
        let folder = hub::find(name, options)?;
        let transformer = folder.transformer();
        let model = inspect(&transformer)?;
        let tokenizer = AutoTokenizer::from_folder(&transformer, options.threads);
        let settings = transformer_settings(&transformer);
        let max_length = match (&tokenizer, &settings) {
            (Ok(tokenizer), Ok(settings)) => {
                let limits = Limits::new(model.config.max_tokens(), tokenizer, settings.max_tokens);
                Some(limits.choose(options.max_length)?)
            }
            _ => None,
        };
        let sentence = settings.and_then(|_| SentenceConfig::read(folder.path(), None));
        Ok(Self { folder, model, tokenizer, sentence, max_length })
    }
}
