//! Questions answered by a part of a text: extractive question answering.
//!
//! `transformers` had this pipeline up to version 4; the rules are those of 4.57. How a long context is cut and answers
//! are picked is in `spans.rs`.

use mlxt_models::Task;

use super::load;
use super::spans::{Candidates, Cut, Piece, pieces};
use crate::options::{Builder, Load, Options};
use crate::pipeline::Pipeline;
use crate::text::TokenIds;
use crate::{Error, Info, Result};

/// Tokens of question and context together, unless said otherwise and if the model takes as many.
const MAX_LENGTH: usize = 384;
/// Tokens by which pieces of a context overlap, unless said otherwise; half the maximum length if that is less.
const STRIDE: usize = 128;
/// Tokens of an answer, unless said otherwise.
const MAX_ANSWER: usize = 15;

/// A part of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its text; empty for "there is no answer".
    pub answer: String,
    /// The probability that it starts and ends there; of a text found several times, their sum.
    pub score: f32,
    /// Where it starts in the context, in Unicode code points.
    pub start: usize,
    /// Where it ends, exclusive.
    pub end: usize,
}

/// A model that finds answers in texts.
///
/// Contexts of any length are read in pieces that overlap ([`Builder::stride`]); [`Builder::max_length`] is that of a
/// piece with its question. Loads once and may be called from several threads at once.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/bert");
/// use mlx_transformers::QuestionAnswerer;
///
/// let model = QuestionAnswerer::from_pretrained(folder)?;
/// let answers = &model.answer(&[("Was kostet das?", "The quick brown fox jumps over the lazy dog.")], 3)?[0];
/// assert!(answers.len() <= 3 && answers[0].score >= answers[1].score);
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub struct QuestionAnswerer {
    pipeline: Pipeline,
    max_length: usize,
    stride: usize,
    max_answer: usize,
    impossible: bool,
}

impl QuestionAnswerer {
    /// Loads the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`]; [`Error::Model`] if it has no such head.
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`QuestionAnswerer::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// Up to `top_k` answers to each question in its context, best first.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NoRoom`], [`Error::ZeroOption`]; texts that cannot be tokenised, results that are not
    /// finite, the device's own.
    pub fn answer<Q, C>(&self, questions: &[(Q, C)], top_k: usize) -> Result<Vec<Vec<Answer>>>
    where
        Q: AsRef<str> + Sync,
        C: AsRef<str> + Sync,
    {
        if top_k == 0 {
            return Err(Error::ZeroOption { option: "the number of answers" });
        }
        let tokenizer = self.pipeline.tokenizer();
        let cut: Vec<Vec<Piece>> = tokenizer.map(questions, |index, (question, context)| {
            let (question, context) = (question.as_ref(), context.as_ref());
            if let Some((what, _)) = [("question", question), ("context", context)].iter().find(|(_, s)| s.is_empty()) {
                return Err(Error::Empty { index, what });
            }
            let encoding = tokenizer.encoding(index, (question, context))?;
            let types = tokenizer.token_ids(&encoding).type_ids;
            let from_end = tokenizer.truncates_left();
            let cut = Cut { limit: self.max_length, stride: self.stride, from_end };
            pieces(index, &encoding, &types, cut)
        })?;
        let owners: Vec<usize> =
            cut.iter().enumerate().flat_map(|(i, pieces)| std::iter::repeat_n(i, pieces.len())).collect();
        let ids: Vec<TokenIds> = cut.iter().flatten().map(|piece| piece.ids.clone()).collect();
        let ids = self.pipeline.checked(ids);
        let logits = ids.and_then(|ids| self.pipeline.token_logits(&ids));
        let logits = logits.map_err(|error| error.replaced(|piece| owners[piece]))?;

        let mut logits = logits.iter();
        let answers = questions.iter().zip(&cut).map(|((_, context), pieces)| {
            let mut candidates = Candidates::new(context.as_ref());
            for (piece, logits) in pieces.iter().zip(&mut logits) {
                candidates.add(piece, logits, top_k, self.max_answer);
            }
            candidates.best(top_k, self.impossible)
        });
        Ok(answers.collect())
    }

    /// The most tokens of a question with a piece of its context.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// By how many tokens pieces of a context overlap.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// What this runs on.
    #[must_use]
    pub fn info(&self) -> &Info {
        self.pipeline.info()
    }
}

/// How answers are looked for.
#[derive(Debug, Default)]
pub struct AnswerExtra {
    stride: Option<usize>,
    max_answer: Option<usize>,
    impossible: bool,
}

impl Builder<QuestionAnswerer> {
    /// Tokens by which pieces of a long context overlap; 128 (at most half the maximum length) unless said otherwise.
    pub fn stride(self, tokens: usize) -> Self {
        self.extra(|extra| extra.stride = Some(tokens))
    }

    /// The most tokens of an answer; 15 unless said otherwise.
    pub fn max_answer_length(self, tokens: usize) -> Self {
        self.extra(|extra| extra.max_answer = Some(tokens))
    }

    /// Whether "there is no answer" is one, with an empty text; no unless said otherwise.
    pub fn handle_impossible_answer(self, handle: bool) -> Self {
        self.extra(|extra| extra.impossible = handle)
    }
}

impl Load for QuestionAnswerer {
    type Extra = AnswerExtra;

    fn load(name: &str, options: &Options, extra: AnswerExtra) -> Result<Self> {
        if extra.max_answer == Some(0) {
            return Err(Error::ZeroOption { option: "the length of an answer" });
        }
        // A context is cut into pieces; nothing of it may be lost before.
        let pipeline = load(name, &Options { truncate: false, ..options.clone() }, Task::Answer)?;
        let limit = pipeline.limit();
        let max_length = if options.max_length.is_some() { limit } else { limit.min(MAX_LENGTH) };
        Ok(Self {
            pipeline,
            max_length,
            stride: extra.stride.unwrap_or(STRIDE.min(max_length / 2)),
            max_answer: extra.max_answer.unwrap_or(MAX_ANSWER),
            impossible: extra.impossible,
        })
    }
}
