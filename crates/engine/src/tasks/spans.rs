//! Long contexts cut into pieces, and the best answers picked from the logits of all of them.

use super::softmax;
use crate::session::Rows;
use crate::text::TokenIds;
use crate::{Answer, Error, Result};

/// The logit of a token where no answer may start or end.
const MASKED: f32 = -10_000.0;

/// A question with a part of its context, as a model reads it.
pub(super) struct Piece {
    pub(super) ids: TokenIds,
    /// Where each token stands, in code points of its own text.
    offsets: Vec<(usize, usize)>,
    /// The word each token belongs to, counted in its own text.
    words: Vec<Option<u32>>,
    /// Which tokens are the context's.
    context: std::ops::Range<usize>,
    /// Whether an answer may start or end at a token. Models without an answer point to the first token.
    allowed: Vec<bool>,
}

/// How a context is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// The most tokens of a piece, the question's included.
    pub(super) limit: usize,
    /// By how many tokens pieces overlap.
    pub(super) stride: usize,
    /// Whether the first piece is the last of the context, and each further one lies before it.
    pub(super) from_end: bool,
}

/// Cuts the encoding of a question and its context into pieces that overlap.
///
/// # Errors
/// [`Error::NoRoom`] if there is more than one, and they would not get on.
pub(super) fn pieces(index: usize, encoding: &tokenizers::Encoding, types: &[u32], cut: Cut) -> Result<Vec<Piece>> {
    let Cut { limit, stride, from_end } = cut;
    let sequences = encoding.get_sequence_ids();
    let is_context = |sequence: &Option<usize>| *sequence == Some(1);
    let start = sequences.iter().position(is_context).unwrap_or(sequences.len());
    let end = sequences.iter().rposition(is_context).map_or(start, |last| last + 1);
    let (others, length) = (sequences.len() - (end - start), end - start);
    let room = limit.saturating_sub(others);
    let parts = if sequences.len() <= limit {
        vec![(start, end)]
    } else if room > stride {
        let steps = (0..length).step_by(room - stride);
        let last = steps.clone().position(|at| at + room >= length).unwrap_or(0);
        let parts = steps.take(last + 1).map(|at| (at, length.min(at + room)));
        let place = |(from, to)| if from_end { (end - to, end - from) } else { (start + from, start + to) };
        parts.map(place).collect()
    } else {
        return Err(Error::NoRoom { index, tokens: others, limit, stride });
    };
    let piece = |(first, stop): (usize, usize)| {
        fn cut<T: Clone>(all: &[T], parts: [std::ops::Range<usize>; 3]) -> Vec<T> {
            parts.into_iter().flat_map(|part| all[part].iter().cloned()).collect()
        }
        let kept = [0..start, first..stop, end..sequences.len()];
        let ids = cut(encoding.get_ids(), kept.clone());
        let context = start..start + (stop - first);
        // A beginning token within the question counts too, as in `transformers`.
        let beginning = ids.first().copied();
        let allowed = (0..ids.len()).map(|i| context.contains(&i) || Some(ids[i]) == beginning).collect();
        Piece {
            ids: TokenIds { type_ids: cut(types, kept.clone()), ids },
            offsets: cut(encoding.get_offsets(), kept.clone()),
            words: cut(encoding.get_word_ids(), kept),
            context,
            allowed,
        }
    };
    Ok(parts.into_iter().map(piece).collect())
}

impl Piece {
    /// Where an answer from token `first` to token `last` stands in the context, widened to whole words where the
    /// tokenizer knows them.
    fn span(&self, first: usize, last: usize) -> (usize, usize) {
        let of_word = |word: Option<u32>| {
            let mut tokens = self.context.clone().filter(|&i| word.is_some() && self.words[i] == word);
            let first = tokens.next()?;
            Some((first, tokens.next_back().unwrap_or(first)))
        };
        match (of_word(self.words[first]), of_word(self.words[last])) {
            (Some((first, _)), Some((_, last))) => (self.offsets[first].0, self.offsets[last].1),
            _ => (self.offsets[first].0, self.offsets[last].1),
        }
    }
}

/// Answers of all pieces of one context.
pub(super) struct Candidates {
    context: Vec<char>,
    answers: Vec<Answer>,
    /// The lowest probability among the pieces that there is no answer.
    no_answer: f32,
}

impl Candidates {
    pub(super) fn new(context: &str) -> Self {
        Self { context: context.chars().collect(), answers: Vec::new(), no_answer: f32::INFINITY }
    }

    /// Adds the best answers of a piece, from its logits, `[tokens, 2]`.
    pub(super) fn add(&mut self, piece: &Piece, logits: &Rows, top_k: usize, max_answer: usize) {
        let [mut starts, mut ends] = [0, 1].map(|column| {
            let masked = |(row, &allowed): (&[f32], &bool)| if allowed { row[column] } else { MASKED };
            softmax(&logits.iter().zip(&piece.allowed).map(masked).collect::<Vec<f32>>())
        });
        self.no_answer = self.no_answer.min(starts[0] * ends[0]);
        (starts[0], ends[0]) = (0.0, 0.0);

        let allowed: Vec<usize> = (0..starts.len()).filter(|&i| piece.allowed[i]).collect();
        let mut spans: Vec<(usize, usize, f32)> = Vec::new();
        for (i, &first) in allowed.iter().enumerate() {
            let lasts = allowed[i..].iter().take_while(|&&last| last < first + max_answer);
            spans.extend(lasts.map(|&last| (first, last, starts[first] * ends[last])));
        }
        spans.sort_by(|a, b| b.2.total_cmp(&a.2));
        // More than asked for, since several may be one when they are widened to words.
        for &(first, last, score) in spans.iter().take(2 * top_k + 10) {
            self.join(piece.span(first, last), score);
        }
    }

    /// The `top_k` best answers, best first.
    pub(super) fn best(mut self, top_k: usize, impossible: bool) -> Vec<Answer> {
        if impossible {
            self.answers.push(Answer { answer: String::new(), score: self.no_answer, start: 0, end: 0 });
        }
        self.answers.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.answers.truncate(top_k);
        self.answers
    }

    /// Adds an answer, or its score to that of one with the same text in any case.
    fn join(&mut self, (start, end): (usize, usize), score: f32) {
        let text: String = self.context.get(start..end).unwrap_or_default().iter().collect();
        let lower = text.to_lowercase();
        match self.answers.iter_mut().find(|known| known.answer.to_lowercase() == lower) {
            Some(known) => known.score += score,
            None => self.answers.push(Answer { answer: text, score, start, end }),
        }
    }
}
