//! The encoders of the study: their sizes, their texts as token ids, and their weights where no checkpoint is given.
//!
//! Weights that are made here are random, of the exact architecture, the same for every engine and on every machine. They
//! make right timings and let results be compared; they answer no question.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::random::Random;
use crate::record::{Cell, Length, Work};
use crate::{Error, Result};

/// An encoder of the study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// As plans and records call it.
    pub name: &'static str,
    /// `model_type` of its `config.json`; the tokenizer of its texts goes with it.
    family: Family,
    layers: usize,
    hidden: usize,
    heads: usize,
    intermediate: usize,
    vocab: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Bert,
    Roberta,
    XlmRoberta,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
        }
    }
}

/// Those of the paper, and a small one for plans that have to be quick.
pub const MODELS: [Model; 5] = [
    base("bert-base", Family::Bert, 30_522),
    Model { layers: 24, hidden: 1024, heads: 16, intermediate: 4096, ..base("bert-large", Family::Bert, 30_522) },
    base("roberta-base", Family::Roberta, 50_265),
    base("xlm-roberta-base", Family::XlmRoberta, 250_002),
    Model { layers: 6, hidden: 384, heads: 12, intermediate: 1536, ..base("minilm-l6", Family::Bert, 30_522) },
];

const fn base(name: &'static str, family: Family, vocab: usize) -> Model {
    Model { name, family, layers: 12, hidden: 768, heads: 12, intermediate: 3072, vocab }
}

/// Token ids of the sequences of a cell.
pub type Batch = Vec<Vec<u32>>;

#[derive(Deserialize)]
struct Tokens {
    tokenizers: BTreeMap<String, Corpus>,
}

/// The corpus as one tokenizer sees it: `study/corpus/README.md`.
#[derive(Deserialize)]
struct Corpus {
    start: u32,
    end: u32,
    cuts: BTreeMap<usize, Batch>,
    ragged: Batch,
    stream: Vec<u32>,
}

