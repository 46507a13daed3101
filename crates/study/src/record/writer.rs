//! Adds lines to a record file; each is on its way to the disk before the next is measured.
//!
//! What is there is read and checked first, and nothing is changed before the first line is added: whoever names the wrong
//! file loses nothing. A run that was killed may have left its last line unfinished: that line is dropped. One run at a
//! time has the file: two would each finish the other's lines.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::file::{MARK, folder_of, is_regular, parse, seal};
use super::{Line, Records};
use crate::{Error, Result};

/// How the text of every line begins.
const BEGINNINGS: [&str; 2] = ["{\"kind\":\"run\",\"schema\":", "{\"kind\":\"row\",\"run\":\""];

/// Appends to a record file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// `None` as long as there is no such file.
    file: Option<File>,
    end: End,
}

/// What has to be done before a line can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing.
    Ready,
    /// Make the file.
    Missing,
    /// Drop what follows so many bytes: a line that is not finished.
    Cut(u64),
    /// End the last line, of which nothing else is missing.
    Break,
}

impl Writer {
    /// Opens `path`, if it is there, and gives what it holds. Neither makes it nor changes anything in it.
    ///
    /// # Errors
    /// As [`Records::read`], but for a last line that a killed run left unfinished; what is no regular file; a folder that
    /// is not there; another run that is writing it.
    pub fn open(path: &Path) -> Result<(Self, Records)> {
        is_regular(path)?;
        let mut writer = Self { path: path.to_owned(), file: None, end: End::Missing };
        let file = match OpenOptions::new().read(true).append(true).open(path) {
            Ok(file) => writer.file.insert(file),
            Err(e) if e.kind() == ErrorKind::NotFound && folder_of(path).is_dir() => {
                return Ok((writer, Records::default()));
            }
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        lock(path, file)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let (records, end) = check(path, &bytes)?;
        writer.end = end;
        Ok((writer, records))
    }

    /// Makes the file, or its end, ready for a line. [`Writer::append`] does so too; this is for those who want to know
    /// early whether it can be written.
    ///
    /// # Errors
    /// The disk's own; another run that has made it since it was found missing.
    pub fn begin(&mut self) -> Result<()> {
        let path = &self.path;
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let file = OpenOptions::new().read(true).append(true).create(true).open(path);
            let file = self.file.insert(file.map_err(Error::io("create", path))?);
            lock(path, file)?;
            file
        };
        let done = match self.end {
            // What is in it now was not there when it was opened.
            End::Missing if file.metadata().is_ok_and(|m| m.len() > 0) => {
                return Err(Error::Busy { path: path.clone() });
            }
            End::Ready | End::Missing => Ok(()),
            End::Cut(length) => file.set_len(length),
            End::Break => file.write_all(b"\n"),
        };
        done.map_err(Error::io("write", path))?;
        self.end = End::Ready;
        Ok(())
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The disk's own.
    pub fn append(&mut self, line: &Line) -> Result<()> {
        if self.end != End::Ready {
            self.begin()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = seal(line).map_err(std::io::Error::other);
        let written = line.and_then(|line| file.write_all(line.as_bytes()).and_then(|()| file.sync_data()));
        written.map_err(Error::io("write", &self.path))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing would do, if no process that is just being started held the file for a moment longer.
        if let Some(file) = &self.file {
            let _ = file.unlock();
        }
    }
}

/// Keeps other runs out.
fn lock(path: &Path, file: &File) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: path.to_owned() }),
        // Where locks are not known there is nothing to wait for.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// The records of a file, and what has to be done at its end.
fn check(path: &Path, bytes: &[u8]) -> Result<(Records, End)> {
    let (lines, tail) = bytes.split_at(bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1));
    let text = str::from_utf8(lines).map_err(std::io::Error::other).map_err(Error::io("read", path))?;
    let mut records = Records::default();
    records.add_lines(path, text)?;
    if tail.is_empty() {
        return Ok((records, End::Ready));
    }
    let fault = |what| Error::Record { path: path.to_owned(), line: text.lines().count() + 1, what };
    if is_unfinished(tail) {
        return Ok((records, End::Cut(lines.len() as u64)));
    }
    parse(&String::from_utf8_lossy(tail)).and_then(|line| records.add_line(line)).map_err(fault)?;
    Ok((records, End::Break))
}

