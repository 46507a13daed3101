//! `config.json`: every setting that changes a model's numbers, honoured as `transformers` does or refused by name.
//!
//! A setting that is absent has the default `transformers` gives it. What only training or another task reads is left
//! alone and stays available through [`Config::raw`]. How one setting is read is in `reader.rs`; what settings there
//! are, in `arch/`.

mod reader;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mlxt_backend::Activation;
use serde_json::{Map, Value};

use crate::arch::{Architecture, Positions};
use crate::{Error, Result};
use reader::Reader;

/// Layers and the numbers below are limited only so that arithmetic on them cannot overflow and a damaged file cannot
/// make the list of expected tensors endless. Each is 30 times or more above the largest encoder known.
const MOST_LAYERS: usize = 1 << 12;
/// Columns of anything.
const MOST_COLS: usize = 1 << 20;
/// Entries of a table.
const MOST_ENTRIES: usize = 1 << 28;

/// An encoder's settings, all within range and consistent.
#[derive(Clone)]
pub struct Config {
    pub(crate) architecture: &'static Architecture,
    pub(crate) embedding_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) positions: usize,
    /// The position of a sequence's first token.
    pub(crate) first_position: u32,
    pub(crate) activation: Activation,
    pub(crate) eps: f32,
    vocab_size: usize,
    token_types: usize,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    pad_token_id: Option<u32>,
    /// Where it was read from, for errors.
    pub(crate) file: PathBuf,
    raw: Map<String, Value>,
}

