//! The network, through the `hf-hub` crate, into the Hugging Face cache.
//!
//! One question tells which files a revision has and which commit it is; what is needed is then taken at that commit, so
//! that a model never mixes two. The branch's reference is written last: a download that breaks off leaves no model that
//! looks complete.
//!
//! `hf-hub` has no timeouts and panics on some malformed answers, so it runs on a thread of its own that is left alone
//! when it falls silent.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::cache::Repo;
use super::files::{CONFIG, FORMATS, MODULES, OPTIONAL, TOKENIZER, VOCABULARIES, module_files, shards};
use super::{Hub, HubError, is_plain};
use crate::Event;
use crate::checksum::sha256;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo as HubRepo, RepoType};

/// How long the first answer may take: name, connection, encryption and one small reply.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long a download may be silent.
const SILENCE: Duration = Duration::from_mins(1);

/// How long another program may hold a file that is needed here too.
const OTHERS: Duration = Duration::from_mins(10);

/// Takes the model's files at `revision` and gives the snapshot's folder.
pub(super) fn fetch(hub: &Hub, id: &str, revision: &str, listener: &dyn Fn(Event<'_>)) -> Result<PathBuf, HubError> {
    Download::begin(hub, id, revision, listener)?.run(revision)
}

/// One model's download at one commit.
struct Download<'a> {
    id: &'a str,
    api: Api,
    repo: Repo,
    commit: String,
    /// Every file the hub has at that commit.
    listed: BTreeSet<String>,
    listener: &'a dyn Fn(Event<'_>),
    has_token: bool,
}

