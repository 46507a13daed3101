//! What is read: the formats' own entry points, from folders of files, as a user's are.

use std::fs;
use std::io::Result;
use std::path::Path;

use mlx_transformers::{AutoTokenizer, Description};
use mlxt_models::{Config, Weights, tasks_of};

/// The files of one input, by name.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// Texts that a tokenizer which loads has to tokenise.
const TEXTS: [&str; 6] =
    ["", "The quick brown fox", "  ｆｕｌｌ\twidth\n", "🙂 naïve e\u{301}", "<mask> [MASK] </s>", "敏捷\u{0}x"];

/// The most files of a fixture's folder that hold weights: those are no part of an input.
const WEIGHTS: [&str; 2] = ["safetensors", "bin"];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    Safetensors,
    Torch,
    Config,
    Tokenizer,
}

impl Target {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Safetensors, Self::Torch, Self::Config, Self::Tokenizer].into_iter().find(|target| target.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "torch",
            Self::Config => "config",
            Self::Tokenizer => "tokenizer",
        }
    }

    /// Reads a folder; what comes of it, in words.
    pub(crate) fn read(self, folder: &Path) -> String {
        match self {
            Self::Safetensors | Self::Torch => match Weights::open(folder) {
                Ok(weights) => format!("{} tensors", weights.tensors().filter(|tensor| tensor.bytes > 0).count()),
                Err(error) => error.to_string(),
            },
            Self::Config => match Config::open(folder) {
                Ok(config) => {
                    let tasks = Weights::open(folder).map(|weights| tasks_of(&config, &weights));
                    format!("{:?} {:?} {:?} {}", config.labels(), config.problem(), config.entailment(), tasks.is_ok())
                }
                Err(error) => error.to_string(),
            },
            Self::Tokenizer => tokenise(folder),
        }
    }

    /// Undamaged inputs, from the fixtures.
    pub(crate) fn seeds(self) -> Result<Vec<Files>> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        let file = |from: &str, name: &str| fs::read(fixtures.join(from)).map(|content| (name.to_owned(), content));
        Ok(match self {
            Self::Safetensors => {
                let shard = "model-00001-of-00003.safetensors";
                let index = r#"{"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}}"#;
                let index = ("model.safetensors.index.json".to_owned(), index.as_bytes().to_vec());
                vec![
                    vec![("model.safetensors".to_owned(), small_safetensors())],
                    vec![file("electra/model.safetensors", "model.safetensors")?],
                    vec![index, ("x.safetensors".to_owned(), small_safetensors())],
                    vec![
                        file("xlm-roberta/config.json", "config.json")?,
                        file(&format!("xlm-roberta/{shard}"), "model.safetensors")?,
                    ],
                ]
            }
            Self::Torch => vec![
                vec![file("electra-bin/pytorch_model.bin", "pytorch_model.bin")?],
                vec![("pytorch_model.bin".to_owned(), old_torch())],
            ],
            Self::Config => {
                let mut seeds = Vec::new();
                for name in ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "tasks/bert-nli"] {
                    seeds.push(vec![file(&format!("{name}/config.json"), "config.json")?]);
                }
                seeds
            }
            Self::Tokenizer => {
                let names = [
                    "bert",
                    "roberta",
                    "xlm-roberta",
                    "distilbert",
                    "sentence-max",
                    "sentence/dense",
                    "sentence/own-folder",
                ];
                let seed = |name: &str| {
                    let mut files = read_all(&fixtures.join(name), "")?;
                    if name.starts_with("sentence") {
                        files.push(("model.safetensors".to_owned(), small_safetensors()));
                    }
                    Ok(files)
                };
                let mut seeds = names.into_iter().map(seed).collect::<Result<Vec<_>>>()?;
                seeds.extend(old_vocabularies());
                seeds
            }
        })
    }
}

