//! One file of a model into the cache: locked, resumed, checked, named.
//!
//! ```text
//! .locks/models--organisation--name/<etag>.lock    held while a file is downloaded, as Python's huggingface_hub does
//! models--organisation--name/blobs/<etag>.incomplete   what has come so far; the next try goes on from there
//! models--organisation--name/blobs/<etag>              the file, once it is whole and checked
//! ```
//!
//! A file that changes on the hub has another etag, so parts of two never meet; `If-Range` says it to the hub as well.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE};
use ureq::http::{Method, Response};

use super::cache::Repo;
use super::client::{Client, Follow, Next, Tries, passes, retry_after};
use super::{HubError, is_plain, refused};
use crate::Event;
use crate::checksum::sha256;

/// How long another program may hold a file that is needed here too.
const OTHERS: Duration = Duration::from_mins(10);

/// How often it is looked whether the other program is done.
const LOOK: Duration = Duration::from_millis(100);

/// A file on the hub.
pub(super) struct Remote<'a> {
    pub(super) client: &'a Client,
    /// The model's id.
    pub(super) id: &'a str,
    /// The file's name within the model.
    pub(super) file: &'a str,
    /// Where it is, at a commit.
    pub(super) url: String,
    pub(super) listener: &'a dyn Fn(Event<'_>),
}

/// What the hub says of a file before it sends it.
struct Announced {
    /// Its name in the cache: a SHA-256 for large files.
    etag: String,
    /// As the hub sent it, for `If-Range`; `None` if another host sends the file.
    validator: Option<String>,
    bytes: u64,
}

/// Why a try ended.
enum Broken {
    /// Another may succeed. In words, with the answer's headers if there was one.
    Passing(String, Option<Box<Response<()>>>),
    /// It would fail again.
    For(HubError),
}

impl From<HubError> for Broken {
    fn from(error: HubError) -> Self {
        Self::For(error)
    }
}

