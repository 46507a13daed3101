//! Who can take part: `study/peers.toml`, and how each of its workers is started on this machine.
//!
//! Foreign engines are Python programs in virtual environments; `setup.rs` makes those.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::hex::hex;
use crate::plan::{once, twice};
use crate::record::Variant;
use crate::setup::home_python;
use crate::worker::Launch;
use crate::{Error, Result};

/// The workers' programs, by file name.
const WORKERS: [(&str, &str); 9] = [
    ("protocol.py", include_str!("../../../study/workers/protocol.py")),
    ("convert.py", include_str!("../../../study/workers/convert.py")),
    ("torch_worker.py", include_str!("../../../study/workers/torch_worker.py")),
    ("torch_operations.py", include_str!("../../../study/workers/torch_operations.py")),
    ("onnxruntime_worker.py", include_str!("../../../study/workers/onnxruntime_worker.py")),
    ("openvino_worker.py", include_str!("../../../study/workers/openvino_worker.py")),
    ("mlx_worker.py", include_str!("../../../study/workers/mlx_worker.py")),
    ("mlx_models.py", include_str!("../../../study/workers/mlx_models.py")),
    ("mlx_operations.py", include_str!("../../../study/workers/mlx_operations.py")),
];

/// All peers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// What Python engines need, several of them together.
    #[serde(rename = "environment", default)]
    environments: Vec<Environment>,
    /// The engines.
    #[serde(rename = "peer")]
    peers: Vec<Peer>,
}

/// A virtual environment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub id: String,
    /// What pip installs into it.
    pub packages: Vec<String>,
}

/// An engine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name in plans and records.
    pub id: String,
    /// Its name in tables.
    pub title: String,
    /// A file of `study/workers/`; `mlxt` for this program itself.
    worker: String,
    /// The environment it runs in.
    environment: Option<String>,
    /// Where it can run.
    devices: Vec<String>,
    /// Its ways of working.
    #[serde(rename = "mode")]
    modes: Vec<Mode>,
}

/// A way of working of an engine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mode {
    id: String,
    dtypes: Vec<String>,
    /// The peer's own without it.
    devices: Option<Vec<String>>,
    #[serde(default)]
    models: bool,
    #[serde(default)]
    operations: bool,
    /// Variables of its process.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// A variant with `*` for any peer, mode, device or dtype: `torch/*/cpu/f32`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern([String; 4]);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        let parts = <[String; 4]>::try_from(parts);
        parts.map(Self).map_err(|_| format!("{text:?} is not PEER/MODE/DEVICE/DTYPE, each a name or *"))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl Pattern {
    /// Whether a variant is one of these.
    pub fn matches(&self, variant: &Variant) -> bool {
        let Variant { peer, mode, device, dtype } = variant;
        self.0.iter().zip([peer, mode, device, dtype]).all(|(pattern, name)| pattern == "*" || pattern == name)
    }
}

/// What a variant is asked to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole encoders.
    Models,
    /// Single operations.
    Operations,
}

impl Peers {
    /// Those of `study/peers.toml`.
    ///
    /// # Errors
    /// None with the file this program is built with.
    pub fn built_in() -> Result<Self> {
        Self::parse("peers.toml", include_str!("../../../study/peers.toml"))
    }

    /// Those of another file of the same form.
    ///
    /// # Errors
    /// A file that is none, has something twice, or whose peers name environments it has not.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&path.to_string_lossy(), &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let fault = |what| Error::Plan { name: name.into(), what };
        let peers: Self = toml::from_str(text).map_err(|e| fault(e.to_string()))?;
        peers.all_once().map_err(fault)?;
        for peer in &peers.peers {
            if let Some(environment) = &peer.environment {
                peers.environment(environment).map_err(|e| fault(e.to_string()))?;
            }
        }
        Ok(peers)
    }

    /// Refuses what has the name of another: it would stand for the other, or be measured under its name.
    fn all_once(&self) -> Result<(), String> {
        once("environment", &self.environments.iter().map(|environment| &environment.id).collect::<Vec<_>>())?;
        once("peer", &self.peers.iter().map(|peer| &peer.id).collect::<Vec<_>>())?;
        let everyone = [Pattern(["*"; 4].map(str::to_owned))];
        for variants in [Kind::Models, Kind::Operations].map(|kind| self.variants(kind, &everyone)) {
            if let Some((_, place)) = twice(&variants) {
                return Err(format!("{} is there twice: leave one out of the modes", variants[place]));
            }
        }
        Ok(())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// The peer of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &str) -> Result<&Peer> {
        self.peers.iter().find(|peer| peer.id == id).ok_or_else(|| {
            let names: Vec<_> = self.peers.iter().map(|peer| peer.id.as_str()).collect();
            Error::Plan { name: id.into(), what: format!("there is no such peer: one of {}", names.join(", ")) }
        })
    }

    /// The environment of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn environment(&self, id: &str) -> Result<&Environment> {
        let found = self.environments.iter().find(|environment| environment.id == id);
        found.ok_or_else(|| Error::Plan { name: id.into(), what: "there is no such environment".into() })
    }

    /// Every variant of a kind that one of `patterns` names, in the order of the table.
    pub fn variants(&self, kind: Kind, patterns: &[Pattern]) -> Vec<Variant> {
        let mut all = Vec::new();
        for peer in &self.peers {
            for mode in &peer.modes {
                let runs = match kind {
                    Kind::Models => mode.models,
                    Kind::Operations => mode.operations,
                };
                if !runs {
                    continue;
                }
                for device in mode.devices.as_ref().unwrap_or(&peer.devices) {
                    let variant = |dtype: &String| Variant {
                        peer: peer.id.clone(),
                        mode: mode.id.clone(),
                        device: device.clone(),
                        dtype: dtype.clone(),
                    };
                    all.extend(mode.dtypes.iter().map(variant));
                }
            }
        }
        all.retain(|variant| patterns.iter().any(|pattern| pattern.matches(variant)));
        all
    }
}

