//! From a model's name to a folder with its files: a folder as it is, the Hugging Face cache, then the hub.
//!
//! The cache is the one Python shares (`models--organisation--name/{refs,snapshots,blobs}`). A model that is complete in
//! it is used without asking the network whether it has changed; [`Hub::pull`] asks. Nothing is ever printed.
//!
//! Where next: `cache.rs` for the cache's layout, `download.rs` for what is downloaded, `blob.rs` for one file of it,
//! `client.rs` for the network.

mod blob;
mod cache;
mod client;
mod download;
mod files;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::options::{Listener, Options};
use crate::{Error, Event, Result, bundled, modules};

/// The branch that is meant if none is named.
const MAIN: &str = "main";

/// Where models come from: the cache, the hub and the credentials for it.
///
/// ```
/// use mlx_transformers::Hub;
/// let hub = Hub { offline: true, ..Hub::from_env() };
/// assert!(hub.find("no-such-organisation/no-such-model", None).is_err());
/// ```
#[derive(Clone, Default)]
pub struct Hub {
    /// The cache's folder, the one that holds `models--*`.
    pub cache: PathBuf,
    /// Where this program keeps models that come from elsewhere than a hub.
    pub data: PathBuf,
    /// The hub's address; the public hub if `None`.
    pub endpoint: Option<String>,
    /// The access token, sent to the hub only.
    pub token: Option<String>,
    /// Whether the network is never touched.
    pub offline: bool,
    /// How long a download may be silent; a minute if `None`.
    pub download_timeout: Option<Duration>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cache, data, endpoint, token, offline, download_timeout } = self;
        let token = token.as_ref().map(|_| "..");
        f.debug_struct("Hub")
            .field("cache", cache)
            .field("data", data)
            .field("endpoint", endpoint)
            .field("token", &token)
            .field("offline", offline)
            .field("download_timeout", download_timeout)
            .finish()
    }
}

