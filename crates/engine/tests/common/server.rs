//! A hub in miniature on a local port: the two questions that a download asks, and ways to answer them badly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// The commit that the hub's one model is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub does wrong.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answers everything with this status.
    Status(u16),
    /// Answers this many requests with the status, asking for a wait of so many seconds, and the rest properly.
    Busy(usize, u16, u64),
    /// Sends half of what is asked of `model.safetensors` and hangs up.
    Cut,
    /// Sends the first half of `model.safetensors` and hangs up, and nothing of the rest.
    Dead,
    /// As `Dead`, but keeps the connection open.
    Stall,
    /// Sends files in pieces of 1000 bytes with a wait after each.
    Slow,
    /// Sends more than it announced.
    Longer,
    /// Announces twice as much as there is.
    Shorter,
    /// Sends the whole file whatever part was asked for.
    NoRanges,
    /// Sends the file's start, calling it another part than the one that was asked for.
    WrongRange,
    /// Sends other bytes than it announced the SHA-256 of.
    Damage,
    /// Answers questions about the model with something that is no JSON.
    Nonsense,
    /// Leaves out the headers that a file's answer must have.
    NoHeaders,
    /// Answers with a commit that leads out of the cache.
    Traversal,
    /// Names a file by something that leads out of the cache.
    EtagTraversal,
    /// Sends `model.safetensors` from another host, at this port.
    Elsewhere(u16),
}

/// A hub with one model, `org/model`.
pub struct Server {
    pub endpoint: String,
    pub port: u16,
    pub requests: Arc<Mutex<Vec<String>>>,
    fault: Arc<Mutex<Fault>>,
    files: Files,
}

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

impl Server {
    /// Serves the files under `folder`.
    pub fn start(folder: &Path, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let fault = Arc::new(Mutex::new(fault));
        let mut files = BTreeMap::new();
        collect(folder, "", &mut files);
        let files = Arc::new(Mutex::new(files));
        let (log, mood, served) = (Arc::clone(&requests), Arc::clone(&fault), Arc::clone(&files));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (log, mood, served) = (Arc::clone(&log), Arc::clone(&mood), Arc::clone(&served));
                // A client that hangs up early is its own affair.
                std::thread::spawn(move || answer(&stream, &served, &mood, &log).ok());
            }
        });
        Self { endpoint: format!("http://127.0.0.1:{port}"), port, requests, fault, files }
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Gives a file another content, and with it another name in the cache.
    pub fn replace(&self, name: &str, content: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), content);
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Requests whose line has all these parts.
    pub fn asked(&self, parts: &[&str]) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| parts.iter().all(|part| request.contains(part))).count()
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

/// The name in the cache: of weights their SHA-256, as the hub has it for large files.
fn etag(name: &str, content: &[u8]) -> String {
    let hex = Sha256::digest(content).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let large = Path::new(name).extension().is_some_and(|e| e == "safetensors" || e == "bin");
    if large { hex } else { hex[..40].to_owned() }
}

/// A request as far as this hub looks at it.
struct Asked {
    method: String,
    path: String,
    /// The first byte asked for.
    start: usize,
    token: String,
}

fn read_request(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = request.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut start = 0;
    let mut token = String::new();
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.split_once('-').unwrap().0.parse::<usize>().unwrap();
        }
        if let Some(value) = line.strip_prefix("authorization: ") {
            value.clone_into(&mut token);
        }
    }
    Ok(Asked { method, path, start, token })
}

fn answer(
    mut stream: &TcpStream,
    files: &Mutex<BTreeMap<String, Vec<u8>>>,
    mood: &Mutex<Fault>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let Asked { method, path, start, token } = read_request(stream)?;
    log.lock().unwrap().push(format!("{method} {path} from={start} {token}").trim().to_owned());
    let mut fault = *mood.lock().unwrap();
    if let Fault::Status(status) = fault {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if let Fault::Busy(times, status, wait) = fault {
        *mood.lock().unwrap() = if times > 1 { Fault::Busy(times - 1, status, wait) } else { Fault::None };
        let head = "Content-Length: 0\r\nConnection: close";
        return write!(stream, "HTTP/1.1 {status} No\r\nRetry-After: {wait}\r\n{head}\r\n\r\n");
    }
    if path.starts_with("/api/models/org/model/revision/") {
        let files = files.lock().unwrap();
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let sha = if fault == Fault::Traversal { "../../../../escaped" } else { COMMIT };
        let body = match fault {
            Fault::Nonsense => "<html>please log in</html>".to_owned(),
            _ => serde_json::json!({"sha": sha, "siblings": siblings}).to_string(),
        };
        let length = body.len();
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    }
    let name = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")).unwrap_or_default().to_owned();
    let Some(content) = files.lock().unwrap().get(&name).cloned() else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if fault == Fault::NoHeaders {
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    }
    if name != "model.safetensors" && fault != Fault::EtagTraversal && fault != Fault::Slow {
        fault = Fault::None;
    }
    let length = if fault == Fault::Shorter { 2 * content.len() } else { content.len() };
    let etag = match fault {
        Fault::Damage => "ab".repeat(32),
        Fault::EtagTraversal => "../../escaped".to_owned(),
        // A name that is no SHA-256: nothing but the length tells what is wrong.
        Fault::Shorter | Fault::Longer => "b1ab".to_owned(),
        _ => etag(&name, &content),
    };
    if let Fault::Elsewhere(port) = fault {
        let location = format!("http://127.0.0.1:{port}{path}");
        let linked = format!("X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {length}");
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\n{linked}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let (status, first) = match (start, fault) {
        (0, _) | (_, Fault::NoRanges) => ("200 OK", 0),
        (first, _) => ("206 Partial Content", first.min(length)),
    };
    let range = if fault == Fault::WrongRange && first > 0 { 0 } else { first };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
         Content-Range: bytes {range}-{}/{length}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        length - 1,
        length - first + usize::from(fault == Fault::Longer && method == "GET"),
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    let half = content.len() / 2;
    let end = match fault {
        Fault::Cut => first + (content.len() - first).div_ceil(2),
        Fault::Dead | Fault::Stall => half.max(first),
        // Cuts once, so that something is asked for again.
        Fault::NoRanges | Fault::WrongRange if start == 0 => half,
        _ => content.len(),
    };
    let first = first.min(end);
    if fault == Fault::Slow {
        for piece in content[first..end].chunks(1000) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        return Ok(());
    }
    stream.write_all(&content[first..end])?;
    match fault {
        Fault::Longer => stream.write_all(b"x"),
        Fault::Stall => {
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        _ => Ok(()),
    }
}