impl Config {
    /// Reads `config.json` of a model's folder.
    ///
    /// # Errors
    /// [`Error::NoConfig`], [`Error::Read`], and those of [`Config::from_json`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let file = folder.join("config.json");
        match std::fs::read_to_string(&file) {
            Ok(text) => Self::parse(&file, &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoConfig { folder: folder.to_owned() }),
            Err(source) => Err(Error::Read { file, source }),
        }
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Json`] for text that is not a JSON object (NaN is not JSON); [`Error::Setting`] for a value out of
    /// range, an unknown `model_type` or `hidden_act`, and everything that the encoders here do not do.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::parse(Path::new("config.json"), text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self> {
        let raw: Map<String, Value> =
            serde_json::from_str(text).map_err(|source| Error::Json { file: file.to_owned(), source })?;
        let reader = Reader { file, raw: &raw };
        let architecture = reader.architecture()?;
        reader.refuse_unsupported()?;

        let s = &architecture.settings;
        let hidden_size = reader.size(&s.hidden_size, MOST_COLS)?;
        let heads = reader.size(&s.heads, hidden_size)?;
        if hidden_size % heads != 0 {
            let expected = format!("a divisor of the hidden size, {hidden_size}");
            return Err(reader.error(reader.name(&s.heads), &heads, expected));
        }
        let embedding_size = s.embedding_size.as_ref().map(|setting| reader.size(setting, MOST_COLS)).transpose()?;
        let vocab_size = reader.size(&s.vocab_size, MOST_ENTRIES)?;
        let pad_token_id = reader.pad_token_id(&s.pad_token_id, vocab_size)?;
        let first_position = match architecture.positions {
            Positions::FromZero => 0,
            Positions::AfterPadding => {
                1 + pad_token_id.ok_or_else(|| {
                    reader.error("pad_token_id", &Value::Null, "a token id: positions are counted from it".into())
                })?
            }
        };
        let positions = reader.size(&s.positions, MOST_ENTRIES)?;
        if positions <= first_position as usize {
            let expected = format!("more than the first token's position, {first_position} (pad_token_id + 1)");
            return Err(reader.error(reader.name(&s.positions), &positions, expected));
        }
        Ok(Self {
            architecture,
            embedding_size: embedding_size.unwrap_or(hidden_size),
            intermediate_size: reader.size(&s.intermediate_size, MOST_COLS)?,
            positions,
            first_position,
            activation: reader.activation(&s.activation)?,
            eps: reader.eps(&s.eps)?,
            vocab_size,
            token_types: reader.size(&s.token_types, MOST_ENTRIES)?,
            hidden_size,
            layers: reader.size(&s.layers, MOST_LAYERS)?,
            heads,
            pad_token_id,
            file: file.to_owned(),
            raw,
        })
    }

    /// `model_type`: `bert`, `roberta`, `xlm-roberta`, `camembert`, `distilbert`, `electra`.
    pub fn model_type(&self) -> &'static str {
        self.architecture.model_type
    }

    /// Columns of a hidden state.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Attention heads of a layer.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Number of token ids.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Number of token type ids; 0 for an architecture without token types, which does not look at them.
    pub fn type_vocab_size(&self) -> usize {
        self.token_types
    }

    /// The most tokens of one sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.positions - self.first_position as usize
    }

    /// The padding token's id, where there is one.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.pad_token_id
    }

    /// A setting as it stands in the file, such as `id2label` or `architectures`.
    pub fn raw(&self, name: &str) -> Option<&Value> {
        self.raw.get(name)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("model_type", &self.model_type())
            .field("vocab_size", &self.vocab_size)
            .field("hidden_size", &self.hidden_size)
            .field("layers", &self.layers)
            .field("heads", &self.heads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(text: &str) -> (String, String, String) {
        match Config::from_json(text) {
            Err(Error::Setting { name, found, expected, .. }) => (name, found, expected),
            other => panic!("{text} gives {other:?}"),
        }
    }

    #[test]
    fn what_the_file_leaves_out_is_transformers_default() {
        let bert = Config::from_json(r#"{"model_type": "bert"}"#).unwrap();
        assert_eq!((bert.vocab_size(), bert.hidden_size(), bert.layers(), bert.heads()), (30_522, 768, 12, 12));
        assert_eq!((bert.max_tokens(), bert.type_vocab_size(), bert.pad_token_id()), (512, 2, Some(0)));
        assert_eq!((bert.activation, bert.eps, bert.embedding_size), (Activation::Gelu, 1e-12, 768));
        let distilbert = Config::from_json(r#"{"model_type": "distilbert", "num_hidden_layers": 3}"#).unwrap();
        assert_eq!((distilbert.layers(), distilbert.type_vocab_size()), (3, 0));
        let electra = Config::from_json(r#"{"model_type": "electra"}"#).unwrap();
        assert_eq!((electra.embedding_size, electra.hidden_size(), electra.heads()), (128, 256, 4));
    }

    #[test]
    fn roberta_positions_begin_after_the_padding_id() {
        let text = r#"{"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": 1}"#;
        let config = Config::from_json(text).unwrap();
        assert_eq!((config.first_position, config.max_tokens()), (2, 512));
        let (name, found, _) = setting(r#"{"model_type": "roberta", "max_position_embeddings": 2}"#);
        assert_eq!((name.as_str(), found.as_str()), ("max_position_embeddings", "2"));
        assert_eq!(setting(r#"{"model_type": "roberta", "pad_token_id": null}"#).0, "pad_token_id");
    }

    #[test]
    fn a_setting_that_is_not_supported_is_named_with_its_value() {
        for (name, value) in [
            ("position_embedding_type", "\"relative_key\""),
            ("position_embedding_type", "\"alibi\""),
            ("is_decoder", "true"),
            ("is_encoder_decoder", "true"),
            ("add_cross_attention", "true"),
            ("pruned_heads", r#"{"0":[1]}"#),
            ("quantization_config", "{}"),
            ("hidden_act", "\"xielu\""),
            ("hidden_act", "\"prelu\""),
            ("hidden_act", "7"),
        ] {
            let (found_name, found, _) = setting(&format!(r#"{{"model_type": "bert", "{name}": {value}}}"#));
            assert_eq!((found_name.as_str(), found.as_str()), (name, value));
        }
        let (name, found, expected) = setting(r#"{"model_type": "xlm-roberta-xl"}"#);
        assert_eq!((name.as_str(), found.as_str()), ("model_type", "\"xlm-roberta-xl\""));
        assert!(expected.contains("xlm-roberta, camembert"), "{expected}");
        assert_eq!(setting("{}").0, "model_type");
    }

    #[test]
    fn neutral_values_of_unsupported_settings_pass() {
        let text = r#"{"model_type": "distilbert", "is_decoder": false, "pruned_heads": {}, "quantization_config": null,
            "position_embedding_type": "absolute", "sinusoidal_pos_embds": true, "dim": 48, "hidden_size": 48}"#;
        assert_eq!(Config::from_json(text).unwrap().hidden_size(), 48);
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        for (name, value) in [
            ("hidden_size", "1000000000000"),
            ("hidden_size", "0"),
            ("hidden_size", "-8"),
            ("hidden_size", "64.5"),
            ("hidden_size", "null"),
            ("num_hidden_layers", "0"),
            ("num_hidden_layers", "1000000"),
            ("num_attention_heads", "0"),
            ("num_attention_heads", "7"),
            ("intermediate_size", "18446744073709551616"),
            ("vocab_size", "\"many\""),
            ("type_vocab_size", "0"),
            ("max_position_embeddings", "[512]"),
            ("layer_norm_eps", "-1e-12"),
            ("layer_norm_eps", "1e300"),
            ("pad_token_id", "30522"),
            ("pad_token_id", "-1"),
        ] {
            let (found, _, expected) = setting(&format!(r#"{{"model_type": "bert", "{name}": {value}}}"#));
            assert_eq!(found, name, "{value}: {expected}");
        }
        assert_eq!(setting(r#"{"model_type": "distilbert", "dim": 48, "hidden_size": 64}"#).0, "hidden_size");
    }

    #[test]
    fn nan_is_not_json() {
        for value in ["NaN", "Infinity", "1e999"] {
            let text = format!(r#"{{"model_type": "bert", "layer_norm_eps": {value}}}"#);
            assert!(matches!(Config::from_json(&text), Err(Error::Json { .. })), "{value}");
        }
        assert!(matches!(Config::from_json("[]"), Err(Error::Json { .. })));
    }
}
