//! Labelled tokens joined to words and entities, by the rules of the token classification pipeline of `transformers`.

use super::argmax;
use crate::text::AutoTokenizer;
use crate::{Aggregation, Entity, Result};

/// A token with its scores.
pub(super) struct Token {
    word: String,
    scores: Vec<f32>,
    start: usize,
    end: usize,
    index: usize,
    /// Whether it continues the word before it.
    continues: bool,
}

/// What the rules need to know of a model.
pub(super) struct Words<'a> {
    pub(super) tokenizer: &'a AutoTokenizer,
    pub(super) labels: &'a [String],
}

impl Words<'_> {
    /// Token `index` of a text, which stands at `start..end` of its characters.
    pub(super) fn token(
        &self,
        text: &[char],
        index: usize,
        id: u32,
        (start, end): (usize, usize),
        scores: Vec<f32>,
    ) -> Token {
        let written: String = text[start.min(text.len())..end.min(text.len())].iter().collect();
        if self.tokenizer.unk_token().and_then(|unk| self.tokenizer.token_to_id(unk)) == Some(id) {
            return Token { word: written, scores, start, end, index, continues: false };
        }
        let word = self.tokenizer.id_to_token(id).unwrap_or_default();
        let continues = if self.tokenizer.marks_subwords() {
            // The mark makes the token longer than what it stands for.
            word.chars().count() != written.chars().count()
        } else {
            // Without a mark, a space before or at the token's start tells.
            start > 0 && !text[start - 1..text.len().min(start + 1)].contains(&' ')
        };
        Token { word, scores, start, end, index, continues }
    }

    /// The entities of a text's tokens, those of ignored labels too.
    pub(super) fn entities(&self, tokens: &[Token], aggregation: Aggregation) -> Result<Vec<Entity>> {
        match aggregation {
            Aggregation::None => Ok(tokens.iter().map(|token| self.single(token)).collect()),
            Aggregation::Simple => self.groups(&tokens.iter().map(|token| self.single(token)).collect::<Vec<_>>()),
            Aggregation::First | Aggregation::Average | Aggregation::Max => {
                let words = tokens.chunk_by(|_, next| next.continues);
                self.groups(&words.map(|word| self.word(word, aggregation)).collect::<Result<Vec<_>>>()?)
            }
        }
    }

    fn single(&self, token: &Token) -> Entity {
        let best = argmax(&token.scores);
        Entity {
            label: self.labels[best].clone(),
            score: token.scores[best],
            word: token.word.clone(),
            start: token.start,
            end: token.end,
            index: Some(token.index),
        }
    }

    /// The tokens of one word made one; there is at least one.
    fn word(&self, tokens: &[Token], aggregation: Aggregation) -> Result<Entity> {
        let scores = match aggregation {
            Aggregation::Average => mean(tokens),
            Aggregation::Max => {
                let best: Vec<f32> = tokens.iter().map(|token| token.scores[argmax(&token.scores)]).collect();
                tokens[argmax(&best)].scores.clone()
            }
            _ => tokens[0].scores.clone(),
        };
        let best = argmax(&scores);
        let written: Vec<&str> = tokens.iter().map(|token| token.word.as_str()).collect();
        Ok(Entity {
            label: self.labels[best].clone(),
            score: scores[best],
            word: self.tokenizer.join(&written)?,
            start: tokens[0].start,
            end: tokens[tokens.len() - 1].end,
            index: None,
        })
    }

    /// Neighbours of one kind made one.
    fn groups(&self, entities: &[Entity]) -> Result<Vec<Entity>> {
        let same = |last: &Entity, next: &Entity| {
            let (begins, kind) = kind(&next.label);
            !begins && kind == self::kind(&last.label).1
        };
        entities.chunk_by(same).map(|group| self.group(group)).collect()
    }

    fn group(&self, parts: &[Entity]) -> Result<Entity> {
        let written: Vec<&str> = parts.iter().map(|part| part.word.as_str()).collect();
        let label = &parts[0].label;
        let sum: f64 = parts.iter().map(|part| f64::from(part.score)).sum();
        Ok(Entity {
            // Whatever stands before the first dash, unlike in `kind`.
            label: label.split_once('-').map_or(label.as_str(), |(_, kind)| kind).to_owned(),
            score: (sum / parts.len() as f64) as f32,
            word: self.tokenizer.join(&written)?,
            start: parts[0].start,
            end: parts[parts.len() - 1].end,
            index: None,
        })
    }
}

/// Whether a label begins an entity, and what kind it is of: `B-PER`, `I-PER`. Other labels continue.
fn kind(label: &str) -> (bool, &str) {
    match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
        (Some(kind), _) => (true, kind),
        (None, Some(kind)) => (false, kind),
        (None, None) => (false, label),
    }
}

/// The mean of each label's scores.
fn mean(tokens: &[Token]) -> Vec<f32> {
    let labels = tokens.first().map_or(0, |token| token.scores.len());
    let sum = |label: usize| tokens.iter().map(|token| f64::from(token.scores[label])).sum::<f64>();
    (0..labels).map(|label| (sum(label) / tokens.len() as f64) as f32).collect()
}
