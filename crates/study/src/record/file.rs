//! Record files: each line with a checksum of its own.
//!
//! The checksum is the first 16 hexadecimal digits of the SHA-256 of the line's text before it, so that a file can be
//! checked without knowing its fields: `{..,"checksum":"0123456789abcdef"}`. A damaged line is an error; `writer.rs` adds
//! lines, and knows what a killed run leaves.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{Line, Row, Run, SCHEMA};
use crate::hex::hex;
use crate::{Error, Result};

/// What stands between a record and its checksum.
pub(super) const MARK: &str = ",\"checksum\":\"";

/// The contents of one or several record files.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records {
    /// In the order they were started.
    pub runs: Vec<Run>,
    /// In the order they were finished.
    pub rows: Vec<Row>,
}

impl Records {
    /// Reads a file, or every `.jsonl` file of a folder in the order of their names.
    ///
    /// # Errors
    /// Files that cannot be read, or are a pipe or a device; the first line that is damaged, of another schema, or of a run
    /// the file does not name.
    pub fn read(path: &Path) -> Result<Self> {
        let mut records = Self::default();
        records.add(path, |_| ())?;
        Ok(records)
    }

    /// Adds those of another file or folder; `see` is told each file's text, of which all is right.
    ///
    /// # Errors
    /// As [`Records::read`].
    pub(crate) fn add(&mut self, path: &Path, mut see: impl FnMut(&str)) -> Result<()> {
        for file in files(path)? {
            is_regular(&file)?;
            let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
            self.add_lines(&file, &text)?;
            see(&text);
        }
        Ok(())
    }

    /// Writes everything into the new file `path`, which appears when it is whole.
    ///
    /// # Errors
    /// The file being there already; the disk's own.
    pub fn write(&self, path: &Path) -> Result<()> {
        let lines = self.runs.iter().cloned().map(Line::Run).chain(self.rows.iter().cloned().map(Line::Row));
        let sealed: serde_json::Result<Vec<String>> = lines.map(|line| seal(&line)).collect();
        let text = sealed.map_err(std::io::Error::other).map_err(Error::io("write", path))?.concat();
        write_new(path, &text)
    }

    /// The run that a row belongs to.
    #[must_use]
    pub fn run_of(&self, row: &Row) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == row.run)
    }

    /// Adds the lines of the file `path`.
    pub(super) fn add_lines(&mut self, path: &Path, text: &str) -> Result<()> {
        for (i, line) in text.lines().enumerate() {
            let fault = |what| Error::Record { path: path.to_owned(), line: i + 1, what };
            parse(line).and_then(|line| self.add_line(line)).map_err(fault)?;
        }
        Ok(())
    }

    pub(super) fn add_line(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Run(run) => {
                if run.schema != SCHEMA {
                    return Err(format!("a run of schema {}, and this program reads schema {SCHEMA}", run.schema));
                }
                if self.runs.iter().any(|r| r.id == run.id) {
                    return Err(format!("run {} is there already", run.id));
                }
                self.runs.push(run);
            }
            Line::Row(row) => {
                if self.run_of(&row).is_none() {
                    return Err(format!("a row of run {}, which is not before it", row.run));
                }
                self.rows.push(row);
            }
        }
        Ok(())
    }
}

/// A line's text, its checksum and line break included.
pub(super) fn seal(line: &Line) -> serde_json::Result<String> {
    let text = serde_json::to_string(line)?;
    let body = &text[..text.len() - 1];
    Ok(format!("{body}{MARK}{}\"}}\n", checksum(body)))
}

/// What a line says.
pub(super) fn parse(line: &str) -> Result<Line, String> {
    let (body, rest) = line.rsplit_once(MARK).ok_or("no checksum: not a line of a record file")?;
    let found = rest.strip_suffix("\"}").ok_or("the line is cut short")?;
    let expected = checksum(body);
    if found != expected {
        return Err(format!("the line was changed: its checksum is {found} and should be {expected}"));
    }
    serde_json::from_str(&format!("{body}}}")).map_err(|e| format!("not a record: {e}"))
}

fn checksum(body: &str) -> String {
    hex(&Sha256::digest(body.as_bytes())[..8])
}

/// Writes a file that is not there yet, and appears when it is whole.
///
/// # Errors
/// It is there already; the disk's own.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::io("create", path)(ErrorKind::AlreadyExists.into()));
    }
    let mut file = temporary(folder_of(path)).map_err(Error::io("create", path))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all());
    written.map_err(Error::io("write", path))?;
    // Someone else may have made it meanwhile.
    file.persist_noclobber(path).map_err(|e| Error::io("create", path)(e.error))?;
    Ok(())
}

