//! `tokenizer.json` from bytes, without the panics that the `tokenizers` library has for some damaged files.
//!
//! Two kinds of damage are common enough to be looked for: a file cut short (the library panics if the cut is within the
//! decoder) and a template that names a special token it does not define (it panics at the first text). What else there
//! may be is caught, at loading and at a first trial, and becomes an error as well.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Result, Tokenizer};

/// The parts that are looked at before the library does. Reading all of it takes 1 ms for 500 kB.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    post_processor: Value,
    /// As a value, so that nesting too deep for the library is found here.
    #[serde(default, rename = "decoder")]
    _decoder: Value,
}

/// A post-processor, as far as it is a template or a list of some.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Template {
    processors: Vec<Template>,
    single: Vec<Piece>,
    pair: Vec<Piece>,
    special_tokens: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "SpecialToken")]
    special: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

/// Reads a `tokenizer.json`.
///
/// # Errors
/// The library's, and in words where it would have panicked.
pub(super) fn parse(bytes: &[u8]) -> Result<Tokenizer> {
    let outline: Outline = serde_json::from_slice(bytes)?;
    // What does not look like a template is the library's to judge.
    if let Some(id) = Template::deserialize(&outline.post_processor).ok().and_then(|t| t.undefined()) {
        return Err(format!("its template names the special token {id:?} and does not define it").into());
    }
    let attempt = catch_unwind(|| {
        let tokenizer = Tokenizer::from_bytes(bytes)?;
        tokenizer.encode_fast("", true)?;
        tokenizer.encode_fast(("", ""), true)?;
        Ok(tokenizer)
    });
    attempt.unwrap_or_else(|_| Err("the tokenizers library cannot cope with it".into()))
}

impl Template {
    fn undefined(&self) -> Option<String> {
        let pieces = self.single.iter().chain(&self.pair).filter_map(|piece| piece.special.as_ref());
        let mut missing = pieces.filter(|named| !self.special_tokens.contains_key(&named.id));
        missing.next().map(|named| named.id.clone()).or_else(|| self.processors.iter().find_map(Self::undefined))
    }
}
