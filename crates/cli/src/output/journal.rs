//! How far a run is that writes a file from a file, so that another can go on after a kill, a power cut or a full disk.
//!
//! Beside the output `x` lie, until it is whole, `x.partial` with the results so far and `x.resume`, this journal: how
//! many rows of the input are done, how many bytes of `x.partial` hold their results, and for which input and options
//! that is so. The journal is replaced only once those bytes are on the disk, so it never promises too much; what lies
//! behind them in `x.partial` is cut off by the run that goes on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::input::Identity;

const ADVICE: &str = "leave out --resume to begin again";

/// How often a journal is replaced that somebody else looks at, and how long that one is waited for each time.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Options that change results, and their values, in the words of the command line.
pub(crate) type Settings = BTreeMap<String, Vec<String>>;

/// Files of a folder, by their names in it.
pub(crate) type Files = BTreeMap<String, Identity>;

/// What a journal says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Of the run it is of.
    pub(crate) settings: Settings,
    /// What is read.
    pub(crate) input: Identity,
    /// What it computes with.
    #[serde(default)]
    pub(crate) loaded: Loaded,
    /// How far it is.
    pub(crate) done: Done,
    /// Of a format whose index stands at the end of the file: the index of what is there so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<String>,
}

/// What is known of a run when its model is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// The model's files.
    pub(crate) model: Files,
    /// What `--device` stands for, if anything is computed.
    pub(crate) device: Option<String>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Rows of the input, those left out included.
    pub(crate) rows: u64,
    /// Rows left out.
    pub(crate) skipped: u64,
    /// Results.
    pub(crate) records: u64,
    /// Bytes of output that hold them.
    pub(crate) bytes: u64,
}

impl Journal {
    /// Reads a journal; none if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let journal = serde_json::from_slice(&text);
        journal.map(Some).with_context(|| {
            format!("{} is damaged, or no journal of ours: delete it, or move it away", path.display())
        })
    }

    /// Replaces the journal at `path`, wholly or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_added_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        drop(file);
        // On Windows who looks at the old one, a virus scanner say, is in the way for a moment.
        for _ in 0..TRIES {
            match fs::rename(&new, path) {
                Err(error) if cfg!(windows) && error.kind() == io::ErrorKind::PermissionDenied => thread::sleep(PAUSE),
                renamed => return renamed,
            }
        }
        fs::rename(new, path)
    }

    /// That it is of the same input and options as a run that is to go on.
    pub(super) fn check(&self, settings: &Settings, input: Identity) -> Result<()> {
        let names = self.settings.keys().chain(settings.keys());
        for name in names {
            let (old, new) = (self.settings.get(name), settings.get(name));
            if old != new {
                let shown = |values: Option<&Vec<String>>| match values {
                    Some(values) if !values.is_empty() => values.join(", "),
                    _ => "not given".to_owned(),
                };
                let (old, new) = (shown(old), shown(new));
                bail!("cannot go on: {name} was {old} in the run that was interrupted, and is {new} now; {ADVICE}");
            }
        }
        if self.input != input {
            bail!("cannot go on: the input has changed since the run that was interrupted; {ADVICE}");
        }
        Ok(())
    }

    /// That it is of the same model on the same device.
    pub(super) fn check_loaded(&self, loaded: &Loaded) -> Result<()> {
        let (old, new) = (&self.loaded.model, &loaded.model);
        if let Some(name) = old.keys().chain(new.keys()).find(|name| old.get(*name) != new.get(*name)) {
            bail!("cannot go on: the model's {name} has changed since the run that was interrupted; {ADVICE}");
        }
        if self.loaded.device != loaded.device {
            let [old, new] = [&self.loaded.device, &loaded.device].map(|device| device.as_deref().unwrap_or("unknown"));
            bail!("cannot go on: the device was {old} in the run that was interrupted, and is {new} now; {ADVICE}");
        }
        Ok(())
    }
}
