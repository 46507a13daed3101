//! A hub in miniature on a local port: the two questions that a download asks, and ways to answer them badly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The commit that the hub's one model is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does wrong.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answers everything with this status.
    Status(u16),
    /// Sends half of each `model.safetensors` and hangs up.
    Cut,
    /// Sends other bytes than it announced the SHA-256 of.
    Damage,
    /// Answers questions about the model with something that is no JSON.
    Nonsense,
    /// Leaves out the headers that a file's answer must have.
    NoHeaders,
    /// Answers with a commit that leads out of the cache.
    Traversal,
}

/// A hub with one model, `org/model`.
pub struct Server {
    pub endpoint: String,
    pub requests: Arc<Mutex<Vec<String>>>,
    fault: Arc<Mutex<Fault>>,
}

impl Server {
    /// Serves the files under `folder`.
    pub fn start(folder: &Path, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let fault = Arc::new(Mutex::new(fault));
        let mut files = BTreeMap::new();
        collect(folder, "", &mut files);
        let (log, mood) = (Arc::clone(&requests), Arc::clone(&fault));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mood = *mood.lock().unwrap();
                // A client that hangs up early is its own affair.
                answer(&stream.unwrap(), &files, mood, &log).ok();
            }
        });
        Self { endpoint, requests, fault }
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

fn answer(
    mut stream: &TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    fault: Fault,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut start = None;
    let mut token = String::new();
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            let (first, last) = range.split_once('-').unwrap();
            start = Some((first.parse::<usize>().unwrap(), last.parse::<usize>().ok()));
        }
        if let Some(value) = line.strip_prefix("authorization: ") {
            value.clone_into(&mut token);
        }
    }
    log.lock().unwrap().push(format!("{path} {token}").trim().to_owned());
    if let Fault::Status(status) = fault {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if path.starts_with("/api/models/org/model/revision/") {
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let sha = if fault == Fault::Traversal { "../../../../escaped" } else { COMMIT };
        let body = match fault {
            Fault::Nonsense => "<html>please log in</html>".to_owned(),
            _ => serde_json::json!({"sha": sha, "siblings": siblings}).to_string(),
        };
        let length = body.len();
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    }
    let file = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/"));
    let Some((name, content)) = file.and_then(|name| files.get_key_value(name)) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if fault == Fault::NoHeaders {
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    }
    let (first, last) = start.unwrap_or((0, None));
    let end = last.map_or(content.len(), |last| last + 1).min(content.len());
    // The hub names large files by their SHA-256; this one is of the right shape and of nothing.
    let etag = if fault == Fault::Damage { "ab".repeat(32) } else { format!("etag-{}", name.replace('/', "-")) };
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
         Content-Range: bytes {first}-{}/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        end.saturating_sub(1),
        content.len(),
        end - first,
    )?;
    let half = first + (end - first) / 2;
    let sent = if fault == Fault::Cut && name == "model.safetensors" && last.is_none() { half } else { end };
    stream.write_all(&content[first..sent])
}