/// Refuses what is there and no regular file, before it is opened: that alone may wait for a pipe's other end, and reading
/// a device need not end.
pub(super) fn is_regular(path: &Path) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::NoFile { path: path.to_owned() });
    }
    Ok(())
}

/// The folder a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without its name yet; readable by whoever may read new files, and not by its owner alone.
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".records.").suffix(".partial").tempfile_in(folder)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let paths = entries.map_err(Error::io("read", path))?.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::NoRecords { path: path.to_owned() });
    }
    Ok(files)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{Cell, Check, Failure, Length, Machine, Measured, Outcome, Variant, Work, Writer};

    pub(in crate::record) fn run(id: &str) -> Line {
        Line::Run(Run {
            schema: SCHEMA,
            id: id.into(),
            plan: "quick".into(),
            started: "2026-11-22T20:15:00Z".into(),
            version: "0.1.0".into(),
            commit: None,
            seed: 7,
            threads: 2,
            machine: Machine { load: Some(0.1 + 0.2), ..Machine::default() },
            limits: None,
            peers: [].into(),
            checkpoints: [].into(),
        })
    }

    pub(in crate::record) fn row(run: &str, outcome: Outcome) -> Line {
        let work = Work::Model {
            model: "bert-base".into(),
            length: Length::Characters(100),
            batch: 2,
            tokens: 53,
            longest: 27,
        };
        let cell = Cell { id: "bert-base/100c/b2".into(), work, flops: 9, bytes: u64::MAX };
        let [peer, mode, device, dtype] = ["torch", "eager", "cpu", "f32"].map(String::from);
        Line::Row(Row { run: run.into(), cell, variant: Variant { peer, mode, device, dtype }, process: 1, outcome })
    }

    pub(in crate::record) fn measured() -> Outcome {
        Outcome::Measured(Measured {
            host_ns: vec![vec![1, 2], vec![3]],
            device_ns: None,
            check: Check { golden: "torch/eager/cpu/f32".into(), max_abs: 1e-7, largest: 4.25, min_cosine: 1.0 },
            load_seconds: Some(0.3),
            peak_memory: Some(1 << 33),
            joules: None,
            detail: "two \"threads\"".into(),
        })
    }

    pub(in crate::record) fn failed() -> Outcome {
        Outcome::Failed(Failure { stage: "run".into(), message: "out of memory\n(11 GB)".into() })
    }

    pub(in crate::record) fn written(lines: &[Line]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let (mut writer, _) = Writer::open(&path).unwrap();
        for line in lines {
            writer.append(line).unwrap();
        }
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let lines = [run("a"), row("a", measured()), row("a", failed()), run("b"), row("b", measured())];
        let (folder, path) = written(&lines);
        let records = Records::read(&path).unwrap();
        assert_eq!(Records::read(folder.path()).unwrap(), records);
        let runs = records.runs.into_iter().map(Line::Run);
        let rows = records.rows.into_iter().map(Line::Row);
        let read: Vec<Line> = runs.chain(rows).collect();
        assert_eq!(read.len(), lines.len());
        assert!(lines.iter().all(|line| read.contains(line)));
    }

    #[test]
    fn any_changed_byte_is_found() {
        let (_folder, path) = written(&[run("a"), row("a", measured())]);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(Records::read(&path).is_err(), "byte {at} of {}", String::from_utf8_lossy(&good));
        }
    }

    #[test]
    fn rows_without_their_run_and_other_schemas_are_refused() {
        let (_folder, path) = written(&[row("a", failed())]);
        assert!(Records::read(&path).unwrap_err().to_string().contains("run a"));
        let (_folder, path) = written(&[run("a"), run("a")]);
        assert!(Records::read(&path).unwrap_err().to_string().contains(":2: run a is there already"));
        let Line::Run(mut other) = run("a") else { unreachable!() };
        other.schema = 99;
        let (_folder, path) = written(&[Line::Run(other)]);
        assert!(Records::read(&path).unwrap_err().to_string().contains("schema 99"));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut others = vec![folder.path().join("folder.jsonl")];
        std::fs::create_dir(&others[0]).unwrap();
        #[cfg(unix)]
        {
            let pipe = folder.path().join("pipe.jsonl");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            others.extend([pipe, "/dev/zero".into(), "/dev/null".into()]);
        }
        for path in &others {
            let opened = Writer::open(path).map(drop);
            let read = if path.is_dir() { Records::read(folder.path()) } else { Records::read(path) };
            for error in [opened, read.map(drop)].map(Result::unwrap_err) {
                assert!(matches!(error, Error::NoFile { .. }), "{error}");
                assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
            }
        }
    }

    #[test]
    fn a_folder_without_records_is_named_without_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let error = Records::read(folder.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: no .jsonl file in it", folder.path().display()));
    }
}
