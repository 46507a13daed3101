//! Tokenizers over pieces of SentencePiece, as `transformers` 5 builds those of XLM-RoBERTa, CamemBERT and DeBERTa-v2:
//! from the model's own file where there is no `tokenizer.json`, and anew from the pieces in that file where there is.
//!
//! Each class normalises and splits in its own way, whatever the file says, and has tokens of its own beside the pieces.

use std::path::{Path, PathBuf};

use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Precompiled, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as Splits;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::charsmap;
use super::config::TokenizerConfig;
use super::parse::guarded;
use super::sentencepiece::{Kind, Model, Piece};
use super::vocabulary::{read, template};
use crate::{Error, Result};

/// How SentencePiece writes a space.
const SPACE: char = '▁';

/// A class that has pieces of SentencePiece.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Class {
    XlmRoberta,
    Camembert,
    DebertaV2,
}

/// Settings of `tokenizer_config.json` that these classes heed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) prefix_space: bool,
    pub(super) lowercase: bool,
    pub(super) split_punctuation: bool,
}

impl Class {
    /// The file of a model that `save_pretrained` wrote before there was `tokenizer.json`.
    fn file(self) -> &'static str {
        match self {
            Self::XlmRoberta | Self::Camembert => "sentencepiece.bpe.model",
            Self::DebertaV2 => "spm.model",
        }
    }

    /// The vocabulary in the order of ids, and the id of the unknown token.
    fn vocabulary(self, model: Model, config: &TokenizerConfig) -> (Vec<(String, f64)>, usize) {
        let special = |role: &str| (config.special(role).to_owned(), 0.0);
        let named = |text: &str, score: f64| (text.to_owned(), score);
        // fairseq, where both models were trained, counts its own four tokens before the pieces.
        let (front, skipped, back) = match self {
            Self::XlmRoberta => (["bos", "pad", "eos", "unk"].map(special).to_vec(), 3, Some(special("mask"))),
            Self::Camembert => {
                let not_used = [named("<s>NOTUSED", 0.0), special("pad"), named("</s>NOTUSED", 0.0)];
                let unknown = [special("unk"), named("<unk>NOTUSED", -100.0)];
                ([&not_used[..], &unknown].concat(), 1, Some(special("mask")))
            }
            Self::DebertaV2 => (Vec::new(), 0, None),
        };
        let pieces = model.pieces.into_iter().skip(skipped).map(|piece| (piece.text, f64::from(piece.score)));
        let vocabulary: Vec<_> = front.into_iter().chain(pieces).chain(back).collect();
        let unknown = vocabulary.iter().position(|entry| *entry == special("unk"));
        (vocabulary, unknown.unwrap_or(model.unknown))
    }

    /// Gives `tokenizer` the class's way to normalise, split and decode.
    pub(super) fn set_parts(
        self,
        tokenizer: &mut Tokenizer,
        settings: Settings,
        charsmap: Option<Precompiled>,
    ) -> tokenizers::Result<()> {
        let unspaced = if self == Self::DebertaV2 { PrependScheme::First } else { PrependScheme::Never };
        let scheme = if settings.prefix_space { PrependScheme::Always } else { unspaced };
        let metaspace = Metaspace::new(SPACE, scheme, true);
        if self == Self::DebertaV2 {
            let spaces = Replace::new(ReplacePattern::Regex(r"\s{2,}|[\n\r\t]".into()), " ")?;
            let mut steps: Vec<NormalizerWrapper> = vec![spaces.into(), NFC.into(), Strip::new(false, true).into()];
            if settings.lowercase {
                steps.insert(0, Lowercase.into());
            }
            tokenizer.with_normalizer(Some(Sequence::new(steps)))?;
            let punctuation = settings.split_punctuation.then(|| Punctuation::new(SplitDelimiterBehavior::Isolated));
            let splits = punctuation.map(Into::into).into_iter().chain([metaspace.clone().into()]).collect();
            tokenizer.with_pre_tokenizer(Some(Splits::new(splits)));
        } else {
            tokenizer.with_normalizer(charsmap)?;
            tokenizer.with_pre_tokenizer(Some(Splits::new(vec![WhitespaceSplit.into(), metaspace.clone().into()])));
        }
        tokenizer.with_decoder(Some(DecoderWrapper::from(metaspace)));
        Ok(())
    }

    /// Before and after every text, and whether the second text of a pair has a type of its own.
    fn frame(self, config: &TokenizerConfig) -> (&str, &str, bool) {
        match self {
            Self::XlmRoberta | Self::Camembert => (config.special("bos"), config.special("eos"), false),
            Self::DebertaV2 => (config.special("cls"), config.special("sep"), true),
        }
    }
}

/// The charsmap within a normaliser.
pub(super) fn charsmap_of(normalizer: Option<&NormalizerWrapper>) -> Option<Precompiled> {
    match normalizer? {
        NormalizerWrapper::Precompiled(charsmap) => Some(charsmap.clone()),
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().find_map(|step| charsmap_of(Some(step))),
        _ => None,
    }
}

/// The tokenizer of a model file and the file's path; `None` if the folder has none.
///
/// # Errors
/// [`Error::Io`], [`Error::SentencePiece`] and [`Error::Tokenizer`] for unreadable or damaged files.
pub(super) fn build(folder: &Path, config: &TokenizerConfig, class: Class) -> Result<Option<(PathBuf, Tokenizer)>> {
    let path = folder.join(class.file());
    let Some(bytes) = read(&path)? else { return Ok(None) };
    let model = Model::read(&bytes).map_err(|source| Error::SentencePiece { path: path.clone(), source })?;
    let tokenizer = guarded(|| assemble(model, config, class));
    match tokenizer {
        Ok(tokenizer) => Ok(Some((path, tokenizer))),
        Err(e) => Err(Error::Tokenizer { path, reason: e.to_string() }),
    }
}

fn assemble(mut model: Model, config: &TokenizerConfig, class: Class) -> tokenizers::Result<Tokenizer> {
    let charsmap = std::mem::take(&mut model.charsmap);
    let marked: Vec<AddedToken> = model.pieces.iter().filter_map(added).collect();
    let (vocabulary, unknown) = class.vocabulary(model, config);
    let mut tokenizer = Tokenizer::new(Unigram::from(vocabulary, Some(unknown), false)?);
    let charsmap = if charsmap.is_empty() { None } else { Some(charsmap::read(&charsmap)?) };
    class.set_parts(&mut tokenizer, config.unigram(), charsmap)?;
    config.add_tokens(&mut tokenizer, marked)?;
    let (first, last, types) = class.frame(config);
    let id = |token: &str| tokenizer.token_to_id(token).ok_or_else(|| format!("it lacks the special token {token:?}"));
    let template = template((first, id(first)?), (last, id(last)?), types);
    let template: tokenizers::PostProcessorWrapper = serde_json::from_value(template)?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// What is looked for in texts before they are cut into pieces.
fn added(piece: &Piece) -> Option<AddedToken> {
    let special = match piece.kind {
        Kind::Normal => return None,
        Kind::Control => true,
        Kind::UserDefined => false,
    };
    Some(AddedToken::from(piece.text.clone(), special).normalized(false))
}