impl Hub {
    /// As Python's `huggingface_hub` reads its environment: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_ENDPOINT`,
    /// `HF_TOKEN`, `HF_TOKEN_PATH` (and the token file of `hf auth login`), `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// Paths are taken as they are. An address or a token that cannot be one is an error of whatever asks the network.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name), &std::env::home_dir().unwrap_or_default())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>, user: &Path) -> Self {
        // What is no text keeps a mark of that (U+FFFD), which neither an address nor a token may have: `client.rs` refuses it.
        let text = |value: OsString| value.to_string_lossy().trim().to_owned();
        let set = |name: &str| variable(name).map(text).filter(|v| !v.is_empty());
        let path = |name: &str| {
            let value = variable(name)?;
            let path = PathBuf::from(value.to_str().map_or(value.as_os_str(), |text| text.trim().as_ref()));
            let path = path.strip_prefix("~").map_or_else(|_| path.clone(), |rest| user.join(rest));
            Some(path).filter(|path| !path.as_os_str().is_empty())
        };
        let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache"));
        let home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let text = std::fs::read_to_string(token_file).ok()?;
            Some(text.trim().to_owned()).filter(|t| !t.is_empty())
        });
        let yes = |name| set(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        Self {
            cache: path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub")),
            data: path("XDG_DATA_HOME")
                .unwrap_or_else(|| user_data(user, path("LOCALAPPDATA")))
                .join("mlx-transformers"),
            endpoint: set("HF_ENDPOINT").map(|e| e.trim_end_matches('/').to_owned()),
            token,
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            download_timeout: set("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|seconds| seconds.parse().ok())
                .filter(|&seconds| seconds > 0)
                .map(Duration::from_secs),
        }
    }

    /// The folder of the model `name` (a folder or a hub id) at `revision` (`main` if `None`), downloading what is
    /// missing.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`] for a name that can be neither; [`Error::Hub`] if the hub or its cache cannot give it.
    pub fn find(&self, name: &str, revision: Option<&str>) -> Result<ModelFolder> {
        self.locate(name, revision, &|_| {})
    }

    /// As [`Hub::find`], but asks the hub for the newest files even if the cache has the model. `listener` hears of
    /// downloads.
    ///
    /// # Errors
    /// As [`Hub::find`].
    pub fn pull(&self, name: &str, revision: Option<&str>, listener: impl Fn(Event<'_>)) -> Result<ModelFolder> {
        if Path::new(name).is_dir() {
            return Ok(ModelFolder { path: name.into(), origin: Origin::Folder });
        }
        let (id, revision) = checked(name, revision)?;
        if self.offline {
            let missing = "pulling a model takes the network".to_owned();
            return Err(HubError::Offline { name: id.to_owned(), missing }.into());
        }
        let path = download::fetch(self, id, revision, &listener)?;
        Ok(ModelFolder { path, origin: Origin::Hub })
    }

    pub(crate) fn locate(
        &self,
        name: &str,
        revision: Option<&str>,
        listener: &dyn Fn(Event<'_>),
    ) -> Result<ModelFolder> {
        if Path::new(name).is_dir() {
            return Ok(ModelFolder { path: name.into(), origin: Origin::Folder });
        }
        let (id, revision) = checked(name, revision)?;
        let cached = cache::Repo::new(&self.cache, id).find(revision);
        let missing = match cached {
            cache::Found::Complete(path) => return Ok(ModelFolder { path, origin: Origin::Cache }),
            cache::Found::Usable(path) => Ok(path),
            cache::Found::Incomplete(missing) => Err(missing),
        };
        let data = if id == bundled::ID && revision == MAIN { bundled::unpacked(&self.data) } else { None };
        if let Some(path) = data {
            return Ok(ModelFolder { path, origin: Origin::Data });
        }
        if self.offline {
            return match missing {
                Ok(path) => Ok(ModelFolder { path, origin: Origin::Cache }),
                Err(missing) => Err(HubError::Offline { name: id.to_owned(), missing }.into()),
            };
        }
        match (download::fetch(self, id, revision, listener), missing) {
            (Ok(path), _) => Ok(ModelFolder { path, origin: Origin::Hub }),
            // The optional files that could not be asked for are most often not there at all.
            (Err(HubError::Unreachable { .. }), Ok(path)) => Ok(ModelFolder { path, origin: Origin::Cache }),
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// The folder of a model, by the options of a [`crate::Builder`].
pub(crate) fn find(name: &str, options: &Options) -> Result<ModelFolder> {
    let listener: &Listener = &options.listener;
    options.hub.locate(name, options.revision.as_deref(), &|event| listener(event))
}

/// A folder that holds a model, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFolder {
    path: PathBuf,
    origin: Origin,
}

impl ModelFolder {
    pub(crate) fn new(path: PathBuf, origin: Origin) -> Self {
        Self { path, origin }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder with `config.json`, weights and tokenizer: nearly always the same, but a model of sentence-transformers may
    /// have its transformer in a folder of its own, which `modules.json` names.
    #[must_use]
    pub fn transformer(&self) -> PathBuf {
        self.path.join(modules::transformer(&self.path))
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

/// Where a model came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A folder that was named.
    Folder,
    /// The Hugging Face cache, without asking the network.
    Cache,
    /// The hub, just now.
    Hub,
    /// This program's own data folder.
    Data,
    /// A package index, just now (the demonstration model only).
    Package,
}

/// Why the hub or its cache could not give a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The network may not be used, and the cache lacks something.
    #[error("{name} is not complete in the Hugging Face cache ({missing}) and the network may not be used (offline)")]
    Offline {
        /// The model's id.
        name: String,
        /// What is missing.
        missing: String,
    },
    /// The hub has no such model or revision.
    #[error("the hub has no model {name} at revision {revision} (404): check the spelling")]
    NotFound {
        /// The model's id.
        name: String,
        /// The revision.
        revision: String,
    },
    /// The hub does not let this user read the model, or it does not exist (the hub tells no difference).
    #[error("the hub refuses {name} ({status}): it does not exist, or is private or gated; {advice}")]
    Refused {
        /// The model's id.
        name: String,
        /// The status: 401 or 403.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// The hub has had too many questions from here.
    #[error("the hub is busy and refuses {name} (429): try again {}", wait.map_or_else(|| "later".into(), |w| format!("in {} seconds", w.as_secs())))]
    Busy {
        /// The model's id.
        name: String,
        /// How long the hub asks to wait.
        wait: Option<Duration>,
    },
    /// The hub has the model but not a file that is needed.
    #[error("{name} on the hub has no {file}; it has [{}]", present.join(", "))]
    NoSuchFile {
        /// The model's id.
        name: String,
        /// The file.
        file: String,
        /// Files that come near.
        present: Vec<String>,
    },
    /// A model of sentence-transformers whose texts go through something else than a transformer.
    #[error("{name} on the hub has no transformer: its first module is {class}, which is not supported")]
    NoTransformer {
        /// The model's id.
        name: String,
        /// The class of its first module.
        class: String,
    },
    /// An address or a token that cannot be one.
    #[error("{variable} {problem}")]
    Setting {
        /// The environment's variable that says it, or the variables that may.
        variable: &'static str,
        /// What is wrong with its value, and what it should be. Never a token's own.
        problem: String,
    },
    /// No connection, or no answer in time.
    #[error("cannot reach the hub for {name}: {reason}; if the model is in a folder, give that folder's path")]
    Unreachable {
        /// The model's id.
        name: String,
        /// What happened.
        reason: String,
    },
    /// A download broke off. What came is kept and the next try goes on from there.
    #[error("the download of {file} of {name} broke off: {reason}; try again, it goes on where it stopped")]
    BrokeOff {
        /// The model's id.
        name: String,
        /// The file.
        file: String,
        /// What happened.
        reason: String,
    },
    /// A downloaded file is not what the hub said it would be. It has been removed.
    #[error("{file} of {name} came damaged: {what} should be {expected}, found {found}; try again")]
    Damaged {
        /// The model's id.
        name: String,
        /// The file.
        file: String,
        /// What differs.
        what: &'static str,
        /// As the hub announced it.
        expected: String,
        /// As it came.
        found: String,
    },
    /// The hub answered something else than a hub does.
    #[error("the hub gave no usable answer for {name}: {reason}")]
    Answer {
        /// The model's id.
        name: String,
        /// What it said.
        reason: String,
    },
    /// The cache cannot be written, or another program holds a file for too long.
    #[error("cannot use the Hugging Face cache {}: {reason}", path.display())]
    Cache {
        /// The cache, or the file in it.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A revision that cannot be one.
    #[error("{found:?} is no revision: a branch, a tag or a commit")]
    Revision {
        /// What came.
        found: String,
    },
}

fn refused(id: &str, status: u16, has_token: bool) -> HubError {
    let advice =
        if has_token { "check that the token may read it" } else { "set HF_TOKEN to a token that may read it" };
    HubError::Refused { name: id.to_owned(), status, advice }
}

/// Writes a small file of the cache and the folders above it.
fn write_file(path: &Path, text: &str) -> Result<(), HubError> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)
    };
    write().map_err(|e: std::io::Error| HubError::Cache { path: path.into(), reason: e.to_string() })
}

/// The id and revision, checked for their shape.
fn checked<'a>(name: &'a str, revision: Option<&'a str>) -> Result<(&'a str, &'a str)> {
    let id = if name == bundled::NAME { bundled::ID } else { name };
    let parts: Vec<&str> = id.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_plain(part)) {
        return Err(Error::NoSuchModel { name: name.to_owned() });
    }
    let revision = revision.unwrap_or(MAIN);
    if !revision.split('/').all(is_plain) {
        return Err(HubError::Revision { found: revision.to_owned() }.into());
    }
    Ok((id, revision))
}

/// One part of a path that leads nowhere else: what the hub allows in names.
fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.chars().all(allowed)
}

/// The user's folder for data of programs, where `XDG_DATA_HOME` does not name one.
fn user_data(user: &Path, local_app_data: Option<PathBuf>) -> PathBuf {
    match local_app_data {
        Some(path) if cfg!(windows) => path,
        _ if cfg!(target_os = "macos") => user.join("Library").join("Application Support"),
        _ => user.join(".local").join("share"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Hub {
        let get = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(*v));
        Hub::from_variables(get, Path::new("/home/me"))
    }

    #[test]
    fn the_environment_is_read_as_python_reads_it() {
        assert_eq!(from(&[]).cache, Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(from(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(from(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/home/me/hf/hub"));
        assert_eq!(from(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]).cache, Path::new("/c"));
        assert_eq!(from(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/h")]).cache, Path::new("/h/hub"));
        assert_eq!(from(&[("XDG_DATA_HOME", "/d")]).data, Path::new("/d/mlx-transformers"));
        let offline = |v| from(&[("HF_HUB_OFFLINE", v)]).offline;
        assert!(offline("1") && offline("true") && !offline("0") && !offline(""));
        assert_eq!(from(&[("HF_ENDPOINT", "http://here/")]).endpoint.as_deref(), Some("http://here"));
        assert_eq!(from(&[("HF_TOKEN", " secret\n")]).token.as_deref(), Some("secret"));
        assert!(!format!("{:?}", from(&[("HF_TOKEN", "secret")])).contains("secret"));
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_text_is_a_path_or_an_error_that_names_the_variable() {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let from = |variable: &str, value: &[u8]| {
            let get = |name: &str| (name == variable).then(|| OsString::from_vec(value.to_vec()));
            Hub::from_variables(get, Path::new("/home/me"))
        };
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        assert_eq!(bytes(&from("HF_HUB_CACHE", b"/c\xff").cache), b"/c\xff");
        assert_eq!(bytes(&from("HF_HOME", b"~/h\xff").cache), b"/home/me/h\xff/hub");
        assert_eq!(bytes(&from("XDG_DATA_HOME", b"/d\xff").data), b"/d\xff/mlx-transformers");
        for (variable, value) in [
            ("HF_ENDPOINT", &b"http://h\xff"[..]),
            ("HF_ENDPOINT", b"nonsense"),
            ("HF_ENDPOINT", b"ftp://here"),
            ("HF_ENDPOINT", b"http://"),
            ("HF_TOKEN", b"hf_\xff"),
            ("HF_TOKEN", b"a\nb"),
            ("HF_TOKEN", b"a b"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let hub = Hub { cache: folder.path().into(), ..from(variable, value) };
            let error = hub.find("a/b", None).unwrap_err();
            assert!(matches!(&error, Error::Hub(HubError::Setting { .. })), "{error}");
            let text = error.to_string();
            assert!(text.contains(variable) && !text.contains("a\nb") && !text.contains("hf_"), "{text}");
        }
    }

    #[test]
    fn the_token_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from-file\n").unwrap();
        assert_eq!(from(&[("HF_HOME", folder.path().to_str().unwrap())]).token.as_deref(), Some("from-file"));
    }

    #[test]
    fn only_names_that_stay_inside_are_ids() {
        for name in ["bert", "google-bert/bert-base-uncased", "a/b.c_d-1"] {
            assert_eq!(checked(name, None).unwrap(), (name, "main"));
        }
        for name in ["", "/", "a/", "/a", "a/b/c", "..", "a/..", "../a", ".hidden/a", "a b", "a\\b", "a/b\0", "ä/b"] {
            let error = checked(name, None).unwrap_err();
            assert!(error.to_string().contains("neither an existing folder nor a hub id"), "{name:?}: {error}");
        }
        assert_eq!(checked("all-MiniLM-L6-v2", None).unwrap().0, "sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(checked("a", Some("refs/pr/1")).unwrap().1, "refs/pr/1");
        for revision in ["", "../main", "a//b", "/etc"] {
            assert!(checked("a", Some(revision)).is_err(), "{revision:?}");
        }
    }
}
