//! Text to tokens: `tokenizer.json`, or the vocabulary files that stand in for it, through the `tokenizers` library,
//! with the ids that `transformers` gives.
//!
//! Truncation and padding stored in `tokenizer.json` are settings of whoever saved it last, not of the model: both are
//! switched off (all-MiniLM-L6-v2 is published with padding to 128 tokens), and only the side of truncation is kept. How long a text
//! may be is decided in `limits.rs`.

mod charsmap;
mod config;
mod decode;
mod parse;
mod sentencepiece;
mod tokens;
mod unigram;
mod vocabulary;

use std::path::Path;

use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::utils::truncation::TruncationError;
use tokenizers::{
    EncodeInput, ModelWrapper, PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
};

use self::config::TokenizerConfig;
use self::parse::{caught, parse};
pub use self::sentencepiece::SentencePieceError;
use self::vocabulary::{assemble, read};
use crate::limits::Limits;
use crate::options::{Builder, Load, Options};
use crate::parallel::try_map;
use crate::{Error, Result, hub};

/// The tokens of one text, special tokens included. All lists are of one length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token type (segment) ids.
    pub type_ids: Vec<u32>,
    /// The tokens as the vocabulary writes them.
    pub tokens: Vec<String>,
    /// Where each token stands in the text: start and end in Unicode code points; `(0, 0)` for special tokens.
    pub offsets: Vec<(usize, usize)>,
}

/// The ids of one text, all that a model needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenIds {
    /// Token ids.
    pub(crate) ids: Vec<u32>,
    /// Token type (segment) ids, as many.
    pub(crate) type_ids: Vec<u32>,
}

/// A model's tokenizer.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/bert");
/// use mlx_transformers::AutoTokenizer;
///
/// let tokenizer = AutoTokenizer::from_pretrained(folder)?;
/// let encoding = tokenizer.encode("the quick fox")?;
/// assert_eq!(encoding.ids.len(), encoding.tokens.len());
/// assert_eq!(encoding.tokens[0], "[CLS]");
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AutoTokenizer {
    inner: Tokenizer,
    special_tokens: usize,
    has_types: bool,
    truncates_left: bool,
    model_max_length: Option<usize>,
    mask_token: Option<String>,
    pad_token: Option<String>,
    unk_token: Option<String>,
    cleans_up: bool,
    limit: Option<usize>,
    threads: usize,
}

