//! `config.json`: every setting that changes a model's numbers, honoured as `transformers` does or refused by name.
//!
//! A setting that is absent has the default `transformers` gives it. What only training or another task reads is left
//! alone and stays available through [`Config::raw`]. How one setting is read is in `reader.rs`; what settings there
//! are, in `arch/`.

mod quantisation;
mod reader;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mlxt_backend::Activation;
use serde_json::{Map, Value};

use crate::arch::attention::Attending;
use crate::arch::{Architecture, HeadActivation, MOST_ENTRIES, Positions, Shape};
use crate::{Error, Pooling, Result};
pub use quantisation::Quantisation;
pub(crate) use reader::Reader;

/// As [`MOST_ENTRIES`], for layers.
const MOST_LAYERS: usize = 1 << 12;
/// For columns of anything.
const MOST_COLS: usize = 1 << 20;

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
    /// Whether positions are embedded.
    pub(crate) position_table: bool,
    pub(crate) attending: Attending,
    pub(crate) biases: Biases,
    /// How classifiers make one row of a sequence.
    pub(crate) classifier_pooling: Pooling,
    head_activation: Activation,
    vocab_size: usize,
    token_types: usize,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    pad_token_id: Option<u32>,
    quantisation: Option<Quantisation>,
    /// Where it was read from, for errors.
    pub(crate) file: PathBuf,
    raw: Map<String, Value>,
}