impl Remote<'_> {
    /// Downloads the file into `repo`, unless it is there, and links it at `pointer`.
    pub(super) fn fetch(&self, repo: &Repo, pointer: &Path) -> Result<(), HubError> {
        let announced = self.announced()?;
        let blob = repo.blobs().join(&announced.etag);
        let _lock = lock(&repo.lock(&announced.etag))?;
        if !blob.is_file() {
            let part = repo.blobs().join(format!("{}.incomplete", announced.etag));
            make_folder(&part)?;
            (self.listener)(Event::Download { file: self.file, bytes: Some(announced.bytes) });
            self.complete(&part, &announced)?;
            self.check(&part, &announced)?;
            fs::rename(&part, &blob).map_err(cache(&blob))?;
        }
        link(&blob, pointer)?;
        (self.listener)(Event::Downloaded { file: self.file });
        Ok(())
    }

    fn announced(&self) -> Result<Announced, HubError> {
        let mut tries = Tries::default();
        let response = loop {
            let (failed, answer) = match self.client.send(&Method::HEAD, &self.url, &[], Follow::Hub) {
                Ok(response) if passes(response.status().as_u16()) => (None, Some(response)),
                Ok(response) => break response,
                Err(error) => (Some(self.client.reason(&error)), None),
            };
            match (tries.next(answer.as_ref()), failed, answer) {
                (Next::Wait(wait), ..) => thread::sleep(wait),
                (Next::GiveUp, Some(reason), _) => return Err(self.broke_off(reason)),
                (Next::GiveUp, None, Some(answer)) => break answer,
                (Next::GiveUp, None, None) => return Err(self.broke_off("no answer".into())),
            }
        };
        let status = response.status().as_u16();
        let elsewhere = response.status().is_redirection();
        if !(response.status().is_success() || elsewhere) {
            return Err(self.refusal(status, &response));
        }
        let header = |names: [&str; 2]| names.into_iter().find_map(|name| text(response.headers(), name));
        let lacks = |what: &str| HubError::Answer {
            name: self.id.to_owned(),
            reason: format!("{}: the answer has no usable {what}", self.file),
        };
        let tag = header(["x-linked-etag", ETAG.as_str()]).ok_or_else(|| lacks("ETag"))?;
        let etag = tag.trim_start_matches("W/").trim_matches('"').to_owned();
        if !is_plain(&etag) {
            return Err(lacks("ETag"));
        }
        // Of a redirect, the length of its own body says nothing.
        let length = if elsewhere { "x-linked-size" } else { CONTENT_LENGTH.as_str() };
        let bytes = header(["x-linked-size", length]).and_then(|length| length.parse().ok());
        let bytes = bytes.ok_or_else(|| lacks("length"))?;
        Ok(Announced { etag, validator: (!elsewhere).then(|| tag.to_owned()), bytes })
    }

    /// Makes `part` as long as announced, however many tries that takes, as long as each brings something.
    fn complete(&self, part: &Path, announced: &Announced) -> Result<(), HubError> {
        let mut tries = Tries::default();
        let mut told = 0;
        let length = || fs::metadata(part).map_or(0, |found| found.len());
        // Not the length before each try: a hub that sends half and then something else would be asked forever.
        let mut longest = length();
        loop {
            let (reason, answer) = match self.attempt(part, announced, &mut told) {
                Ok(()) => return Ok(()),
                Err(Broken::For(error)) => return Err(error),
                Err(Broken::Passing(reason, answer)) => (reason, answer),
            };
            if length() > longest {
                longest = length();
                tries.reset();
            }
            match tries.next(answer.as_deref()) {
                Next::Wait(wait) => thread::sleep(wait),
                Next::GiveUp => match answer {
                    Some(answer) => return Err(self.refusal(answer.status().as_u16(), &answer)),
                    None => return Err(self.broke_off(reason)),
                },
            }
        }
    }

    /// One try. `told` counts the bytes that the listener has heard of.
    fn attempt(&self, part: &Path, announced: &Announced, told: &mut u64) -> Result<(), Broken> {
        let mut file = OpenOptions::new().append(true).create(true).open(part).map_err(cache(part))?;
        let mut have = file.metadata().map_err(cache(part))?.len();
        if have > announced.bytes {
            file.set_len(0).map_err(cache(part))?;
            have = 0;
        }
        if have == announced.bytes {
            return Ok(());
        }
        let mut headers = Vec::new();
        if have > 0 {
            headers.push((RANGE.as_str(), format!("bytes={have}-")));
            headers.extend(announced.validator.iter().map(|tag| (IF_RANGE.as_str(), tag.clone())));
        }
        let response = self.client.send(&Method::GET, &self.url, &headers, Follow::Anywhere);
        let response = response.map_err(|e| Broken::Passing(self.client.reason(&e), None))?;
        let status = response.status().as_u16();
        match status {
            206 if goes_on(response.headers(), have, announced.bytes) => {}
            // The whole file, another part of it, or none: from the start.
            200 | 206 | 416 => {
                file.set_len(0).map_err(cache(part))?;
                have = 0;
                if status != 200 {
                    return Err(Broken::Passing("the hub sent another part of the file".into(), None));
                }
            }
            _ if passes(status) => {
                return Err(Broken::Passing(format!("status {status}"), Some(Box::new(response.map(drop)))));
            }
            _ => return Err(self.refusal(status, &response).into()),
        }
        if *told > have {
            (self.listener)(Event::Download { file: self.file, bytes: Some(announced.bytes) });
            *told = 0;
        }
        self.hear(have, told);
        self.receive(response, &mut file, part, have, announced, told)
    }

    fn receive(
        &self,
        response: Response<Body>,
        file: &mut File,
        part: &Path,
        mut have: u64,
        announced: &Announced,
        told: &mut u64,
    ) -> Result<(), Broken> {
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) if have == announced.bytes => return file.sync_data().map_err(cache(part)).map_err(Broken::For),
                Ok(0) => return Err(Broken::Passing(format!("it ended after {have} bytes"), None)),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Passing(self.client.reason(&error.into()), None)),
            };
            have += read as u64;
            if have > announced.bytes {
                fs::remove_file(part).ok();
                let (expected, found) = (announced.bytes.to_string(), "more".to_owned());
                return Err(self.damaged("size", expected, found).into());
            }
            file.write_all(&buffer[..read]).map_err(cache(part))?;
            self.hear(have, told);
        }
    }

    fn hear(&self, have: u64, told: &mut u64) {
        if have > *told {
            (self.listener)(Event::Received { file: self.file, bytes: have - *told });
            *told = have;
        }
    }

    /// That a file whose name is a SHA-256 has that content. If not, it goes.
    fn check(&self, part: &Path, announced: &Announced) -> Result<(), HubError> {
        let etag = &announced.etag;
        if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(());
        }
        let found = sha256(part).map_err(cache(part))?;
        if found.eq_ignore_ascii_case(etag) {
            return Ok(());
        }
        fs::remove_file(part).ok();
        Err(self.damaged("sha256", etag.clone(), found))
    }

    fn refusal<T>(&self, status: u16, response: &Response<T>) -> HubError {
        let name = self.id.to_owned();
        match status {
            401 | 403 => refused(self.id, status, self.client.has_token()),
            429 => HubError::Busy { name, wait: retry_after(response) },
            _ => HubError::Answer { name, reason: format!("{}: status {status}", self.file) },
        }
    }

    fn broke_off(&self, reason: String) -> HubError {
        HubError::BrokeOff { name: self.id.to_owned(), file: self.file.to_owned(), reason }
    }

    fn damaged(&self, what: &'static str, expected: String, found: String) -> HubError {
        HubError::Damaged { name: self.id.to_owned(), file: self.file.to_owned(), what, expected, found }
    }
}