/// The files of a fixture, those in folders too, their names with `prefix`; without weights and what is expected of it.
fn read_all(folder: &Path, prefix: &str) -> Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        let weights = path.extension().is_some_and(|x| WEIGHTS.iter().any(|w| x == *w));
        if path.is_dir() {
            files.extend(read_all(&path, &format!("{name}/"))?);
        } else if !weights && !name.starts_with("golden") {
            files.push((name, fs::read(path)?));
        }
    }
    Ok(files)
}

fn tokenise(folder: &Path) -> String {
    let described = Description::of(folder.display().to_string());
    let described =
        described.map_or_else(|e| e.to_string(), |d| d.sentence.map_or_else(|e| e.to_string(), |_| "fine".into()));
    let tokenizer = match AutoTokenizer::from_folder(folder, Some(1)) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return format!("{error}; {described}"),
    };
    for text in TEXTS {
        if let Err(error) = tokenizer.encode_pair(text, "a").and(tokenizer.encode(text)) {
            return format!("{error}; {described}");
        }
    }
    let ids: Vec<u32> = (0..tokenizer.vocab_size().min(300) as u32).collect();
    let decoded = tokenizer.decode(&ids, true).map_or_else(|e| e.to_string(), |_| "decoded".into());
    format!("{} {decoded}; {described}", tokenizer.kind())
}

fn small_safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[8,12]}}"#;
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 12]].concat()
}

/// A state dict of one tensor in the format before zip.
fn old_torch() -> Vec<u8> {
    let front = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u.";
    let storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04NtQ";
    let tensor = b"K\x00K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtR";
    let object =
        [b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n", &storage[..], tensor, b"s."].concat();
    let rest = [&b"\x80\x02](X\x01\x00\x00\x000e."[..], &4_u64.to_le_bytes(), &[0; 16]].concat();
    [&front[..], &object, &rest].concat()
}

/// Folders as they were before `tokenizer.json`.
fn old_vocabularies() -> Vec<Files> {
    let class =
        |name: &str| ("tokenizer_config.json".to_owned(), format!(r#"{{"tokenizer_class": "{name}"}}"#).into_bytes());
    let piece = |text: &str, kind: u8| {
        let inner = [&[0x0a, text.len() as u8], text.as_bytes(), &[0x15, 0, 0, 0x80, 0xbf, 0x18, kind]].concat();
        [&[0x0a, inner.len() as u8], &inner[..]].concat()
    };
    let pieces = [("<unk>", 2), ("[CLS]", 3), ("[SEP]", 3), ("▁", 1), ("a", 1), ("quick", 1), ("<sym>", 4)];
    // A normaliser whose trie is empty, which is refused, but is a start.
    let normalizer = b"\x1a\x0a\x12\x08\x04\x00\x00\x00\x00\x04\x00\x00";
    let spm = [pieces.iter().flat_map(|(text, kind)| piece(text, *kind)).collect(), normalizer.to_vec()].concat();
    let plain = spm[..spm.len() - normalizer.len()].to_vec();
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nquick\n##s\n".as_bytes().to_vec();
    let ids = r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6}"#.as_bytes().to_vec();
    let settings =
        r#"{"tokenizer_class": "BertTokenizer", "added_tokens_decoder": {"9": {"content": "x", "lstrip": true}}}"#;
    vec![
        vec![class("BertTokenizer"), ("vocab.txt".into(), vocab.clone())],
        vec![("tokenizer_config.json".into(), settings.as_bytes().to_vec()), ("vocab.txt".into(), vocab)],
        vec![
            class("RobertaTokenizer"),
            ("vocab.json".into(), ids),
            ("merges.txt".into(), b"#version: 0.2\na b\n".to_vec()),
        ],
        vec![class("XLMRobertaTokenizer"), ("sentencepiece.bpe.model".into(), plain.clone())],
        vec![class("CamembertTokenizer"), ("sentencepiece.bpe.model".into(), spm)],
        vec![class("DebertaV2Tokenizer"), ("spm.model".into(), plain)],
    ]
}