/// What has a bias.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // one setting each
pub(crate) struct Biases {
    /// The products of attention.
    pub attention: bool,
    /// Those of the feed-forward networks.
    pub feed_forward: bool,
    /// Norms.
    pub norm: bool,
    /// The dense layer of heads.
    pub head: bool,
    /// The last product of the head for masked tokens.
    pub decoder: bool,
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
        reader.refuse_unsupported(architecture.refused)?;

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
        let layers = reader.size(&s.layers, MOST_LAYERS)?;
        let shape = Shape { hidden_size, heads, layers, positions };
        Ok(Self {
            architecture,
            embedding_size: embedding_size.filter(|&size| size > 0).unwrap_or(hidden_size),
            intermediate_size: reader.size(&s.intermediate_size, MOST_COLS)?,
            positions,
            first_position,
            activation: reader.activation(&s.activation)?,
            eps: reader.eps(&s.eps)?,
            position_table: reader.flag(&s.position_table)?,
            attending: (architecture.attention)(&reader, &shape)?,
            biases: Biases {
                attention: reader.flag(&s.attention_bias)?,
                feed_forward: reader.flag(&s.feed_forward_bias)?,
                norm: reader.flag(&s.norm_bias)?,
                head: reader.flag(&s.head_bias)?,
                decoder: reader.flag(&s.decoder_bias)?,
            },
            classifier_pooling: reader.classifier_pooling(&s.classifier_pooling)?,
            head_activation: reader.activation(&s.head_activation)?,
            vocab_size,
            token_types: reader.size(&s.token_types, MOST_ENTRIES)?,
            hidden_size,
            layers,
            heads,
            pad_token_id,
            quantisation: Quantisation::read(&reader)?,
            file: file.to_owned(),
            raw,
        })
    }

    /// `model_type`, as in the file: `bert`, `xlm-roberta`, `deberta-v2` ..
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

    /// How the checkpoint's weights are packed, where they are.
    pub fn quantisation(&self) -> Option<&Quantisation> {
        self.quantisation.as_ref()
    }

    /// The activation after a head's dense layer.
    pub(crate) fn activation_of(&self, head: HeadActivation) -> Activation {
        match head {
            HeadActivation::Hidden => self.activation,
            HeadActivation::Head => self.head_activation,
            HeadActivation::Is(activation) => activation,
        }
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
    use mlxt_backend::Mask;

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
    fn layers_attend_as_either_version_of_transformers_wrote_it() {
        let radii = |settings: &str| {
            let text = format!(r#"{{"model_type": "modernbert", "num_hidden_layers": 4, {settings}}}"#);
            let attending = Config::from_json(&text).unwrap().attending;
            let radius = |sight: &crate::arch::attention::Sight| match sight.mask {
                Mask::Window { radius } => (radius, sight.theta),
                _ => (0, sight.theta),
            };
            attending.layers.iter().map(radius).collect::<Vec<_>>()
        };
        let (all, near) = ((0, Some(5e4)), (3, Some(2e3)));
        let old = r#""local_attention": 6, "global_attn_every_n_layers": 2, "global_rope_theta": 50000,
            "local_rope_theta": 2000.0, "rope_scaling": null"#;
        assert_eq!(radii(old), [all, near, all, near]);
        let new = r#""local_attention": 7, "rope_parameters": {"full_attention": {"rope_theta": 5e4, "rope_type":
            "default"}, "sliding_attention": {"rope_theta": 2e3}}, "layer_types": ["sliding_attention",
            "full_attention", "full_attention", "sliding_attention"]"#;
        assert_eq!(radii(new), [near, all, all, near]);
        let (all, near) = ((0, Some(160_000.0)), (64, Some(10_000.0)));
        for none in [
            r#""norm_bias": false"#,
            r#""rope_parameters": null"#,
            r#""rope_parameters": {}"#,
            r#""rope_parameters": {"full_attention": null, "sliding_attention": {"rope_type": "default"}}"#,
        ] {
            assert_eq!(radii(none), [all, near, near, all], "{none}");
        }
    }

    #[test]
    fn what_some_architectures_cannot_do_is_named() {
        for (model_type, name, value) in [
            ("modernbert", "layer_types", r#"["full_attention"]"#),
            ("modernbert", "layer_types", r#"["full_attention","causal"]"#),
            ("modernbert", "rope_scaling", r#"{"rope_type":"yarn"}"#),
            ("modernbert", "rope_parameters", r#"{"full_attention":{"rope_type":"yarn"}}"#),
            ("modernbert", "rope_parameters", r#"{"factor":4.0,"rope_theta":10000.0,"rope_type":"yarn"}"#),
            ("modernbert", "rope_parameters", r#"{"rope_theta":77.0,"rope_type":"default"}"#),
            ("modernbert", "rope_parameters", r#"{"full_attention":{},"rope_theta":77.0}"#),
            ("modernbert", "rope_parameters", r#"{"sliding_attention":0}"#),
            ("modernbert", "rope_parameters", "\"x\""),
            ("modernbert", "rope_parameters", "0"),
            ("modernbert", "rope_parameters", "[]"),
            ("nomic_bert", "rope_parameters", "[]"),
            ("modernbert", "global_rope_theta", "0.5"),
            ("modernbert", "num_attention_heads", "256"),
            ("modernbert", "classifier_pooling", "\"max\""),
            ("modernbert", "mlp_bias", "1"),
            ("nomic_bert", "activation_function", "\"geglu\""),
            ("nomic_bert", "rotary_scaling_factor", "2"),
            ("nomic_bert", "moe_every_n_layers", "2"),
            ("nomic_bert", "head_dim", "32"),
            ("deberta-v2", "conv_kernel_size", "3"),
            ("deberta-v2", "attention_head_size", "63"),
            ("deberta-v2", "pos_att_type", "[1]"),
            ("mpnet", "relative_attention_num_buckets", "16"),
        ] {
            let text = format!(r#"{{"model_type": "{model_type}", "num_hidden_layers": 2, "{name}": {value}}}"#);
            let (found_name, found, _) = setting(&text);
            assert_eq!((found_name.as_str(), found.as_str()), (name, value), "{model_type}");
        }
        let text = r#"{"model_type": "deberta-v2", "relative_attention": true, "position_buckets": 2000}"#;
        assert_eq!(setting(text).0, "position_buckets");
    }

    #[test]
    fn nomics_own_settings_are_read() {
        let text = r#"{"model_type": "nomic_bert", "n_embd": 64, "n_head": 4, "n_layer": 3, "n_inner": 128,
            "n_positions": 8192, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "activation_function": "swiglu",
            "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false, "prenorm": false, "causal": false,
            "parallel_block": false, "rotary_scaling_factor": null, "layer_norm_epsilon": 1e-12, "vocab_size": 30528}"#;
        let config = Config::from_json(text).unwrap();
        assert_eq!((config.hidden_size(), config.layers(), config.heads(), config.max_tokens()), (64, 3, 4, 8192));
        assert_eq!(config.attending.layers[2].theta, Some(1000.0));
        let flat = r#"{"model_type": "nomic_bert", "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}"#;
        assert_eq!(Config::from_json(flat).unwrap().attending.layers[0].theta, Some(77.0));
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