impl<'a> Download<'a> {
    fn begin(hub: &Hub, id: &'a str, revision: &str, listener: &'a dyn Fn(Event<'_>)) -> Result<Self, HubError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(hub.cache.clone()))
            .with_token(hub.token.clone())
            .with_progress(false)
            .with_retries(2)
            .with_user_agent("mlx-transformers", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &hub.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let unusable = |reason: String| HubError::Answer { name: id.to_owned(), reason };
        let api = builder.build().map_err(|e| unusable(e.to_string()))?;
        let asked = api.repo(HubRepo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned()));
        let answer = in_background(FIRST_ANSWER, |_| {}, move |_| asked.info());
        let info = match answer {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => return Err(question_failed(id, revision, hub.token.is_some(), &error)),
            Err(silence) => return Err(HubError::Unreachable { name: id.to_owned(), reason: silence.to_string() }),
        };
        if !is_plain(&info.sha) {
            return Err(unusable(format!("{:?} is no commit", info.sha)));
        }
        Ok(Self {
            id,
            api,
            repo: Repo::new(&hub.cache, id),
            commit: info.sha,
            listed: info.siblings.into_iter().map(|s| s.rfilename).collect(),
            listener,
            has_token: hub.token.is_some(),
        })
    }

    fn run(&self, revision: &str) -> Result<PathBuf, HubError> {
        let snapshot = self.repo.snapshot(&self.commit);
        self.take(CONFIG)?;
        for file in OPTIONAL {
            self.take_optional(file)?;
        }
        if !self.listed.contains(TOKENIZER) {
            for file in VOCABULARIES {
                self.take_optional(file)?;
            }
        }
        for file in module_files(&snapshot.join(MODULES)) {
            self.take_optional(&file)?;
        }
        let has = |file: &str| self.listed.contains(file);
        let (one, index) = FORMATS.into_iter().find(|(one, index)| has(one) || has(index)).unwrap_or(FORMATS[0]);
        if has(one) || !has(index) {
            self.take(one)?;
        } else {
            let unreadable = || HubError::Answer { name: self.id.to_owned(), reason: format!("{index} is damaged") };
            let index = self.take(index)?;
            for shard in shards(&index).ok_or_else(unreadable)? {
                self.download(&shard)?;
            }
        }
        // hf-hub also writes a reference named like the commit, which Python's cache does not have.
        if revision != self.commit {
            write_file(&self.repo.reference(revision), &self.commit)?;
            fs::remove_file(self.repo.reference(&self.commit)).ok();
        }
        Ok(snapshot)
    }

    /// A file that must be there.
    fn take(&self, file: &'static str) -> Result<PathBuf, HubError> {
        if !self.listed.contains(file) {
            let near = |name: &&String| !name.contains('/') && name.contains("model");
            let present = self.listed.iter().filter(near).cloned().collect();
            return Err(HubError::NoSuchFile { name: self.id.to_owned(), file, present });
        }
        self.download(file)
    }

    /// A file that need not be there; that it is not is noted in the cache, as Python does.
    fn take_optional(&self, file: &str) -> Result<(), HubError> {
        if self.listed.contains(file) {
            self.download(file)?;
            return Ok(());
        }
        write_file(&self.repo.absent(&self.commit, file), "")
    }

    fn download(&self, file: &str) -> Result<PathBuf, HubError> {
        let path = self.repo.snapshot(&self.commit).join(file);
        let begun = Instant::now();
        let mut cleared = false;
        loop {
            if path.is_file() {
                return Ok(path);
            }
            match self.attempt(file)? {
                Ok(size) => {
                    self.verify(file, &path, size)?;
                    (self.listener)(Event::Downloaded { file });
                    return Ok(path);
                }
                // Another program downloads the same file; each try waits about five seconds for it.
                Err(ApiError::LockAcquisition(_)) if begun.elapsed() < OTHERS => {}
                // The kept part of an earlier try is as long as the file, or longer.
                Err(error) if !cleared && part_is_unusable(&error) => {
                    cleared = true;
                    self.remove_parts();
                }
                Err(error) => return Err(self.download_failed(file, &error)),
            }
        }
    }

    /// One try; the outer error is silence, the inner one `hf-hub`'s.
    fn attempt(&self, file: &str) -> Result<Result<Option<u64>, ApiError>, HubError> {
        let at_commit = HubRepo::with_revision(self.id.to_owned(), RepoType::Model, self.commit.clone());
        let repo = self.api.repo(at_commit);
        let mut size = None;
        let name = file.to_owned();
        let hear = |message| match message {
            Message::Start(bytes) => {
                size = Some(bytes);
                (self.listener)(Event::Download { file, bytes: Some(bytes) });
            }
            Message::Received(bytes) => (self.listener)(Event::Received { file, bytes }),
        };
        let result =
            in_background(SILENCE, hear, move |sender| repo.download_with_progress(&name, Relay(sender)).map(|_| ()));
        match result {
            Ok(result) => Ok(result.map(|()| size)),
            Err(silence) => Err(self.broke_off(file, silence.to_string())),
        }
    }

    /// That the file has the announced size and, where its name in the cache is a SHA-256, that content. If not, it goes.
    fn verify(&self, file: &str, path: &Path, size: Option<u64>) -> Result<(), HubError> {
        let damaged = |what, expected: String, found: String| {
            fs::canonicalize(path).and_then(fs::remove_file).ok();
            fs::remove_file(path).ok();
            Err(HubError::Damaged { name: self.id.to_owned(), file: file.to_owned(), what, expected, found })
        };
        let cache = |e: std::io::Error| HubError::Cache { path: path.into(), reason: e.to_string() };
        let found = fs::metadata(path).map_err(cache)?.len();
        if let Some(size) = size.filter(|&size| size != found) {
            return damaged("size", size.to_string(), found.to_string());
        }
        let blob = fs::canonicalize(path).map_err(cache)?;
        let etag = blob.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()) {
            let found = sha256(&blob).map_err(cache)?;
            if !found.eq_ignore_ascii_case(etag) {
                return damaged("sha256", etag.to_owned(), found);
            }
        }
        Ok(())
    }

