//! The Hugging Face cache on disk: which snapshot a revision is, and whether everything is there.
//!
//! ```text
//! models--organisation--name/refs/main                  the commit that a branch or tag was last seen at
//! models--organisation--name/snapshots/<commit>/<file>  a link into blobs/
//! models--organisation--name/.no_exist/<commit>/<file>  empty: the hub has no such file
//! .locks/models--organisation--name/<etag>.lock         held while a file of that etag is downloaded
//! ```

use std::path::{Path, PathBuf};

use super::files::{CONFIG, FORMATS, MODULES, OPTIONAL, TOKENIZER, VOCABULARIES, module_files, shards};
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
        if !has(CONFIG) {
            return Found::Incomplete(format!("no {CONFIG}"));
        }
        let (one, index) = FORMATS.into_iter().find(|(one, index)| has(one) || has(index)).unwrap_or(FORMATS[0]);
        if !has(one) {
            let Some(shards) = shards(&snapshot.join(index)) else {
                return Found::Incomplete(format!("no {one}"));
            };
            if let Some(missing) = shards.iter().find(|shard| !has(shard)) {
                return Found::Incomplete(format!("no {missing}"));
            }
        }
        let settled = |file: &str| has(file) || self.absent(&commit, file).is_file();
        let tokenizer = has(TOKENIZER) || VOCABULARIES.into_iter().all(settled);
        let optional = OPTIONAL.into_iter().all(settled);
        if optional && tokenizer && module_files(&snapshot.join(MODULES)).iter().all(|file| settled(file)) {
            Found::Complete(snapshot)
        } else {
            Found::Usable(snapshot)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::INDEX;
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
        write(&snapshot.join(CONFIG), "{}");
        assert_eq!(repo.find("main"), Found::Incomplete("no model.safetensors".into()));

        write(&snapshot.join(INDEX), r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
        write(&snapshot.join("one.safetensors"), "");
        assert_eq!(repo.find("main"), Found::Incomplete("no two.safetensors".into()));
        write(&snapshot.join("two.safetensors"), "");
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()));
        assert_eq!(repo.find(COMMIT), Found::Usable(snapshot.clone()));

        for file in OPTIONAL {
            write(&repo.absent(COMMIT, file), "");
        }
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()), "nothing is known of vocabularies");
        for file in VOCABULARIES {
            write(&repo.absent(COMMIT, file), "");
        }
        assert_eq!(repo.find("main"), Found::Complete(snapshot.clone()));

        let pooling = r#"[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
        write(&snapshot.join(MODULES), pooling);
        assert_eq!(repo.find("main"), Found::Usable(snapshot.clone()));
        write(&snapshot.join("1_Pooling/config.json"), "{}");
        assert_eq!(repo.find("main"), Found::Complete(snapshot));
    }

    #[test]
    fn nothing_outside_the_cache_is_looked_at() {
        let cache = tempfile::tempdir().unwrap();
        write(&cache.path().join("models--a/refs/main"), "../../..");
        assert!(matches!(Repo::new(cache.path(), "a").find("main"), Found::Incomplete(_)));
        let index = cache.path().join("index.json");
        write(&index, r#"{"weight_map": {"a": "../secret"}}"#);
        assert_eq!(shards(&index), None);
    }
}
