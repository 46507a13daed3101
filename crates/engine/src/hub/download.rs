//! What of a model is downloaded, in which order, into the Hugging Face cache.
//!
//! One question tells which files a revision has and which commit it is; what is needed is then taken at that commit, so
//! that a model never mixes two. The branch's reference is written last: a download that breaks off leaves no model that
//! looks complete. How one file comes is in `blob.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::blob::Remote;
use super::cache::Repo;
use super::client::{Client, retry_after};
use super::files::Files;
use super::{Hub, HubError, is_plain, refused, write_file};
use crate::Event;
use crate::modules::MODULES;

/// Takes the model's files at `revision` and gives the snapshot's folder.
pub(super) fn fetch(hub: &Hub, id: &str, revision: &str, listener: &dyn Fn(Event<'_>)) -> Result<PathBuf, HubError> {
    Download::begin(hub, id, revision, listener)?.run(revision)
}

/// What a hub says of a model's revision.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// One model's download at one commit.
struct Download<'a> {
    id: &'a str,
    client: Client,
    repo: Repo,
    commit: String,
    /// Every file the hub has at that commit.
    listed: BTreeSet<String>,
    listener: &'a dyn Fn(Event<'_>),
}

impl<'a> Download<'a> {
    fn begin(hub: &Hub, id: &'a str, revision: &str, listener: &'a dyn Fn(Event<'_>)) -> Result<Self, HubError> {
        let client = Client::new(hub)?;
        let name = || id.to_owned();
        let url = format!("{}/api/models/{id}/revision/{}", client.endpoint(), revision.replace('/', "%2F"));
        let (answer, text) =
            client.ask(&url).map_err(|error| HubError::Unreachable { name: name(), reason: client.reason(&error) })?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Err(HubError::NotFound { name: name(), revision: revision.to_owned() }),
            status @ (401 | 403) => return Err(refused(id, status, client.has_token())),
            429 => return Err(HubError::Busy { name: name(), wait: retry_after(&answer) }),
            status => return Err(HubError::Answer { name: name(), reason: format!("status {status}") }),
        }
        let unusable = |reason: String| HubError::Answer { name: name(), reason };
        let info: Info = serde_json::from_slice(&text).map_err(|e| unusable(format!("json: {e}")))?;
        if !is_plain(&info.sha) {
            return Err(unusable(format!("{:?} is no commit", info.sha)));
        }
        let listed = info.siblings.into_iter().map(|s| s.rfilename).collect();
        Ok(Self { id, client, repo: Repo::new(&hub.cache, id), commit: info.sha, listed, listener })
    }

    fn run(&self, revision: &str) -> Result<PathBuf, HubError> {
        let snapshot = self.repo.snapshot(&self.commit);
        let has = |file: &str| self.listed.contains(file);
        if has(MODULES) {
            // It says where the others are.
            self.download(MODULES)?;
        }
        let files = Files::new(&snapshot, has);
        let take = |file: String| {
            if has(&file) {
                return self.download(&file);
            }
            let near = |name: &&String| files.is_beside(name) && name.contains("model");
            let present = self.listed.iter().filter(near).cloned().collect();
            Err(HubError::NoSuchFile { name: self.id.to_owned(), file, present })
        };
        if let Some(class) = files.other_than_transformer().filter(|_| !has(&files.config())) {
            return Err(HubError::NoTransformer { name: self.id.to_owned(), class: class.to_owned() });
        }
        take(files.config())?;
        for file in files.optional() {
            self.take_optional(&file)?;
        }
        let (one, index) = files.weights();
        if has(&one) || !has(&index) {
            take(one)?;
        } else {
            let unreadable = || HubError::Answer { name: self.id.to_owned(), reason: format!("{index} is damaged") };
            for shard in files.shards(&self.download(&index)?).ok_or_else(unreadable)? {
                self.download(&shard)?;
            }
        }
        if revision != self.commit {
            write_file(&self.repo.reference(revision), &self.commit)?;
        }
        Ok(snapshot)
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
        if !path.is_file() {
            let url = format!("{}/{}/resolve/{}/{file}", self.client.endpoint(), self.id, self.commit);
            let remote = Remote { client: &self.client, id: self.id, file, url, listener: self.listener };
            remote.fetch(&self.repo, &path)?;
        }
        Ok(path)
    }
}