    fn remove_parts(&self) {
        let Ok(entries) = fs::read_dir(self.repo.blobs()) else { return };
        for entry in entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "part")) {
            fs::remove_file(entry.path()).ok();
        }
    }

    fn download_failed(&self, file: &str, error: &ApiError) -> HubError {
        let name = self.id.to_owned();
        match (error, status(error)) {
            (ApiError::LockAcquisition(path), _) => {
                HubError::Cache { path: path.clone(), reason: "another program holds this file".into() }
            }
            (ApiError::IoError(e), _) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
                HubError::Cache { path: self.repo.blobs(), reason: e.to_string() }
            }
            (_, Some(status @ (401 | 403))) => refused(self.id, status, self.has_token),
            (_, Some(status)) => HubError::Answer { name, reason: format!("{file}: status {status}") },
            (ApiError::MissingHeader(_) | ApiError::InvalidHeader(_) | ApiError::ParseIntError(_), _) => {
                HubError::Answer { name, reason: format!("{file}: {error}") }
            }
            _ => self.broke_off(file, error.to_string()),
        }
    }

    fn broke_off(&self, file: &str, reason: String) -> HubError {
        HubError::BrokeOff { name: self.id.to_owned(), file: file.to_owned(), reason }
    }
}

fn question_failed(id: &str, revision: &str, has_token: bool, error: &ApiError) -> HubError {
    let name = id.to_owned();
    match (status(error), error) {
        (Some(404), _) => HubError::NotFound { name, revision: revision.to_owned() },
        (Some(status @ (401 | 403)), _) => refused(id, status, has_token),
        (Some(status), _) => HubError::Answer { name, reason: format!("status {status}") },
        (None, ApiError::RequestError(e)) if e.to_string().starts_with("json") => {
            HubError::Answer { name, reason: e.to_string() }
        }
        (None, error) => HubError::Unreachable { name, reason: error.to_string() },
    }
}

fn refused(id: &str, status: u16, has_token: bool) -> HubError {
    let advice =
        if has_token { "check that the token may read it" } else { "set HF_TOKEN to a token that may read it" };
    HubError::Refused { name: id.to_owned(), status, advice }
}

/// The HTTP status behind an error, if there is one.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        // hf-hub does not re-export its HTTP client; its error prints as "http status: 404".
        ApiError::RequestError(e) => e.to_string().strip_prefix("http status: ")?.trim().parse().ok(),
        ApiError::TooManyRetries(inner) => status(inner),
        _ => None,
    }
}

fn part_is_unusable(error: &ApiError) -> bool {
    matches!(error, ApiError::InvalidResume) || status(error) == Some(416)
}

fn write_file(path: &Path, text: &str) -> Result<(), HubError> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)
    };
    write().map_err(|e: std::io::Error| HubError::Cache { path: path.into(), reason: e.to_string() })
}

/// What the thread that downloads tells.
enum Message {
    Start(u64),
    Received(u64),
}

/// Passes `hf-hub`'s progress on.
struct Relay(Sender<Message>);

impl Progress for Relay {
    fn init(&mut self, size: usize, _: &str) {
        self.0.send(Message::Start(size as u64)).ok();
    }
    fn update(&mut self, size: usize) {
        self.0.send(Message::Received(size as u64)).ok();
    }
    fn finish(&mut self) {}
}

/// Why a background thread is no longer listened to.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("no answer for {} seconds", .0.as_secs())]
    TooLong(Duration),
    #[error("the hub's answer was malformed")]
    Panicked,
}

/// Runs `work` on a thread of its own and gives its result, unless it says nothing for `patience`.
///
/// `hear` is called on this thread with what `work` sends.
fn in_background<T: Send + 'static>(
    patience: Duration,
    mut hear: impl FnMut(Message),
    work: impl FnOnce(Sender<Message>) -> T + Send + 'static,
) -> Result<T, Silence> {
    let (sender, messages): (_, Receiver<Message>) = channel();
    let thread = thread::spawn(move || work(sender));
    loop {
        match messages.recv_timeout(patience) {
            Ok(message) => hear(message),
            Err(RecvTimeoutError::Timeout) => return Err(Silence::TooLong(patience)),
            // The sender is gone: the work is done, or has panicked.
            Err(RecvTimeoutError::Disconnected) => return thread.join().map_err(|_| Silence::Panicked),
        }
    }
}