impl Peer {
    /// The environment it runs in; `None` for this program itself.
    pub fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    /// The mode that stands first.
    pub fn first_mode(&self) -> Option<&str> {
        self.modes.first().map(|mode| mode.id.as_str())
    }

    fn mode(&self, id: &str) -> Option<&Mode> {
        self.modes.iter().find(|mode| mode.id == id)
    }
}

/// Where the study keeps environments, workers and random checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The folder.
    pub folder: PathBuf,
    /// This program, which is a worker too.
    pub program: PathBuf,
}

impl Home {
    /// Where random checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    /// The folder of an environment: another one when its packages change.
    pub fn environment(&self, environment: &Environment) -> PathBuf {
        let name = format!("{}-{}", environment.id, short_hash(environment.packages.join("\n").as_bytes()));
        self.folder.join("environments").join(name)
    }

    /// The interpreter of an environment: that named by `MLXT_STUDY_PYTHON_<ID>`, or the one `study setup` made.
    ///
    /// # Errors
    /// What to do if there is none.
    pub fn python(&self, environment: &Environment) -> Result<PathBuf, String> {
        let variable = format!("MLXT_STUDY_PYTHON_{}", environment.id.to_uppercase().replace('-', "_"));
        if let Some(path) = std::env::var_os(&variable) {
            let path = PathBuf::from(path);
            let there = path.is_file();
            return if there { Ok(path) } else { Err(format!("{variable} names a program that is not there")) };
        }
        let folder = self.environment(environment);
        if !folder.join("complete").is_file() {
            return Err("not set up".into());
        }
        Ok(home_python(&folder))
    }

    /// How to start the worker of a variant.
    ///
    /// # Errors
    /// What is missing, and the command that mends it.
    pub fn launch(&self, peers: &Peers, peer: &Peer, mode: &str, threads: usize) -> Result<Launch, String> {
        let mode = peer.mode(mode).ok_or_else(|| format!("{} has no mode {mode:?}", peer.id))?;
        let own = mode.env.iter().map(|(name, value)| (name.clone(), OsString::from(value)));
        let mut environment: Vec<(String, OsString)> = own.collect();
        let Some(id) = &peer.environment else {
            return Ok(Launch { program: self.program.clone(), arguments: vec!["worker".into()], environment });
        };
        let advice = |what| format!("{what}: run `mlxt study setup {}`", peer.id);
        let needed = peers.environment(id).map_err(|e| e.to_string())?;
        let python = self.python(needed).map_err(advice)?;
        let workers = self.workers().map_err(|e| e.to_string())?;
        // Libraries read these when they are imported, before any request.
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
            environment.push((name.into(), threads.to_string().into()));
        }
        environment.push(("MLXT_STUDY_CACHE".into(), self.folder.join("exports").into()));
        environment.push(("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        environment.push(("HF_HUB_OFFLINE".into(), "1".into()));
        Ok(Launch { program: python, arguments: vec![workers.join(&peer.worker).into()], environment })
    }

    /// The folder with the workers' programs, written if it is not there yet.
    fn workers(&self) -> Result<PathBuf> {
        let all: String = WORKERS.iter().map(|(_, text)| *text).collect();
        let folder = self.folder.join(format!("workers-{}", short_hash(all.as_bytes())));
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        for (name, text) in WORKERS {
            let path = folder.join(name);
            let written = std::fs::read_to_string(&path).is_ok_and(|there| there == text);
            if !written {
                // Under a name of its own first: several that start at the same time each find it missing.
                let mut part = NamedTempFile::new_in(&folder).map_err(Error::io("write", &path))?;
                part.write_all(text.as_bytes()).map_err(Error::io("write", &path))?;
                part.persist(&path).map_err(|e| Error::io("write", &path)(e.error))?;
            }
        }
        Ok(folder)
    }
}

fn short_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..6])
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_there_twice_is_refused() {
        let mode = |id: &str| format!("[[peer.mode]]\nid = {id:?}\ndtypes = [\"f32\"]\nmodels = true\n");
        let peer = "[[peer]]\nid = \"a\"\ntitle = \"A\"\nworker = \"mlxt\"\ndevices = [\"cpu\"]\n";
        let environment = "[[environment]]\nid = \"e\"\npackages = []\n";
        let refused = |text: &str| Peers::parse("x", text).unwrap_err().to_string();
        let good = format!("{environment}{peer}{}", mode("m"));
        Peers::parse("x", &good).unwrap();
        assert!(refused(&format!("{environment}{good}")).starts_with("x: environment: e is there twice"));
        assert!(refused(&format!("{good}{peer}{}", mode("n"))).starts_with("x: peer: a is there twice"));
        assert!(refused(&format!("{good}{}", mode("m"))).starts_with("x: a/m/cpu/f32 is there twice"));
    }

    #[test]
    fn workers_are_whole_for_all_that_start_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { folder: folder.path().to_owned(), program: PathBuf::new() };
        let start = || {
            let workers = home.workers().unwrap();
            for (name, text) in WORKERS {
                assert_eq!(std::fs::read_to_string(workers.join(name)).unwrap(), text);
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(start))));
        assert_eq!(std::fs::read_dir(home.workers().unwrap()).unwrap().count(), WORKERS.len());
    }
}