/// Whether a last line is what a broken write of a record leaves: its beginning, up to anywhere before its end. A write
/// may end inside a character too.
fn is_unfinished(tail: &[u8]) -> bool {
    let begins = |start: &str| tail.iter().zip(start.as_bytes()).all(|(a, b)| a == b);
    let has_checksum = || tail.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    BEGINNINGS.into_iter().any(begins) && !(tail.ends_with(b"\"}") && has_checksum())
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::{failed, measured, row, run, written};
    use super::*;

    #[test]
    fn a_line_that_a_killed_run_left_is_dropped_and_the_rest_kept() {
        let (_folder, path) = written(&[run("ä"), row("ä", measured()), row("ä", failed())]);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<_> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
        // Only the line break of a last line may be missing: then nothing is.
        for cut in (ends[1] + 1..whole.len() - 1).chain(0..ends[0]) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut writer, records) = Writer::open(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole[..cut], "changed before anything is added");
            let there = if cut > ends[0] { (1, 1) } else { (0, 0) };
            assert_eq!((records.runs.len(), records.rows.len()), there, "cut at {cut}");
            let rest = [run("ä"), row("ä", measured()), row("ä", failed())];
            for line in &rest[there.0 + there.1..] {
                writer.append(line).unwrap();
            }
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_last_line_that_lacks_its_break_only_is_kept() {
        let (_folder, path) = written(&[run("a"), row("a", measured()), row("a", failed())]);
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = whole.split_inclusive('\n').collect();
        for there in 1..=3 {
            std::fs::write(&path, lines[..there].concat().trim_end()).unwrap();
            let (mut writer, records) = Writer::open(&path).unwrap();
            assert_eq!(records.runs.len() + records.rows.len(), there);
            writer.append(&row("a", failed())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), lines[..there].concat() + lines[2]);
        }
    }

    #[test]
    fn a_file_that_holds_anything_else_is_refused_and_left_as_it_is() {
        let (_folder, path) = written(&[run("a"), row("a", failed())]);
        let good = std::fs::read_to_string(&path).unwrap();
        let changed = good.trim_end().replace("out of memory", "out of money");
        let others = [
            "{\"name\":\"mine\"}".to_owned(),
            "{\"name\":\"mine\"}\n".to_owned(),
            "{\"kind\":\"rowing\"".to_owned(),
            "a line\nand another without its break".to_owned(),
            "\n".to_owned(),
            format!("{good}my notes"),
            format!("{good}my notes\n"),
            // Whole, so that no broken write has left it: someone has changed it.
            changed,
        ];
        for text in others {
            std::fs::write(&path, &text).unwrap();
            let error = Writer::open(&path).unwrap_err();
            assert!(matches!(error, Error::Record { .. }), "{text:?}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, b"\xff\xfe\n").unwrap();
        Writer::open(&path).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"\xff\xfe\n");
    }

    #[test]
    fn a_file_is_made_with_its_first_line_and_where_it_cannot_be_that_is_said_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let (mut writer, records) = Writer::open(&path).unwrap();
        assert!(records == Records::default() && !path.exists());
        writer.append(&run("a")).unwrap();
        assert_eq!(Records::read(&path).unwrap().runs.len(), 1);
        let error = Writer::open(&folder.path().join("no/records.jsonl")).unwrap_err().to_string();
        assert!(error.contains("cannot open") && error.contains("records.jsonl"), "{error}");
    }

    #[test]
    fn one_run_at_a_time_has_a_file() {
        let (folder, path) = written(&[run("a")]);
        let busy = |result: Result<_>| match result {
            Err(e @ Error::Busy { .. }) => assert!(e.to_string().contains("name another file"), "{e}"),
            other => panic!("{other:?}"),
        };
        let (first, _) = Writer::open(&path).unwrap();
        busy(Writer::open(&path).map(|_| ()));
        drop(first);
        Writer::open(&path).unwrap();
        // Both find that there is none yet: whether the first is still at it or has ended, the second knows nothing of it.
        for ended in [false, true] {
            let path = folder.path().join(format!("new-{ended}"));
            let ((mut first, _), (mut second, _)) = (Writer::open(&path).unwrap(), Writer::open(&path).unwrap());
            first.append(&run("b")).unwrap();
            let first = (!ended).then_some(first);
            busy(second.append(&run("c")));
            drop(first);
            assert_eq!(Records::read(&path).unwrap().runs.len(), 1);
        }
    }
}
