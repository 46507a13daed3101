//! Folders without `tokenizer.json`: what that file would say, put together from the vocabulary files that older
//! checkpoints have instead and the class that the settings name.
//!
//! Read are `vocab.txt` (BERT, DistilBERT, ELECTRA) and `vocab.json` with `merges.txt` (RoBERTa); models of
//! `sentencepiece` are not. How each class puts its parts together is that of `transformers` 5; `config.rs` then
//! applies the settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::{TokenizerConfig, Vocabulary};
use crate::json::read_optional;
use crate::{Error, Result};

/// A `tokenizer.json` that is not there.
pub(super) struct Assembled {
    /// The file that the vocabulary is from.
    pub(super) path: PathBuf,
    /// What `tokenizer.json` would hold.
    pub(super) json: Vec<u8>,
}

/// Ids by token.
type Ids = BTreeMap<String, u32>;

/// Puts a `tokenizer.json` together; `None` if the folder lacks the files that the class has.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`] and [`Error::Tokenizer`] for unreadable or damaged files, and where a special token is
/// not in the vocabulary.
pub(super) fn assemble(folder: &Path, config: &TokenizerConfig) -> Result<Option<Assembled>> {
    match config.vocabulary() {
        Some(Vocabulary::WordPiece) => word_piece(folder, config),
        Some(Vocabulary::ByteLevel) => byte_level(folder, config),
        None => Ok(None),
    }
}

/// `vocab.txt`: a token a line; its id is the line's number.
fn word_piece(folder: &Path, config: &TokenizerConfig) -> Result<Option<Assembled>> {
    let path = folder.join("vocab.txt");
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let ids: Ids = (0..).zip(text.lines()).map(|(id, line)| (line.trim_end().to_owned(), id)).collect();
    let [cls, sep, unk] = ["cls", "sep", "unk"].map(|role| config.special(role));
    for token in [cls, sep, unk] {
        id_of(token, &ids, &path)?;
    }
    let special = |token: &str, part: u32| json!({"SpecialToken": {"id": token, "type_id": part}});
    let sequence = |name: &str, part: u32| json!({"Sequence": {"id": name, "type_id": part}});
    let defined = |token: &str| json!({"id": token, "ids": [ids.get(token)], "tokens": [token]});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [special(cls, 0), sequence("A", 0), special(sep, 0)],
        "pair": [special(cls, 0), sequence("A", 0), special(sep, 0), sequence("B", 1), special(sep, 1)],
        "special_tokens": {cls: defined(cls), sep: defined(sep)},
    });
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true,
    });
    let model = json!({
        "type": "WordPiece",
        "unk_token": unk, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids,
    });
    Ok(Some(Assembled { path, json: whole(&normalizer, &json!({"type": "BertPreTokenizer"}), &template, &model) }))
}

/// `vocab.json`, ids by token, and `merges.txt`, a pair of tokens a line, the first to be merged first.
fn byte_level(folder: &Path, config: &TokenizerConfig) -> Result<Option<Assembled>> {
    let (path, merges_path) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let Some(ids) = read_optional::<Ids>(&path)? else { return Ok(None) };
    let Some(text) = read_text(&merges_path)? else { return Ok(None) };
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
    {
        let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
        merges.push(pair.ok_or_else(|| damaged(&merges_path, format!("line {number} is no pair of tokens")))?);
    }
    let [cls, sep] = ["cls", "sep"].map(|role| config.special(role));
    let (cls_id, sep_id) = (id_of(cls, &ids, &path)?, id_of(sep, &ids, &path)?);
    let space = config.add_prefix_space();
    let pre_tokenizer =
        json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true});
    let processor = json!({
        "type": "RobertaProcessing",
        "sep": [sep, sep_id], "cls": [cls, cls_id], "trim_offsets": true, "add_prefix_space": space,
    });
    let model = json!({
        "type": "BPE",
        "continuing_subword_prefix": "", "end_of_word_suffix": "", "vocab": ids, "merges": merges,
    });
    Ok(Some(Assembled { path, json: whole(&Value::Null, &pre_tokenizer, &processor, &model) }))
}

fn whole(normalizer: &Value, pre_tokenizer: &Value, post_processor: &Value, model: &Value) -> Vec<u8> {
    let parts = json!({
        "version": "1.0",
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "model": model,
        "added_tokens": [],
    });
    parts.to_string().into_bytes()
}

fn id_of(token: &str, ids: &Ids, path: &Path) -> Result<u32> {
    ids.get(token).copied().ok_or_else(|| damaged(path, format!("it lacks the special token {token:?}")))
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|e| damaged(path, e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Tokenizer { path: path.into(), reason }
}
