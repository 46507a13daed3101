//! Special and added tokens as `tokenizer_config.json` and its neighbours write them.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::AddedToken;

/// The special tokens that have a name.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_field_names)] // the files' own
pub(super) struct NamedTokens {
    pub(super) bos_token: Option<TokenEntry>,
    pub(super) eos_token: Option<TokenEntry>,
    pub(super) unk_token: Option<TokenEntry>,
    pub(super) sep_token: Option<TokenEntry>,
    pub(super) pad_token: Option<TokenEntry>,
    pub(super) cls_token: Option<TokenEntry>,
    pub(super) mask_token: Option<TokenEntry>,
}

/// Special tokens without a standard name: a list, or a map from names of the model's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ExtraTokens {
    List(Vec<TokenEntry>),
    Map(BTreeMap<String, TokenEntry>),
}

impl ExtraTokens {
    /// Those of one file and of another.
    pub(super) fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(Self::List(one.all().into_iter().chain(other.all()).cloned().collect())),
            (one, other) => one.or(other),
        }
    }

    pub(super) fn all(&self) -> Vec<&TokenEntry> {
        match self {
            Self::List(tokens) => tokens.iter().collect(),
            Self::Map(tokens) => tokens.values().collect(),
        }
    }
}

/// A token as these files write it: its text, or its text with properties.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenEntry {
    Text(String),
    Full {
        content: String,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        #[serde(default)]
        single_word: bool,
        normalized: Option<bool>,
        special: Option<bool>,
    },
}

impl TokenEntry {
    pub(super) fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Full { content, .. } => content,
        }
    }

    /// The token to add; `special` unless the entry says otherwise. Special tokens are not normalised.
    pub(super) fn added(&self, default_special: bool) -> AddedToken {
        match self {
            Self::Text(content) => AddedToken::from(content.clone(), default_special),
            Self::Full { content, lstrip, rstrip, single_word, normalized, special } => {
                let special = special.unwrap_or(default_special);
                AddedToken::from(content.clone(), special)
                    .lstrip(*lstrip)
                    .rstrip(*rstrip)
                    .single_word(*single_word)
                    .normalized(normalized.unwrap_or(!special))
            }
        }
    }
}

impl NamedTokens {
    /// The token that stands for a word to be guessed.
    pub(super) fn mask(&self) -> Option<String> {
        text(self.mask_token.as_ref())
    }

    /// The token that fills up batches.
    pub(super) fn pad(&self) -> Option<String> {
        text(self.pad_token.as_ref())
    }

    /// The token that stands for what the vocabulary cannot express.
    pub(super) fn unk(&self) -> Option<String> {
        text(self.unk_token.as_ref())
    }

    /// Makes a mask token that is given by its text alone take the spaces before it.
    pub(super) fn mask_takes_spaces(&mut self) {
        if let Some(TokenEntry::Text(content)) = &self.mask_token {
            let (content, special) = (content.clone(), Some(true));
            let (lstrip, rstrip, single_word) = (true, false, false);
            self.mask_token =
                Some(TokenEntry::Full { content, lstrip, rstrip, single_word, normalized: None, special });
        }
    }

    /// The same tokens, and `other`'s where there is none.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            unk_token: self.unk_token.or(other.unk_token),
            sep_token: self.sep_token.or(other.sep_token),
            pad_token: self.pad_token.or(other.pad_token),
            cls_token: self.cls_token.or(other.cls_token),
            mask_token: self.mask_token.or(other.mask_token),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &TokenEntry> {
        let Self { bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token } = self;
        [bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token].into_iter().flatten()
    }
}

fn text(token: Option<&TokenEntry>) -> Option<String> {
    token.map(|token| token.content().to_owned())
}

/// A token by its text alone.
#[allow(clippy::unnecessary_wraps)] // as the fields take it
pub(super) fn usual(token: &str) -> Option<TokenEntry> {
    Some(TokenEntry::Text(token.to_owned()))
}
