//! Sequences, or pairs of them, classified.

use mlxt_models::{Problem, Task};

use super::{load, sigmoid, softmax};
use crate::options::{Builder, Load, Options};
use crate::pipeline::Pipeline;
use crate::text::{AutoTokenizer, TokenIds};
use crate::{Info, Result};

/// A label and how well it fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The label.
    pub label: String,
    /// Its score: a probability, or for a regression the number itself.
    pub score: f32,
}

/// A model that gives texts scores for the labels it was trained with.
///
/// Scores are a softmax over the labels, or sigmoids where each label stands for itself (`problem_type`, or a single
/// label), or the numbers as they are for a regression. Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/bert");
/// use mlx_transformers::TextClassifier;
///
/// let model = TextClassifier::from_pretrained(folder)?;
/// let labels = &model.classify(&["the lazy dog sleeps"])?[0];
/// assert_eq!(labels.len(), model.labels().len());
/// println!("{} {:.3}", labels[0].label, labels[0].score);
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct TextClassifier {
    pipeline: Pipeline,
    labels: Vec<String>,
    problem: Problem,
}

impl TextClassifier {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`crate::Error::Model`] if it has no such head.
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`TextClassifier::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// All labels for each text, best first.
    ///
    /// # Errors
    /// Texts that cannot be tokenised or are too long, results that are not finite, the device's own.
    pub fn classify<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<Scored>>> {
        self.scored(&self.pipeline.tokenise(texts)?)
    }

    /// All labels for each pair of texts, best first. An empty second text makes a pair too.
    ///
    /// # Errors
    /// As [`TextClassifier::classify`].
    pub fn classify_pairs<A, B>(&self, pairs: &[(A, B)]) -> Result<Vec<Vec<Scored>>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        self.scored(&self.pipeline.tokenise_pairs(pairs)?)
    }

    /// The labels, in the order of the model's outputs.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
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

    fn scored(&self, ids: &[TokenIds]) -> Result<Vec<Vec<Scored>>> {
        let logits = self.pipeline.sequence_logits(ids)?;
        let scores = logits.into_iter().map(|logits| match self.problem {
            Problem::SingleLabel => softmax(&logits),
            Problem::MultiLabel => logits.into_iter().map(sigmoid).collect(),
            Problem::Regression => logits,
        });
        Ok(scores.map(|scores| best_first(&self.labels, &scores)).collect())
    }
}

impl Load for TextClassifier {
    type Extra = ();

    fn load(name: &str, options: &Options, (): ()) -> Result<Self> {
        let pipeline = load(name, options, Task::Classify)?;
        let (labels, problem) = (pipeline.config().labels()?, pipeline.config().problem()?);
        Ok(Self { pipeline, labels, problem })
    }
}

/// Labels with their scores, best first; equal ones in their order.
pub(super) fn best_first<S: AsRef<str>>(labels: &[S], scores: &[f32]) -> Vec<Scored> {
    let scored = |(label, &score): (&S, &f32)| Scored { label: label.as_ref().to_owned(), score };
    let mut all: Vec<Scored> = labels.iter().zip(scores).map(scored).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}
