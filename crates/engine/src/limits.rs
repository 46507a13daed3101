//! How many tokens a text may have, and what happens to one that has more.

use crate::text::{AutoTokenizer, TokenIds};
use crate::{Error, Result};

/// The numbers a model's files give.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Positions the model has embeddings for. Nothing goes beyond these.
    pub(crate) positions: usize,
    /// `model_max_length` of the tokenizer, where it says something.
    pub(crate) tokenizer: Option<usize>,
    /// `max_seq_length` of a sentence-transformers folder.
    pub(crate) sentence: Option<usize>,
    /// Special tokens of every text.
    pub(crate) special: usize,
}

impl Limits {
    /// Those of a model of `positions` with its tokenizer and folder.
    pub(crate) fn new(positions: usize, tokenizer: &AutoTokenizer, sentence: Option<usize>) -> Self {
        let (recommended, special) = (tokenizer.model_max_length(), tokenizer.special_tokens());
        Self { positions, tokenizer: recommended, sentence, special }
    }

    /// The most tokens of one text; `asked` goes before what the files recommend.
    ///
    /// # Errors
    /// [`Error::MaxLength`] if `asked` is more than the model has positions, or leaves no room for the special tokens.
    pub(crate) fn choose(&self, asked: Option<usize>) -> Result<usize> {
        let least = self.special.max(1);
        match asked {
            Some(asked) if asked < least || asked > self.positions => {
                Err(Error::MaxLength { asked, least, positions: self.positions })
            }
            Some(asked) => Ok(asked),
            None => Ok(self.sentence.or(self.tokenizer).map_or(self.positions, |limit| limit.min(self.positions))),
        }
    }
}

/// That every text has at least one token, none more than `limit`, and none outside `vocabulary`.
///
/// # Errors
/// [`Error::NoTokens`], [`Error::TooLong`] or [`Error::ForeignToken`], naming the first that breaks the rule.
pub(crate) fn check(texts: &[TokenIds], limit: usize, vocabulary: usize) -> Result<()> {
    for (index, text) in texts.iter().enumerate() {
        let tokens = text.ids.len();
        if tokens == 0 {
            return Err(Error::NoTokens { index });
        }
        if tokens > limit {
            return Err(Error::TooLong { index, tokens, limit });
        }
        if let Some(&id) = text.ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::ForeignToken { index, id, vocabulary });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINILM: Limits = Limits { positions: 512, tokenizer: Some(400), sentence: Some(256), special: 2 };

    #[test]
    fn the_folders_number_goes_before_the_tokenizers_and_none_beyond_the_positions() {
        assert_eq!(MINILM.choose(None).unwrap(), 256);
        // As sentence-transformers has it, which gives the tokenizer the folder's number.
        assert_eq!(Limits { sentence: Some(450), ..MINILM }.choose(None).unwrap(), 450);
        assert_eq!(Limits { sentence: Some(900), ..MINILM }.choose(None).unwrap(), 512);
        assert_eq!(Limits { sentence: None, ..MINILM }.choose(None).unwrap(), 400);
        assert_eq!(Limits { sentence: None, tokenizer: None, ..MINILM }.choose(None).unwrap(), 512);
    }

    #[test]
    fn a_wish_goes_before_the_files_but_not_beyond_the_positions() {
        for asked in [2, 100, 512] {
            assert_eq!(MINILM.choose(Some(asked)).unwrap(), asked);
        }
        for asked in [0, 1, 513] {
            let error = MINILM.choose(Some(asked)).unwrap_err();
            assert!(matches!(error, Error::MaxLength { least: 2, positions: 512, .. }), "{error}");
        }
    }

    #[test]
    fn the_first_text_that_breaks_the_rule_is_named() {
        let text = |n| TokenIds { ids: vec![1; n], type_ids: vec![0; n] };
        assert!(check(&[text(3), text(1)], 3, 2).is_ok());
        let error = check(&[text(3), text(5), text(4)], 3, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "text 1 has 5 tokens and the limit is 3: shorten or split it, or allow it to be cut (truncate)"
        );
        assert!(matches!(check(&[text(1), text(0)], 3, 2), Err(Error::NoTokens { index: 1 })));
        assert!(matches!(check(&[text(1)], 3, 1), Err(Error::ForeignToken { index: 0, id: 1, vocabulary: 1 })));
    }
}
