//! `tokenizer.json` from bytes, without the panics that the `tokenizers` library has for some damaged files.
//!
//! Three kinds of damage are looked for: a file cut short (the library panics if the cut is within the decoder), a template
//! that names a special token it does not define (it panics at the first text) and a compiled normaliser that leads
//! outside itself (it panics at some text). What else there may be is caught, at loading and at a first trial, and becomes
//! an error as well.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Result, Tokenizer};

use super::charsmap;

/// The parts that are looked at before the library does. Reading all of it takes 1 ms for 500 kB.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    post_processor: Value,
    /// As a value, so that nesting too deep for the library is found here.
    #[serde(default, rename = "decoder")]
    _decoder: Value,
}

/// A normaliser, as far as it is a compiled one of SentencePiece or a list of some.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Normalizer {
    normalizers: Vec<Normalizer>,
    precompiled_charsmap: Option<String>,
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
    // What does not look like one is the library's to judge.
    if let Ok(normalizer) = Normalizer::deserialize(&outline.normalizer) {
        normalizer.check()?;
    }
    guarded(|| Tokenizer::from_bytes(bytes))
}

/// What `build` makes, tried out; where the library panics, an error.
pub(super) fn guarded(build: impl FnOnce() -> Result<Tokenizer>) -> Result<Tokenizer> {
    caught(|| {
        let tokenizer = build()?;
        tokenizer.encode_fast("", true)?;
        tokenizer.encode_fast(("", ""), true)?;
        Ok(tokenizer)
    })
}

/// What `work` gives; where the library panics, an error. What that leaves half done is never used again: a tokenizer
/// that loads is not changed by its texts, but for a cache that holds whole words only.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let attempt = catch_unwind(AssertUnwindSafe(work));
    attempt.unwrap_or_else(|_| Err("the tokenizers library cannot cope with it".into()))
}

impl Normalizer {
    fn check(&self) -> Result<()> {
        if let Some(text) = &self.precompiled_charsmap {
            charsmap::check(&BASE64_STANDARD.decode(text)?)?;
        }
        self.normalizers.iter().try_for_each(Self::check)
    }
}

impl Template {
    fn undefined(&self) -> Option<String> {
        let pieces = self.single.iter().chain(&self.pair).filter_map(|piece| piece.special.as_ref());
        let mut missing = pieces.filter(|named| !self.special_tokens.contains_key(&named.id));
        missing.next().map(|named| named.id.clone()).or_else(|| self.processors.iter().find_map(Self::undefined))
    }
}
