//! Tokens classified: named entities, parts of speech.
//!
//! How tokens become words and entities is in `words.rs`.

use std::fmt;
use std::str::FromStr;

use mlxt_models::Task;

use super::words::{Token, Words};
use super::{load, softmax};
use crate::options::{Builder, Load, Options};
use crate::pipeline::Pipeline;
use crate::text::AutoTokenizer;
use crate::{Error, Info, Result};

/// How tokens become entities. Reads and prints as the command line spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Aggregation {
    /// `none`: each token for itself.
    None,
    /// `simple`: neighbouring tokens of one label become one entity; a label `B-..` begins another.
    #[default]
    Simple,
    /// `first`: as simple, with words as units, which have their first token's label.
    First,
    /// `average`: words have the label of the highest average score.
    Average,
    /// `max`: words have the label of their token with the highest score.
    Max,
}

impl Aggregation {
    /// Every aggregation, with its name.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::None, "none"),
        (Self::Simple, "simple"),
        (Self::First, "first"),
        (Self::Average, "average"),
        (Self::Max, "max"),
    ];
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl FromStr for Aggregation {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|(_, name)| *name == s);
        known.map(|(aggregation, _)| aggregation).ok_or_else(|| Error::UnknownAggregation { found: s.to_owned() })
    }
}

/// A token, or neighbouring ones, of one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// The label; without `B-` and `I-` where tokens were joined.
    pub label: String,
    /// Its probability; of joined tokens or words, their mean.
    pub score: f32,
    /// The tokens as the vocabulary writes them or, joined, as text.
    pub word: String,
    /// Where it starts in the text, in Unicode code points.
    pub start: usize,
    /// Where it ends, exclusive.
    pub end: usize,
    /// The token's place, special tokens counted; `None` where tokens were joined.
    pub index: Option<usize>,
}

/// A model that labels the tokens of a text.
///
/// Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/bert");
/// use mlx_transformers::{Aggregation, TokenClassifier};
///
/// let model = TokenClassifier::from_pretrained(folder)?;
/// for entity in &model.tag(&["the quick brown fox"], Aggregation::Simple)?[0] {
///     println!("{} {:.3} {}..{} {}", entity.label, entity.score, entity.start, entity.end, entity.word);
/// }
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct TokenClassifier {
    pipeline: Pipeline,
    labels: Vec<String>,
    ignored: Vec<String>,
}

impl TokenClassifier {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`Error::Model`] if it has no such head.
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`TokenClassifier::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// The entities of each text, in the order of the text. Special tokens are none.
    ///
    /// # Errors
    /// Texts that cannot be tokenised or are too long, results that are not finite, the device's own.
    pub fn tag<S: AsRef<str> + Sync>(&self, texts: &[S], aggregation: Aggregation) -> Result<Vec<Vec<Entity>>> {
        let tokenizer = self.pipeline.tokenizer();
        let encodings = tokenizer.map(texts, |index, text| tokenizer.encoding(index, text.as_ref()))?;
        let ids = self.pipeline.checked(encodings.iter().map(|encoding| tokenizer.token_ids(encoding)).collect())?;
        let logits = self.pipeline.token_logits(&ids)?;
        tokenizer.map(texts, |place, text| {
            let scores = logits[place].iter().map(softmax).collect();
            self.entities(text.as_ref(), &encodings[place], scores, aggregation)
        })
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

    fn entities(
        &self,
        text: &str,
        encoding: &tokenizers::Encoding,
        scores: Vec<Vec<f32>>,
        aggregation: Aggregation,
    ) -> Result<Vec<Entity>> {
        let words = Words { tokenizer: self.pipeline.tokenizer(), labels: &self.labels };
        let characters: Vec<char> = text.chars().collect();
        let special = encoding.get_special_tokens_mask();
        let offsets = encoding.get_offsets();
        let tokens = scores.into_iter().enumerate().filter(|&(index, _)| special[index] == 0);
        let tokens: Vec<Token> = tokens
            .map(|(index, scores)| words.token(&characters, index, encoding.get_ids()[index], offsets[index], scores))
            .collect();
        let mut entities = words.entities(&tokens, aggregation)?;
        entities.retain(|entity| !self.ignored.contains(&entity.label));
        Ok(entities)
    }
}

/// What is left out.
#[derive(Debug)]
pub struct TagExtra {
    ignored: Vec<String>,
}

impl Default for TagExtra {
    fn default() -> Self {
        Self { ignored: vec!["O".to_owned()] }
    }
}

impl Builder<TokenClassifier> {
    /// Labels that are no entities; `O` unless said otherwise.
    pub fn ignore_labels<S: Into<String>>(self, labels: impl IntoIterator<Item = S>) -> Self {
        let ignored = labels.into_iter().map(Into::into).collect();
        self.extra(|extra| extra.ignored = ignored)
    }
}

impl Load for TokenClassifier {
    type Extra = TagExtra;

    fn load(name: &str, options: &Options, extra: TagExtra) -> Result<Self> {
        let pipeline = load(name, options, Task::TokenClassify)?;
        let labels = pipeline.config().labels()?;
        Ok(Self { pipeline, labels, ignored: extra.ignored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregations_read_back_from_their_names() {
        for (aggregation, name) in Aggregation::ALL {
            assert_eq!((aggregation.to_string().as_str(), name.parse::<Aggregation>().unwrap()), (name, aggregation));
        }
        assert!(matches!("Simple".parse::<Aggregation>(), Err(Error::UnknownAggregation { .. })));
    }
}