impl Model {
    /// The model of that name.
    ///
    /// # Errors
    /// A name that is not in [`MODELS`].
    pub fn find(name: &str) -> Result<&'static Self> {
        MODELS.iter().find(|m| m.name == name).ok_or_else(|| {
            let names: Vec<_> = MODELS.iter().map(|m| m.name).collect();
            Error::Plan { name: name.into(), what: format!("there is no such model: one of {}", names.join(", ")) }
        })
    }

    /// The texts of a workload: `batch` sequences, those of the corpus again from the start where it has fewer.
    ///
    /// # Errors
    /// A number of characters the corpus was not cut at; fewer than three tokens or more than the model has positions for.
    pub fn texts(&self, length: Length, batch: usize) -> Result<Batch> {
        let name = self.family.name();
        let refused = |what| Error::Plan { name: format!("{}/{length}", self.name), what };
        let tokens: Result<Tokens, _> = serde_json::from_str(include_str!("../../../study/corpus/tokens.json"));
        let mut tokens = tokens.map_err(|e| refused(e.to_string()))?.tokenizers;
        let corpus = tokens.remove(name).ok_or_else(|| refused(format!("no texts for {name}")))?;
        let cycled = |texts: &Batch| texts.iter().cycle().take(batch).cloned().collect();
        match length {
            Length::Ragged => Ok(corpus.ragged),
            Length::Characters(count) => corpus.cuts.get(&count).map(cycled).ok_or_else(|| {
                let there: Vec<_> = corpus.cuts.keys().map(ToString::to_string).collect();
                refused(format!("texts are cut at {} characters", there.join(", ")))
            }),
            Length::Tokens(count @ 3..=512) => {
                let mut stream = corpus.stream.iter().copied().cycle();
                let mut text = || {
                    let inner = stream.by_ref().take(count - 2);
                    std::iter::once(corpus.start).chain(inner).chain([corpus.end]).collect()
                };
                Ok((0..batch).map(|_| text()).collect())
            }
            Length::Tokens(_) => Err(refused("from 3 to 512 tokens".into())),
        }
    }

    /// The cell of a workload, with its texts.
    ///
    /// # Errors
    /// As [`Model::texts`].
    pub fn cell(&self, length: Length, batch: usize) -> Result<(Cell, Batch)> {
        let texts = self.texts(length, batch)?;
        let lengths = texts.iter().map(Vec::len);
        let (tokens, longest) = (lengths.clone().sum(), lengths.clone().max().unwrap_or(0));
        let pairs: usize = lengths.map(|n| n * n).sum();
        let products = tokens * self.weights_multiplied() + 2 * pairs * self.layers * self.hidden;
        let batch = texts.len();
        let work = Work::Model { model: self.name.into(), length, batch, tokens, longest };
        let cell = Cell {
            id: format!("{}/{length}/b{batch}", self.name),
            work,
            flops: 2 * products as u64,
            bytes: 4 * (self.weights_multiplied() + 2 * tokens * self.hidden) as u64,
        };
        Ok((cell, texts))
    }

    /// Weights of the layers' products: each is used once for every token.
    fn weights_multiplied(&self) -> usize {
        self.layers * (4 * self.hidden * self.hidden + 2 * self.hidden * self.intermediate)
    }

    /// Bytes of its weights in f32.
    pub fn bytes(&self) -> u64 {
        4 * self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>()
    }

    fn config(&self) -> Value {
        let (class, positions, types, eps, pad) = match self.family {
            Family::Bert => ("BertModel", 512, 2, 1e-12, 0),
            Family::Roberta => ("RobertaModel", 514, 1, 1e-5, 1),
            Family::XlmRoberta => ("XLMRobertaModel", 514, 1, 1e-5, 1),
        };
        json!({
            "architectures": [class], "model_type": self.family.name(), "vocab_size": self.vocab,
            "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate, "hidden_act": "gelu", "max_position_embeddings": positions,
            "type_vocab_size": types, "layer_norm_eps": eps, "pad_token_id": pad, "dtype": "float32",
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        })
    }

    /// Names and shapes as `transformers` writes a model without a head or pooler.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let h = self.hidden;
        let (positions, types) = if self.family == Family::Bert { (512, 2) } else { (514, 1) };
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let norm = |all: &mut Vec<_>, name: &str| {
            all.push((format!("{name}.weight"), vec![h]));
            all.push((format!("{name}.bias"), vec![h]));
        };
        for (name, entries) in [("word", self.vocab), ("position", positions), ("token_type", types)] {
            all.push((format!("embeddings.{name}_embeddings.weight"), vec![entries, h]));
        }
        norm(&mut all, "embeddings.LayerNorm");
        for layer in 0..self.layers {
            let mut linear = |name: &str, outputs: usize, inputs: usize| {
                all.push((format!("encoder.layer.{layer}.{name}.weight"), vec![outputs, inputs]));
                all.push((format!("encoder.layer.{layer}.{name}.bias"), vec![outputs]));
            };
            for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
            {
                linear(name, h, h);
            }
            linear("intermediate.dense", self.intermediate, h);
            linear("output.dense", h, self.intermediate);
            norm(&mut all, &format!("encoder.layer.{layer}.attention.output.LayerNorm"));
            norm(&mut all, &format!("encoder.layer.{layer}.output.LayerNorm"));
        }
        all
    }

    /// The folder with its random weights below `cache`, made if it is not there yet: `config.json` and
    /// `model.safetensors`.
    ///
    /// # Errors
    /// The disk's own.
    pub fn checkpoint(&self, cache: &Path, seed: u64) -> Result<PathBuf> {
        let folder = cache.join(format!("{}-random-{seed}", self.name));
        if folder.join("model.safetensors").is_file() {
            return Ok(folder);
        }
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let config = folder.join("config.json");
        std::fs::write(&config, format!("{:#}\n", self.config())).map_err(Error::io("write", &config))?;
        // Under another name until it is whole.
        let part = folder.join(format!("model.safetensors.{}", std::process::id()));
        self.write_weights(&part, seed).map_err(Error::io("write", &part))?;
        let whole = folder.join("model.safetensors");
        std::fs::rename(&part, &whole).map_err(Error::io("write", &whole))?;
        Ok(folder)
    }

    fn write_weights(&self, file: &Path, seed: u64) -> std::io::Result<()> {
        let tensors = self.tensors();
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0;
        for (name, shape) in &tensors {
            let start = end;
            end += 4 * shape.iter().product::<usize>();
            header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        }
        let mut header = Value::Object(header).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(file)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        for (name, shape) in &tensors {
            // As BERT is initialised, but wider: products keep the size of their inputs, so every layer shows in the result.
            let (mean, deviation) =
                match (name.contains("LayerNorm"), name.ends_with("weight"), name.contains("embeddings.")) {
                    (true, true, _) => (1.0, 0.1),
                    (_, false, _) => (0.0, 0.05),
                    (false, true, true) => (0.0, 0.5),
                    (false, true, false) => (0.0, (shape[1] as f32).sqrt().recip()),
                };
            let mut random = Random::new(seed, &format!("{}/{name}", self.name));
            for _ in 0..shape.iter().product::<usize>() {
                out.write_all(&(mean + deviation * random.normal()).to_le_bytes())?;
            }
        }
        out.flush()?;
        out.get_ref().sync_all()
    }
}

