//! What can go wrong in the engine: each variant is one way the world was wrong, with what was expected and found.

use std::path::PathBuf;

use crate::Device;
use crate::bundled::Attempts;
use crate::device::Unavailable;
use crate::hub::HubError;
use crate::text::SentencePieceError;

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is no device.
    #[error("unknown device {found:?}: one of auto, cpu, mlx, mlx:cpu, mlx:gpu, cuda, cuda:N")]
    UnknownDevice {
        /// The name that came.
        found: String,
    },
    /// A name that is no way to join tokens to entities.
    #[error("unknown aggregation {found:?}: one of none, simple, first, average, max")]
    UnknownAggregation {
        /// The name that came.
        found: String,
    },
    /// A device that was asked for and does not work here. Nothing is used in its place.
    #[error("device {device} cannot be used: {reason}")]
    DeviceUnavailable {
        /// The device.
        device: Device,
        /// Why, and what to do.
        reason: Unavailable,
    },
    /// A model's name that is neither a folder nor the id of a model on a hub.
    #[error(
        "{name:?} is neither an existing folder nor a hub id (`name` or `organisation/name` of letters, digits, \
         `-`, `_` and `.`)"
    )]
    NoSuchModel {
        /// The name that came.
        name: String,
    },
    /// The hub, or its cache, could not give the model.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// No source of the built-in demonstration model gave it.
    #[error(transparent)]
    Bundled(#[from] Attempts),
    /// A file the model needs is not in its folder.
    #[error("{} has no {file}: {advice}", folder.display())]
    MissingFile {
        /// Where it was looked for.
        folder: PathBuf,
        /// The file's name.
        file: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `make` ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A JSON file is damaged or has values of the wrong kind.
    #[error("{} is not what it should be: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A tokenizer file is damaged or describes something the `tokenizers` library does not know.
    #[error("{} cannot be used as a tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The library's words.
        reason: String,
    },
    /// A model of SentencePiece is damaged, or of a kind that is not read.
    #[error("{} cannot be used as a tokenizer: {source}", path.display())]
    SentencePiece {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SentencePieceError,
    },
    /// A text could not be tokenised.
    #[error("text {index} cannot be tokenised: {reason}")]
    Tokenise {
        /// The text's place in the call.
        index: usize,
        /// The library's words.
        reason: String,
    },
    /// The model has no prompt of that name.
    #[error("this model has no prompt {asked:?}: it has {}", known.join(", "))]
    NoSuchPrompt {
        /// The name that was asked for.
        asked: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A setting in one of the model's files that this library does not support. It is never ignored.
    #[error("{}: {setting} is {found}; supported: {supported}", path.display())]
    UnsupportedSetting {
        /// The file.
        path: PathBuf,
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        found: String,
        /// The values that work.
        supported: &'static str,
    },
    /// A text of more tokens than the model takes.
    #[error(
        "text {index} has {tokens} tokens and the limit is {limit}: shorten or split it, or allow it to be cut \
         (truncate)"
    )]
    TooLong {
        /// The text's place in the call.
        index: usize,
        /// Its tokens, special tokens included.
        tokens: usize,
        /// The most that are taken.
        limit: usize,
    },
    /// A text that became no token at all: the tokenizer adds no special tokens and the text has none of its own.
    #[error("text {index} has no tokens")]
    NoTokens {
        /// The text's place in the call.
        index: usize,
    },
    /// A text of which nothing is left without the prompt, whose tokens this model does not pool (`include_prompt`).
    #[error(
        "text {index} has no tokens beside those of the prompt {prompt:?}, and this model pools those beside them only: \
         name another prompt, or end it with a space"
    )]
    OnlyPrompt {
        /// The text's place in the call.
        index: usize,
        /// What is put before every text.
        prompt: String,
    },
    /// A token that the model has no embedding for.
    #[error(
        "text {index} has the token id {id} and the model knows {vocabulary}: the tokenizer belongs to another model"
    )]
    ForeignToken {
        /// The text's place in the call.
        index: usize,
        /// The token's id.
        id: u32,
        /// Entries of the model's vocabulary.
        vocabulary: usize,
    },
    /// A wish for longer texts than the model has positions for, or for no text at all.
    #[error("a maximum length of {asked} tokens was asked for; it must be in {least}..={positions} for this model")]
    MaxLength {
        /// What was asked for.
        asked: usize,
        /// The special tokens alone, and one token at least.
        least: usize,
        /// The model's positions.
        positions: usize,
    },
    /// An option with a value that makes no sense.
    #[error("{option} must be at least 1, found 0")]
    ZeroOption {
        /// Its name.
        option: &'static str,
    },
    /// More threads than any machine has.
    #[error("{asked} threads were asked for; there can be {most} at most")]
    TooManyThreads {
        /// What was asked for.
        asked: usize,
        /// The most there can be.
        most: usize,
    },
    /// The result has infinities or NaN: the weights are broken, or too large for the precision.
    #[error("the result of text {index} is not finite: the weights are damaged, or too large for the precision used")]
    NonFinite {
        /// The text's place in the call.
        index: usize,
    },
    /// A text whose pair alone has as many tokens as both may have, so that cutting the text does not help.
    #[error(
        "text {index} has no room beside what it is paired with, which takes all {limit} tokens: shorten that (the label \
         or its template), or allow more tokens (the maximum length)"
    )]
    NoRoomForText {
        /// The text's place in the call.
        index: usize,
        /// The most tokens of both.
        limit: usize,
    },
    /// A text to fill whose mask token was cut off.
    #[error(
        "text {index} was cut to {limit} tokens, and {mask} is in what was cut off: shorten the text, or allow more \
         tokens (the maximum length)"
    )]
    MaskCut {
        /// The text's place in the call.
        index: usize,
        /// The model's mask token.
        mask: String,
        /// The most tokens of a text.
        limit: usize,
    },
    /// A text to fill that has no mask token.
    #[error("text {index} has no {mask}: write it where a word is to be guessed")]
    NoMask {
        /// The text's place in the call.
        index: usize,
        /// The model's mask token.
        mask: String,
    },
    /// A tokenizer whose files name no token that stands for a word to be guessed.
    #[error("the tokenizer's files name no mask token, so there is nothing to fill")]
    NoMaskToken,
    /// A classification without examples, and without labels.
    #[error("there are no labels to choose from: give at least one")]
    NoLabels,
    /// A sentence for labels that has not exactly one place for the label.
    #[error("the template {found:?} must have {{}} once, where the label goes")]
    Template {
        /// The template that came.
        found: String,
    },
    /// A question, or the text to answer it from, that is empty.
    #[error("the {what} of question {index} is empty")]
    Empty {
        /// The question's place in the call.
        index: usize,
        /// `question` or `context`.
        what: &'static str,
    },
    /// A question so long that the text to answer it from cannot be read piece by piece.
    #[error(
        "question {index} has {tokens} tokens, special tokens included: within {limit} tokens, and with pieces that \
         overlap by {stride}, there is no room for its context; shorten it, or change the maximum length or the stride"
    )]
    NoRoom {
        /// The question's place in the call.
        index: usize,
        /// Its tokens, with all special tokens.
        tokens: usize,
        /// The most tokens of question and piece.
        limit: usize,
        /// By how many tokens pieces overlap.
        stride: usize,
    },
    /// The model, its settings or its weights.
    #[error(transparent)]
    Model(#[from] mlxt_models::Error),
    /// The backend.
    #[error(transparent)]
    Backend(#[from] mlxt_backend::Error),
}

impl Error {
    /// The same error with the text's place changed: for callers whose texts became several.
    pub(crate) fn replaced(mut self, place: impl Fn(usize) -> usize) -> Self {
        match &mut self {
            Self::Tokenise { index, .. }
            | Self::TooLong { index, .. }
            | Self::NoTokens { index }
            | Self::NoRoomForText { index, .. }
            | Self::ForeignToken { index, .. }
            | Self::NonFinite { index } => *index = place(*index),
            _ => {}
        }
        self
    }

    /// [`Error::Io`] with where it happened.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
