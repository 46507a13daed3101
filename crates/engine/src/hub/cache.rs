//! The Hugging Face cache on disk: which snapshot a revision is, and whether everything is there.
//!
//! ```text
//! models--organisation--name/refs/main                  the commit that a branch or tag was last seen at
//! models--organisation--name/snapshots/<commit>/<file>  a link into blobs/
//! models--organisation--name/.no_exist/<commit>/<file>  empty: the hub has no such file
//! .locks/models--organisation--name/<etag>.lock         held while a file of that etag is downloaded
//! ```

use std::path::{Path, PathBuf};

use super::files::Files;
use super::is_plain;

/// What a cache holds of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All that is needed, and it is known which optional files do not exist.
    Complete(PathBuf),
    /// All that must be there; some optional files were never asked for.
    Usable(PathBuf),
    /// Not enough; what is missing, in words.
    Incomplete(String),
}

/// One model's part of a cache.
#[derive(Debug)]
pub(super) struct Repo {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repo {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    pub(super) fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// What there is at `revision`, a branch, tag or commit.
    pub(super) fn find(&self, revision: &str) -> Found {
        let commit = match std::fs::read_to_string(self.reference(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        let snapshot = self.snapshot(&commit);
        if !is_plain(&commit) || !snapshot.is_dir() {
            return Found::Incomplete(format!("no {}", snapshot.display()));
        }
        let has = |file: &str| snapshot.join(file).is_file();
        let files = Files::new(&snapshot, has);
        let missing = |file: &str| Found::Incomplete(format!("no {file}"));
        if !has(&files.config()) {
            return missing(&files.config());
        }
        let (one, index) = files.weights();
        if !has(&one) {
            let Some(shards) = files.shards(&snapshot.join(index)) else { return missing(&one) };
            if let Some(shard) = shards.iter().find(|shard| !has(shard)) {
                return missing(shard);
            }
        }
        let settled = |file: &String| has(file) || self.absent(&commit, file).is_file();
        if files.optional().iter().all(settled) { Found::Complete(snapshot) } else { Found::Usable(snapshot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_snapshot_is_found_by_branch_and_commit_once_it_has_all_files() {
        let cache = tempfile::tempdir().unwrap();
        let repo = Repo::new(cache.path(), "org/name");
        let snapshot = cache.path().join("models--org--name/snapshots").join(COMMIT);
        assert!(matches!(repo.find("main"), Found::Incomplete(_)));

        write(&cache.path().join("models--org--name/refs/main"), COMMIT);
        write(&snapshot.join("config.json"), "{}");
        assert_eq!(repo.find("main"), Found::Incomplete("no model.safetensors".into()));

        write(
            &snapshot.join("model.safetensors.index.json"),
            r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#,
        );
        write(&snapshot.join("one.safetensors"), "");
        assert_eq!(repo.find("main"), Found::Incomplete("no two.safetensors".into()));
        write(&snapshot.join("two.safetensors"), "");
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()));
        assert_eq!(repo.find(COMMIT), Found::Usable(snapshot.clone()));

        let none = |files: &[&str]| files.iter().for_each(|file| write(&repo.absent(COMMIT, file), ""));
        none(&["modules.json", "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json"]);
        none(&["special_tokens_map.json", "added_tokens.json", "sentence_bert_config.json", "adapter_config.json"]);
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()), "nothing is known of vocabularies");
        none(&["vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spm.model"]);
        assert_eq!(repo.find("main"), Found::Complete(snapshot.clone()));

        let pooling = r#"[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        write(&snapshot.join("modules.json"), pooling);
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()));
        write(&snapshot.join("1_Pooling/config.json"), "{}");
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()), "a length may be in a file of an old name");
        write(&snapshot.join("sentence_bert_config.json"), "{}");
        assert_eq!(repo.find("main"), Found::Complete(snapshot));
    }

    #[test]
    fn a_transformer_in_a_folder_of_its_own_is_looked_for_there() {
        let cache = tempfile::tempdir().unwrap();
        let repo = Repo::new(cache.path(), "org/name");
        let snapshot = repo.snapshot(COMMIT);
        let transformer = r#"[{"path": "0_BERT", "type": "sentence_transformers.models.Transformer"}]"#;
        write(&snapshot.join("modules.json"), transformer);
        // Of the library's version, as very old ones wrote it: no model's.
        write(&snapshot.join("config.json"), "{}");
        assert_eq!(repo.find(COMMIT), Found::Incomplete("no 0_BERT/config.json".into()));
        write(&snapshot.join("0_BERT/config.json"), "{}");
        write(&snapshot.join("0_BERT/pytorch_model.bin.index.json"), r#"{"weight_map": {"a": "one.bin"}}"#);
        assert_eq!(repo.find(COMMIT), Found::Incomplete("no 0_BERT/one.bin".into()));
        write(&snapshot.join("0_BERT/one.bin"), "");
        assert_eq!(repo.find(COMMIT), Found::Usable(snapshot));
    }

    #[test]
    fn nothing_outside_the_cache_is_looked_at() {
        let cache = tempfile::tempdir().unwrap();
        write(&cache.path().join("models--a/refs/main"), "../../..");
        assert!(matches!(Repo::new(cache.path(), "a").find("main"), Found::Incomplete(_)));
        let index = cache.path().join("index.json");
        write(&index, r#"{"weight_map": {"a": "../secret"}}"#);
        assert_eq!(Files::new(cache.path(), |_| false).shards(&index), None);
    }
}