/// SHA-256 of a checkpoint's weights: of its safetensors and torch files in the order of their names.
///
/// # Errors
/// The disk's own.
pub fn hash(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let weights = |p: &PathBuf| p.extension().is_some_and(|e| e == "safetensors" || e == "bin");
    let mut paths: Vec<_> = paths.filter(weights).collect();
    paths.sort();
    let mut digest = Sha256::new();
    for path in paths {
        let mut file = std::fs::File::open(&path).map_err(Error::io("read", &path))?;
        std::io::copy(&mut file, &mut HashWriter(&mut digest)).map_err(Error::io("read", &path))?;
    }
    Ok(hex(&digest.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        self.0.update(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_parameters_that_are_published_for_them() {
        let millions = |name| Model::find(name).unwrap().bytes() as f64 / 4e6;
        // Without pooler: hidden squared and hidden less than the usual counts.
        for (name, parameters, hidden) in
            [("bert-base", 109.48, 768.0), ("bert-large", 335.14, 1024.0), ("roberta-base", 124.65, 768.0)]
        {
            let expected = parameters - hidden * (hidden + 1.0) / 1e6;
            assert!((millions(name) - expected).abs() < 0.01, "{name}: {} and {expected}", millions(name));
        }
    }

    #[test]
    fn texts_have_the_lengths_asked_for_and_no_padding() {
        for model in &MODELS {
            for tokens in [3, 16, 512] {
                let texts = model.texts(Length::Tokens(tokens), 33).unwrap();
                assert!(texts.len() == 33 && texts.iter().all(|t| t.len() == tokens));
                assert_ne!(texts[0][1..tokens - 1], texts[1][1..tokens - 1]);
            }
            for characters in [50, 100, 200, 500] {
                let texts = model.texts(Length::Characters(characters), 32).unwrap();
                // English has about four characters a token; a space a token would be far outside (D4).
                let tokens: usize = texts.iter().map(Vec::len).sum();
                let a_token = (32 * characters) as f64 / (tokens - 64) as f64;
                assert!((3.0..6.0).contains(&a_token), "{} {characters}: {a_token}", model.name);
                assert!(texts.iter().flatten().all(|&id| (id as usize) < model.vocab));
            }
            assert_eq!(model.texts(Length::Ragged, 1).unwrap().len(), 64);
        }
        let bert = Model::find("bert-base").unwrap();
        assert!(bert.texts(Length::Characters(51), 1).is_err() && bert.texts(Length::Tokens(513), 1).is_err());
        assert!(Model::find("bert").unwrap_err().to_string().contains("xlm-roberta-base"));
    }

    #[test]
    fn a_cell_counts_its_products() {
        let (cell, texts) = Model::find("bert-base").unwrap().cell(Length::Tokens(10), 2).unwrap();
        assert_eq!((cell.id.as_str(), texts.len()), ("bert-base/10t/b2", 2));
        let layer = 20 * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * 2 * 10 * 10 * 768;
        assert_eq!(cell.flops, 2 * 12 * layer);
    }

    #[test]
    fn a_checkpoint_is_made_once_and_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Model { layers: 1, hidden: 8, heads: 2, intermediate: 12, vocab: 11, ..MODELS[0] };
        let path = tiny.checkpoint(folder.path(), 1).unwrap();
        let bytes = std::fs::read(path.join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes.len() as u64, 8 + header as u64 + tiny.bytes());
        let parsed: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        assert_eq!(parsed["embeddings.word_embeddings.weight"]["shape"], json!([11, 8]));
        let first = hash(&path).unwrap();
        assert_eq!(tiny.checkpoint(folder.path(), 1).unwrap(), path);
        std::fs::remove_dir_all(&path).unwrap();
        tiny.checkpoint(folder.path(), 1).unwrap();
        assert_eq!(hash(&path).unwrap(), first);
        assert_ne!(hash(&tiny.checkpoint(folder.path(), 2).unwrap()).unwrap(), first);
    }

    /// D5: all families without a head, so that none is timed with more than the others.
    #[test]
    fn no_model_has_a_head() {
        for model in &MODELS {
            let class = model.config()["architectures"][0].as_str().unwrap_or_default().to_owned();
            assert!(class.ends_with("Model") && !class.contains("For"), "{class}");
            let known = |name: &str| name.starts_with("embeddings.") || name.starts_with("encoder.layer.");
            assert!(model.tensors().iter().all(|(name, _)| known(name)), "{}", model.name);
        }
    }
}
