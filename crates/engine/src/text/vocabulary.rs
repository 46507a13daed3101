//! Folders without `tokenizer.json`: what that file would say, put together from the vocabulary files that older
//! checkpoints have instead and the class that the settings name.
//!
//! Read are `vocab.txt` (BERT, DistilBERT, ELECTRA, `MPNet`) and `vocab.json` with `merges.txt` (RoBERTa); models of
//! SentencePiece in `unigram.rs`. How each class puts its parts together is that of `transformers` 5; `config.rs` then
//! applies the settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::config::{TokenizerConfig, Vocabulary};
use super::parse::parse;
use super::unigram;
use crate::json::read_optional;
use crate::{Error, Result};

/// Ids by token.
type Ids = BTreeMap<String, u32>;

/// Puts a tokenizer together, with the file that its vocabulary is from; `None` if the folder lacks the files that the
/// class has.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`], [`Error::SentencePiece`] and [`Error::Tokenizer`] for unreadable or damaged files, and where a special token is
/// not in the vocabulary.
pub(super) fn assemble(folder: &Path, config: &TokenizerConfig) -> Result<Option<(PathBuf, Tokenizer)>> {
    match config.vocabulary() {
        Some(Vocabulary::WordPiece) => word_piece(folder, config),
        Some(Vocabulary::ByteLevel) => byte_level(folder, config),
        Some(Vocabulary::Unigram(class)) => unigram::build(folder, config, class),
        None => Ok(None),
    }
}

/// `vocab.txt`: a token a line; its id is the line's number.
fn word_piece(folder: &Path, config: &TokenizerConfig) -> Result<Option<(PathBuf, Tokenizer)>> {
    let path = folder.join("vocab.txt");
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let ids: Ids = (0..).zip(text.lines()).map(|(id, line)| (line.trim_end().to_owned(), id)).collect();
    let [cls, sep, unk] = ["cls", "sep", "unk"].map(|role| config.special(role));
    let (cls_id, sep_id) = (id_of(cls, &ids, &path)?, id_of(sep, &ids, &path)?);
    id_of(unk, &ids, &path)?;
    let template = template((cls, cls_id), (sep, sep_id), !config.separates_twice());
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true,
    });
    let model = json!({
        "type": "WordPiece",
        "unk_token": unk, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids,
    });
    whole(path, &normalizer, &json!({"type": "BertPreTokenizer"}), &template, &model).map(Some)
}

/// `vocab.json`, ids by token, and `merges.txt`, a pair of tokens a line, the first to be merged first.
fn byte_level(folder: &Path, config: &TokenizerConfig) -> Result<Option<(PathBuf, Tokenizer)>> {
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
    whole(path, &Value::Null, &pre_tokenizer, &processor, &model).map(Some)
}

/// `first` and `last` around every text, and `last` between those of a pair: once where the second text has a type of its
/// own (as BERT has it), twice where it has none (as RoBERTa has it).
pub(super) fn template(first: (&str, u32), last: (&str, u32), types: bool) -> Value {
    let special = |token: &str, part: u32| json!({"SpecialToken": {"id": token, "type_id": part}});
    let sequence = |name: &str, part: u32| json!({"Sequence": {"id": name, "type_id": part}});
    let defined = |(token, id): (&str, u32)| json!({"id": token, "ids": [id], "tokens": [token]});
    let single = [special(first.0, 0), sequence("A", 0), special(last.0, 0)];
    let second = u32::from(types);
    let between = (!types).then(|| special(last.0, 0));
    let rest = between.into_iter().chain([sequence("B", second), special(last.0, second)]);
    let pair: Vec<Value> = single.iter().cloned().chain(rest).collect();
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {first.0: defined(first), last.0: defined(last)},
    })
}

fn whole(
    path: PathBuf,
    normalizer: &Value,
    pre_tokenizer: &Value,
    post_processor: &Value,
    model: &Value,
) -> Result<(PathBuf, Tokenizer)> {
    let parts = json!({
        "version": "1.0",
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "model": model,
        "added_tokens": [],
    });
    match parse(parts.to_string().as_bytes()) {
        Ok(tokenizer) => Ok((path, tokenizer)),
        Err(e) => Err(damaged(&path, e.to_string())),
    }
}

fn id_of(token: &str, ids: &Ids, path: &Path) -> Result<u32> {
    ids.get(token).copied().ok_or_else(|| damaged(path, format!("it lacks the special token {token:?}")))
}

fn read_text(path: &Path) -> Result<Option<String>> {
    let text = read(path)?.map(String::from_utf8).transpose();
    text.map_err(|e| damaged(path, e.to_string()))
}

/// The file, or `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Tokenizer { path: path.into(), reason }
}
