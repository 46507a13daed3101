//! Tokens to text, as `transformers` decodes.

use tokenizers::{Decoder, ModelWrapper};

use super::parse::caught;
use super::{AutoTokenizer, unusable};
use crate::Result;

/// What `clean_up_tokenization_spaces` replaces, in this order.
const CLEANED: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

impl AutoTokenizer {
    /// The text of `ids`, with or without special tokens. Ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let text = caught(|| self.inner.decode(ids, skip_special_tokens)).map_err(unusable)?;
        // Never for BPE, whose tokens hold their spaces.
        if self.cleans_up && !matches!(self.inner.get_model(), ModelWrapper::BPE(_)) {
            return Ok(CLEANED.iter().fold(text, |text, (from, to)| text.replace(from, to)));
        }
        Ok(text)
    }

    /// The token that fills up batches.
    #[must_use]
    pub fn pad_token(&self) -> Option<&str> {
        self.pad_token.as_deref()
    }

    /// The token that stands for what the vocabulary cannot express.
    #[must_use]
    pub fn unk_token(&self) -> Option<&str> {
        self.unk_token.as_deref()
    }

    /// Some of a text's tokens as text, spaces between words included.
    pub(crate) fn join(&self, tokens: &[&str]) -> Result<String> {
        match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens.iter().map(|&token| token.to_owned()).collect()).map_err(unusable),
            None => Ok(tokens.join(" ")),
        }
    }

    /// Whether tokens tell by a prefix (`##`) that they continue a word.
    pub(crate) fn marks_subwords(&self) -> bool {
        match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
            ModelWrapper::BPE(model) => {
                model.get_continuing_subword_prefix().as_ref().is_some_and(|prefix| !prefix.is_empty())
            }
            ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => false,
        }
    }
}
