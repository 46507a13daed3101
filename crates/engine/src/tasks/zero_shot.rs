//! Texts classified by labels that the model has never seen: a label fits if a sentence with it follows from the text.

use mlxt_models::Task;

use super::classify::best_first;
use super::{load, softmax};
use crate::options::{Builder, Load, Options};
use crate::pipeline::Pipeline;
use crate::{Error, Info, Result, Scored};

/// The sentence of `transformers`.
const TEMPLATE: &str = "This example is {}.";

/// A model for natural language inference as a classifier for any labels.
///
/// Unless [`Builder::multi_label`] says otherwise, exactly one of the labels is right: scores are a softmax of how much
/// each follows. Otherwise (or with a single label) each is weighed against its contradiction. Loads once and may be
/// called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/bert-nli");
/// use mlx_transformers::ZeroShotClassifier;
///
/// let model = ZeroShotClassifier::from_pretrained(folder)?;
/// let labels = &model.classify(&["The cat sleeps."], &["animals", "weather"])?[0];
/// assert_eq!(labels.len(), 2);
/// assert!(labels[0].score >= labels[1].score);
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct ZeroShotClassifier {
    pipeline: Pipeline,
    entailment: usize,
    contradiction: usize,
    template: (String, String),
    multi_label: bool,
}

impl ZeroShotClassifier {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`Error::Model`] if it is no classifier with a label `entailment`.
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`ZeroShotClassifier::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// All `labels` for each text, best first.
    ///
    /// If too long texts are cut, the sentence with the label never is.
    ///
    /// # Errors
    /// [`Error::NoLabels`], [`Error::NoRoomForText`]; texts that cannot be tokenised or are too long, results that are not finite, the device's own.
    pub fn classify<S, L>(&self, texts: &[S], labels: &[L]) -> Result<Vec<Vec<Scored>>>
    where
        S: AsRef<str> + Sync,
        L: AsRef<str>,
    {
        if labels.is_empty() {
            return Err(Error::NoLabels);
        }
        let (before, after) = &self.template;
        let sentences: Vec<String> = labels.iter().map(|label| format!("{before}{}{after}", label.as_ref())).collect();
        let pairs: Vec<(&str, &str)> =
            texts.iter().flat_map(|text| sentences.iter().map(|sentence| (text.as_ref(), sentence.as_str()))).collect();
        let ids = self.pipeline.tokenise_pairs(&pairs);
        let logits = ids.and_then(|ids| self.pipeline.sequence_logits(&ids));
        let logits = logits.map_err(|error| error.replaced(|pair| pair / labels.len()))?;
        Ok(logits.chunks_exact(labels.len()).map(|logits| best_first(labels, &self.scores(logits))).collect())
    }

    /// What this runs on.
    #[must_use]
    pub fn info(&self) -> &Info {
        self.pipeline.info()
    }

    /// A score for each label of one text.
    fn scores(&self, logits: &[Vec<f32>]) -> Vec<f32> {
        if self.multi_label || logits.len() == 1 {
            let against = |logits: &Vec<f32>| softmax(&[logits[self.contradiction], logits[self.entailment]])[1];
            return logits.iter().map(against).collect();
        }
        let follows: Vec<f32> = logits.iter().map(|logits| logits[self.entailment]).collect();
        softmax(&follows)
    }
}

/// How labels are asked for.
#[derive(Debug, Default)]
pub struct ZeroShotExtra {
    template: Option<String>,
    multi_label: bool,
}

impl Builder<ZeroShotClassifier> {
    /// The sentence made of a label, which goes in the place of `{}`; `This example is {}.` unless said otherwise.
    pub fn template(self, template: impl Into<String>) -> Self {
        let template = template.into();
        self.extra(|extra| extra.template = Some(template))
    }

    /// Whether several labels may be right, so that each is judged for itself; no unless said otherwise.
    pub fn multi_label(self, multi_label: bool) -> Self {
        self.extra(|extra| extra.multi_label = multi_label)
    }
}

impl Load for ZeroShotClassifier {
    type Extra = ZeroShotExtra;

    fn load(name: &str, options: &Options, extra: ZeroShotExtra) -> Result<Self> {
        let found = extra.template.unwrap_or_else(|| TEMPLATE.to_owned());
        let template = match found.split_once("{}") {
            Some((before, after)) if !after.contains("{}") => (before.to_owned(), after.to_owned()),
            _ => return Err(Error::Template { found }),
        };
        let mut pipeline = load(name, options, Task::ZeroShot)?;
        if options.truncate {
            pipeline.truncate_first()?;
        }
        let missing = mlxt_models::Error::NoSuchTask { asked: Task::ZeroShot, can: vec![Task::Classify] };
        let entailment = pipeline.config().entailment().ok_or(missing)?;
        // As `transformers` has it: the first label, or the last where the first is the entailment.
        let contradiction = if entailment == 0 { pipeline.config().labels()?.len() - 1 } else { 0 };
        Ok(Self { pipeline, entailment, contradiction, template, multi_label: extra.multi_label })
    }
}
