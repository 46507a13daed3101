//! Documents ordered by how well they answer a query, as sentence-transformers' `CrossEncoder` does.

use std::path::Path;

use mlxt_models::{Config, Task};
use serde::Deserialize;

use super::sigmoid;
use crate::json::read_optional;
use crate::modules::{self, MODULES};
use crate::options::{Builder, Load, Options};
use crate::pipeline::{FolderSettings, Pipeline};
use crate::sentence::transformer::{SCORES, check};
use crate::sentence::transformer_settings;
use crate::{Error, Info, Result, hub};

/// A document's place and score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The document's place in the call.
    pub index: usize,
    /// Its score: a probability, or a number without bounds if the model's files say so.
    pub score: f32,
}

/// A cross-encoder: a model that reads a query and a document together and says how well they fit.
///
/// Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/bert-reranker");
/// use mlx_transformers::Reranker;
///
/// let model = Reranker::from_pretrained(folder)?;
/// let ranked = model.rank("Was kostet das?", &["The cat sleeps.", "the lazy dog"])?;
/// assert!(ranked[0].score >= ranked[1].score);
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct Reranker {
    pipeline: Pipeline,
    activation: Activation,
}

impl Reranker {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`Error::Model`] if it is no classifier of one label, [`Error::UnsupportedSetting`] for
    /// an activation or a prompt that is not supported.
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`Reranker::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// The documents by score, best first; equal ones in their order.
    ///
    /// # Errors
    /// Documents that cannot be tokenised or are too long with the query, results that are not finite, the device's own.
    pub fn rank<S: AsRef<str> + Sync>(&self, query: &str, documents: &[S]) -> Result<Vec<Ranked>> {
        let pairs: Vec<(&str, &S)> = documents.iter().map(|document| (query, document)).collect();
        let scores = self.score(&pairs)?;
        let mut ranked: Vec<Ranked> =
            scores.into_iter().enumerate().map(|(index, score)| Ranked { index, score }).collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranked)
    }

    /// The score of each pair of query and document, in input order.
    ///
    /// # Errors
    /// As [`Reranker::rank`].
    pub fn score<A, B>(&self, pairs: &[(A, B)]) -> Result<Vec<f32>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        let logits = self.pipeline.sequence_logits(&self.pipeline.tokenise_pairs(pairs)?)?;
        Ok(logits.into_iter().flatten().map(|logit| self.activation.of(logit)).collect())
    }

    /// What this runs on.
    #[must_use]
    pub fn info(&self) -> &Info {
        self.pipeline.info()
    }
}

impl Load for Reranker {
    type Extra = ();

    fn load(name: &str, options: &Options, (): ()) -> Result<Self> {
        let folder = hub::find(name, options)?;
        let (path, transformer) = (folder.path(), folder.transformer());
        let (mut own, mut settings) = (ModelConfig::default(), FolderSettings::default());
        if let Some(saved) = ModelConfig::saved(path)? {
            check(&transformer, &SCORES)?;
            (own, settings) = (saved, transformer_settings(&transformer)?);
        }
        let pipeline = Pipeline::load(&transformer, options, settings, Some(Task::Rerank))?;
        let activation = Activation::read(path, own.activation_fn, pipeline.config())?;
        Ok(Self { pipeline, activation })
    }
}

/// What a logit is made into.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Activation {
    Sigmoid,
    Identity,
    Tanh,
}

/// `config_sentence_transformers.json`, as far as it changes scores.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    model_type: Option<String>,
    activation_fn: Option<String>,
    default_prompt_name: Option<String>,
}

impl ModelConfig {
    /// What sentence-transformers' own files in `folder` say, if it saved a cross-encoder there. It leaves those of another
    /// kind of model aside.
    fn saved(folder: &Path) -> Result<Option<Self>> {
        let Some(modules) = modules::read(folder)? else { return Ok(None) };
        let path = folder.join("config_sentence_transformers.json");
        let config: Self = read_optional(&path)?.unwrap_or_default();
        if config.model_type.as_deref() != Some("CrossEncoder") {
            return Ok(None);
        }
        if let Some(found) = config.default_prompt_name {
            return Err(Error::UnsupportedSetting { path, setting: "default_prompt_name", found, supported: "null" });
        }
        if modules.len() != 1 || modules[0].kind() != Some("Transformer") {
            let found = modules.iter().map(|module| module.r#type.as_str()).collect::<Vec<_>>().join(", ");
            let (setting, supported) = ("the list of modules", "one Transformer of sentence_transformers");
            return Err(Error::UnsupportedSetting { path: folder.join(MODULES), setting, found, supported });
        }
        Ok(Some(config))
    }
}

impl Activation {
    /// `own`, of sentence-transformers' own file, or the first of the places in `config.json` where its versions wrote it;
    /// without any, the sigmoid.
    fn read(folder: &Path, own: Option<String>, config: &Config) -> Result<Self> {
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let in_config = || config.raw("sentence_transformers").and_then(|section| text(section.get("activation_fn")?));
        let old = || config.raw("sbert_ce_default_activation_function").and_then(text);
        match own.or_else(in_config).or_else(old) {
            None => Ok(Self::Sigmoid),
            Some(found) => Self::named(&found).ok_or_else(|| Error::UnsupportedSetting {
                path: folder.join("config.json"),
                setting: "activation_fn",
                found,
                supported: "Sigmoid, Identity, Tanh of torch.nn",
            }),
        }
    }

    /// By the name of the class in PyTorch, with any of the modules it is found in.
    fn named(class: &str) -> Option<Self> {
        if !class.starts_with("torch.nn.") {
            return None;
        }
        match class.rsplit('.').next()? {
            "Sigmoid" => Some(Self::Sigmoid),
            "Identity" => Some(Self::Identity),
            "Tanh" => Some(Self::Tanh),
            _ => None,
        }
    }

    fn of(self, logit: f32) -> f32 {
        match self {
            Self::Sigmoid => sigmoid(logit),
            Self::Identity => logit,
            Self::Tanh => logit.tanh(),
        }
    }
}