/// Whether the answer is the rest of a file of `bytes` from `have` on.
fn goes_on(headers: &HeaderMap, have: u64, bytes: u64) -> bool {
    let range = text(headers, CONTENT_RANGE.as_str()).and_then(|range| range.strip_prefix("bytes "));
    let parts =
        range.and_then(|range| range.split_once('-')).and_then(|(start, rest)| Some((start, rest.split_once('/')?)));
    parts.is_some_and(|(start, (_, whole))| start.parse() == Ok(have) && (whole == "*" || whole.parse() == Ok(bytes)))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Waits for the lock and holds it until the file is dropped.
fn lock(path: &Path) -> Result<File, HubError> {
    make_folder(path)?;
    // Never cut: the content is of no importance, and another program may be reading it.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(cache(path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < OTHERS => thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => {
                return Err(HubError::Cache { path: path.into(), reason: "another program holds this file".into() });
            }
            // Where locks do not exist, two programs may both download; each part is checked all the same.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(cache(path)(e)),
        }
    }
}

/// Makes `pointer` lead to `blob`, by a relative link where the system has them, or as another name of the same file; a copy where
/// there are neither. One that is there is replaced in one step: another process, which has the model already, finds the file
/// whenever it looks.
fn link(blob: &Path, pointer: &Path) -> Result<(), HubError> {
    make_folder(pointer)?;
    let beside = tempfile::tempdir_in(blob.parent().unwrap_or(blob)).map_err(cache(blob))?;
    let new = beside.path().join("new");
    // Wine says that it made one, and made none.
    let linked = relative(blob, pointer).is_some_and(|to| symlink(&to, &new).is_ok() && new.is_symlink());
    if !linked && fs::hard_link(blob, &new).is_err() {
        fs::copy(blob, &new).map_err(cache(pointer))?;
    }
    fs::rename(&new, pointer).map_err(cache(pointer))
}

/// `blob` as seen from the folder of `pointer`: both lie in the folder of one model.
fn relative(blob: &Path, pointer: &Path) -> Option<PathBuf> {
    let model = blob.parent()?.parent()?;
    let depth = pointer.parent()?.strip_prefix(model).ok()?.components().count();
    let up: PathBuf = std::iter::repeat_n("..", depth).collect();
    Some(up.join(blob.strip_prefix(model).ok()?))
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(windows)]
fn symlink(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(to, at)
}

fn make_folder(file: &Path) -> Result<(), HubError> {
    file.parent().map_or(Ok(()), fs::create_dir_all).map_err(cache(file))
}

fn cache(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_owned();
    move |e| HubError::Cache { path, reason: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rest_of_the_same_file_goes_on() {
        let range = |value: &str| {
            let headers: HeaderMap = [(CONTENT_RANGE, value.parse().unwrap())].into_iter().collect();
            goes_on(&headers, 5, 10)
        };
        assert!(range("bytes 5-9/10") && range("bytes 5-9/*"));
        for other in ["bytes 0-9/10", "bytes 5-9/11", "bytes */10", "5-9/10", ""] {
            assert!(!range(other), "{other}");
        }
        assert!(!goes_on(&HeaderMap::new(), 5, 10));
    }

    #[test]
    fn links_are_relative() {
        let to = |pointer: &str| relative(Path::new("/c/m/blobs/e"), Path::new(pointer)).unwrap();
        assert_eq!(to("/c/m/snapshots/s/config.json"), Path::new("../../blobs/e"));
        assert_eq!(to("/c/m/snapshots/s/1_Pooling/config.json"), Path::new("../../../blobs/e"));
    }
}
