//! Record files: each line with a checksum of its own, appended and flushed as it is measured.
//!
//! The checksum is the first 16 hexadecimal digits of the SHA-256 of the line's text before it, so that a file can be
//! checked without knowing its fields: `{..,"checksum":"0123456789abcdef"}`. A last line that a killed run left
//! unfinished is dropped when writing goes on; anywhere else a damaged line is an error.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Line, Row, Run, SCHEMA};
use crate::hex::hex;
use crate::{Error, Result};

/// What stands between a record and its checksum.
const MARK: &str = ",\"checksum\":\"";

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
    /// Files that cannot be read; the first line that is damaged, of another schema, or of a run the file does not name.
    pub fn read(path: &Path) -> Result<Self> {
        let mut records = Self::default();
        for file in files(path)? {
            let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
            for (i, line) in text.lines().enumerate() {
                let fault = |what| Error::Record { path: file.clone(), line: i + 1, what };
                records.add(parse(line).map_err(fault)?).map_err(fault)?;
            }
        }
        Ok(records)
    }

    /// Writes everything into the new file `path`, at once.
    ///
    /// # Errors
    /// The file being there already; the disk's own.
    pub fn write(&self, path: &Path) -> Result<()> {
        let lines = self.runs.iter().cloned().map(Line::Run).chain(self.rows.iter().cloned().map(Line::Row));
        let sealed: serde_json::Result<Vec<String>> = lines.map(|line| seal(&line)).collect();
        let text = sealed.map_err(std::io::Error::other).map_err(Error::io("write", path))?.concat();
        let mut file = File::create_new(path).map_err(Error::io("create", path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(Error::io("write", path))
    }

    /// The run that a row belongs to.
    #[must_use]
    pub fn run_of(&self, row: &Row) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == row.run)
    }

    fn add(&mut self, line: Line) -> Result<(), String> {
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

/// Appends to a record file; each line is on its way to the disk before the next is measured.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
}

impl Writer {
    /// Opens `path`, or makes it, and gives what it holds already.
    ///
    /// # Errors
    /// As [`Records::read`], but for an unfinished last line, which is removed.
    pub fn open(path: &Path) -> Result<(Self, Records)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(Error::io("open", path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(Error::io("read", path))?;
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(complete as u64).map_err(Error::io("write", path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io("write", path))?;
        let records = if complete > 0 { Records::read(path)? } else { Records::default() };
        Ok((Self { path: path.to_owned(), file }, records))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The disk's own.
    pub fn append(&mut self, line: &Line) -> Result<()> {
        let failed = Error::io("write", &self.path);
        let line = seal(line).map_err(std::io::Error::other);
        line.and_then(|line| self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data())).map_err(failed)
    }
}

/// A line's text, its checksum and line break included.
pub(super) fn seal(line: &Line) -> serde_json::Result<String> {
    let text = serde_json::to_string(line)?;
    let body = &text[..text.len() - 1];
    Ok(format!("{body}{MARK}{}\"}}\n", checksum(body)))
}

fn parse(line: &str) -> Result<Line, String> {
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

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let paths = entries.map_err(Error::io("read", path))?.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::Record { path: path.to_owned(), line: 1, what: "no .jsonl file in this folder".into() });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Cell, Check, Failure, Length, Machine, Measured, Outcome, Variant, Work};

    fn run(id: &str) -> Line {
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

    fn row(run: &str, outcome: Outcome) -> Line {
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

    fn measured() -> Outcome {
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

    fn failed() -> Outcome {
        Outcome::Failed(Failure { stage: "run".into(), message: "out of memory\n(11 GB)".into() })
    }

    fn written(lines: &[Line]) -> (tempfile::TempDir, PathBuf) {
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
    fn a_line_that_a_killed_run_left_is_dropped_and_the_rest_kept() {
        let (_folder, path) = written(&[run("a"), row("a", measured()), row("a", failed())]);
        let whole = std::fs::read_to_string(&path).unwrap();
        let kept = whole.lines().take(2).map(|l| l.len() + 1).sum::<usize>();
        for cut in kept..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut writer, records) = Writer::open(&path).unwrap();
            assert_eq!((records.runs.len(), records.rows.len()), (1, 1), "cut at {cut}");
            writer.append(&row("a", failed())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
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
}