impl AutoTokenizer {
    /// The tokenizer of the model `name`: a folder or a hub id.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn from_pretrained(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).build()
    }

    /// As [`AutoTokenizer::from_pretrained`], with options.
    pub fn builder(name: impl Into<String>) -> Builder<Self> {
        Builder::new(name)
    }

    /// Reads the tokenizer files in `folder`.
    ///
    /// # Errors
    /// [`Error::MissingFile`] without `tokenizer.json` or a vocabulary in its place; [`Error::Tokenizer`], [`Error::Json`] and [`Error::Io`] for
    /// damaged or unreadable files.
    pub fn from_folder(folder: &Path, threads: Option<usize>) -> Result<Self> {
        let mut config = TokenizerConfig::read(folder)?;
        let path = folder.join("tokenizer.json");
        let (path, mut inner) = if let Some(bytes) = read(&path)? {
            match parse(&bytes) {
                Ok(tokenizer) => (path, tokenizer),
                Err(e) => return Err(Error::Tokenizer { path, reason: e.to_string() }),
            }
        } else {
            config.name_usual_tokens();
            assemble(folder, &config)?.ok_or_else(|| Error::MissingFile {
                folder: folder.into(),
                file: "tokenizer.json",
                advice: "nor the vocabulary that is read in its place (vocab.txt of BERT, DistilBERT, ELECTRA and MPNet, \
                         vocab.json with merges.txt of RoBERTa, sentencepiece.bpe.model of XLM-RoBERTa and \
                         CamemBERT, spm.model of DeBERTa-v2); AutoTokenizer.from_pretrained(..)\
                         .save_pretrained(..) of transformers writes it",
            })?
        };
        let failed = |e: tokenizers::Error| Error::Tokenizer { path: path.clone(), reason: e.to_string() };
        let truncates_left = config.truncates_left(inner.get_truncation());
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        config.apply(&mut inner).map_err(failed)?;
        let names = config.names();
        let special_tokens = inner.get_post_processor().map_or(0, |p| p.added_tokens(false));
        Ok(Self {
            special_tokens,
            has_types: config.has_types(),
            truncates_left,
            model_max_length: config.model_max_length(),
            mask_token: names.mask(),
            pad_token: names.pad(),
            unk_token: names.unk(),
            cleans_up: config.cleans_up(),
            limit: None,
            threads: threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            inner,
        })
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`Error::Tokenise`] if the vocabulary cannot express the text (no unknown token), [`Error::TooLong`] if it is
    /// above the [`Builder::max_length`] that was asked for.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.encode_at(0, text)
    }

    /// The tokens of two texts as one sequence, with the special tokens and token types the model has for pairs.
    ///
    /// # Errors
    /// As [`AutoTokenizer::encode`].
    pub fn encode_pair(&self, text: &str, pair: &str) -> Result<Encoding> {
        self.encode_at(0, (text, pair))
    }

    /// The tokens of each text, in input order, on the threads the tokenizer was built with.
    ///
    /// # Errors
    /// [`Error::Tokenise`] naming the first text that the vocabulary cannot express, [`Error::TooLong`] naming the
    /// first above the [`Builder::max_length`] that was asked for.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Encoding>> {
        self.map(texts, |index, text| self.encode_at(index, text.as_ref()))
    }

    /// How it finds tokens, by the name `tokenizer.json` has for it: `WordPiece`, `BPE`, `Unigram` or `WordLevel`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.inner.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
            ModelWrapper::Unigram(_) => "Unigram",
        }
    }

    /// Special tokens that every text gets.
    #[must_use]
    pub fn special_tokens(&self) -> usize {
        self.special_tokens
    }

    /// The most tokens the tokenizer's author allows for, `None` if the files say nothing.
    #[must_use]
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// The token that stands for a word to be guessed.
    #[must_use]
    pub fn mask_token(&self) -> Option<&str> {
        self.mask_token.as_deref()
    }

    /// Entries of the vocabulary, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether too long texts lose their start instead of their end.
    pub(crate) fn truncates_left(&self) -> bool {
        self.truncates_left
    }

    /// From now on cuts texts to `limit` tokens, special tokens kept and counted, as `transformers` does.
    pub(crate) fn truncate_at(&mut self, limit: usize) -> Result<()> {
        self.truncate_pairs_at(limit, TruncationStrategy::LongestFirst)
    }

    /// As [`AutoTokenizer::truncate_at`], with what is cut of pairs.
    pub(crate) fn truncate_pairs_at(&mut self, limit: usize, strategy: TruncationStrategy) -> Result<()> {
        let direction = if self.truncates_left { TruncationDirection::Left } else { TruncationDirection::Right };
        let params = TruncationParams { max_length: limit, direction, strategy, ..TruncationParams::default() };
        self.inner.with_truncation(Some(params)).map_err(unusable)?;
        Ok(())
    }

    /// From now on lowercases texts first, except tokens that are taken as they are (special tokens).
    pub(crate) fn lowercase(&mut self) -> Result<()> {
        let mut steps = vec![NormalizerWrapper::from(Lowercase)];
        steps.extend(self.inner.get_normalizer().cloned());
        self.inner.with_normalizer(Some(Sequence::new(steps))).map_err(unusable)?;
        Ok(())
    }

    /// The tokens of `ids` as the vocabulary writes them.
    pub(crate) fn tokens(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|&id| self.inner.id_to_token(id).unwrap_or_default()).collect()
    }

    /// The ids of each text, in input order.
    pub(crate) fn ids<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<TokenIds>> {
        self.map(texts, |index, text| self.ids_at(index, text.as_ref()))
    }

    /// Tokens of `prompt` alone without the special one at its end: as many as sentence-transformers leaves out of each
    /// text that begins with it, even where the two together have other tokens.
    pub(crate) fn prompt_tokens(&self, prompt: &str) -> Result<usize> {
        let ids = self.ids_at(0, prompt)?.ids;
        let added = self.inner.get_added_tokens_decoder();
        let ends_special = ids.last().and_then(|id| added.get(id)).is_some_and(|token| token.special);
        Ok(ids.len() - usize::from(ends_special))
    }

    /// The ids of each pair of texts, in input order.
    pub(crate) fn pair_ids<A, B>(&self, pairs: &[(A, B)]) -> Result<Vec<TokenIds>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        self.map(pairs, |index, (text, pair)| self.ids_at(index, (text.as_ref(), pair.as_ref())))
    }

    /// The library's own encoding of a text or a pair, offsets in Unicode code points.
    pub(crate) fn encoding<'a>(&self, index: usize, input: impl Into<EncodeInput<'a>>) -> Result<tokenizers::Encoding> {
        caught(|| self.inner.encode_char_offsets(input, true)).map_err(|e| self.tokenise(index, &e))
    }

    /// What a model needs of an encoding.
    pub(crate) fn token_ids(&self, encoded: &tokenizers::Encoding) -> TokenIds {
        TokenIds { ids: encoded.get_ids().to_vec(), type_ids: self.types(encoded) }
    }

    /// `f` of each item and its place, in input order, on the tokenizer's threads.
    pub(crate) fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        f: impl Fn(usize, &T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        try_map(items, self.threads, f)
    }

    fn ids_at<'a>(&self, index: usize, input: impl Into<EncodeInput<'a>>) -> Result<TokenIds> {
        let encoded = caught(|| self.inner.encode_fast(input, true)).map_err(|e| self.tokenise(index, &e))?;
        Ok(self.token_ids(&encoded))
    }

    fn tokenise(&self, index: usize, error: &tokenizers::Error) -> Error {
        match (error.downcast_ref(), self.inner.get_truncation()) {
            (Some(TruncationError::SequenceTooShort), Some(cut)) => {
                Error::NoRoomForText { index, limit: cut.max_length }
            }
            _ => Error::Tokenise { index, reason: error.to_string() },
        }
    }

    fn types(&self, encoded: &tokenizers::Encoding) -> Vec<u32> {
        if self.has_types { encoded.get_type_ids().to_vec() } else { vec![0; encoded.len()] }
    }

    fn encode_at<'a>(&self, index: usize, input: impl Into<EncodeInput<'a>>) -> Result<Encoding> {
        let encoded = self.encoding(index, input)?;
        if let Some(limit) = self.limit.filter(|&limit| encoded.len() > limit) {
            return Err(Error::TooLong { index, tokens: encoded.len(), limit });
        }
        Ok(Encoding {
            ids: encoded.get_ids().to_vec(),
            type_ids: self.types(&encoded),
            tokens: self.tokens(encoded.get_ids()),
            offsets: encoded.get_offsets().to_vec(),
        })
    }
}

impl Load for AutoTokenizer {
    type Extra = ();

    fn load(name: &str, options: &Options, (): ()) -> Result<Self> {
        let folder = hub::find(name, options)?;
        let mut tokenizer = Self::from_folder(&folder.transformer(), options.threads)?;
        // Without a model there are no positions to run out of: a text may have any length unless a limit is asked for.
        let limit = Limits::new(usize::MAX, &tokenizer, None).choose(options.max_length)?;
        if options.truncate {
            tokenizer.truncate_at(limit)?;
        }
        tokenizer.limit = options.max_length;
        Ok(tokenizer)
    }
}

/// A change that the library refuses.
#[allow(clippy::needless_pass_by_value)] // as `map_err` gives it
fn unusable(error: tokenizers::Error) -> Error {
    Error::Tokenizer { path: "tokenizer.json".into(), reason: error.to_string() }
}
