//! A worker process: started, asked, kept in time, and ended. Whatever it does - crash, hang, talk nonsense - becomes a
//! [`Failure`] with its stage and the end of what it said on standard error, and never stops the study.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::protocol::{Hello, PROTOCOL, Reply, Request};
use crate::record::Failure;

/// What is kept of a worker's standard error.
const SAID: usize = 2000;
/// The longest reply: the times of a million iterations.
const LONGEST_REPLY: u64 = 64 << 20;
/// How long a worker may take to end when its input is closed.
const GOODBYE: Duration = Duration::from_secs(3);

/// How soon it is noticed that the run was stopped.
const PATIENCE: Duration = Duration::from_millis(100);

/// How to start a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to its environment.
    pub environment: Vec<(String, OsString)>,
}

/// A running worker. Dropping it ends the process.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    /// Lines on their way to its standard input, which is closed when this is gone.
    requests: Option<Sender<String>>,
    replies: Receiver<std::io::Result<String>>,
    said: Arc<Mutex<VecDeque<u8>>>,
    hello: Hello,
    /// Set when nobody waits for replies any more.
    stop: Arc<AtomicBool>,
    /// Set when it can no longer be asked.
    dead: bool,
}

impl Worker {
    /// Starts the process and hears who it is. When `stop` is set, whatever it is asked ends with stage `stopped`.
    ///
    /// # Errors
    /// Stage `start` if there is no such program, it ends, or speaks another protocol; `timeout` if it says nothing.
    pub fn start(launch: &Launch, timeout: Duration, stop: &Arc<AtomicBool>) -> Result<Self, Failure> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).envs(launch.environment.iter().map(|(name, value)| (name, value)));
        #[cfg(unix)]
        // Ctrl-C is for the runner, which ends its workers in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |what| failure("start", format!("{}: {what}", launch.program.display()));
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = (input, output, errors) else {
            return Err(failed("no pipes".into()));
        };

        let (requests, lines) = channel::<String>();
        let (sender, replies) = channel();
        let nobody = Hello { protocol: 0, name: String::new(), version: String::new(), detail: String::new() };
        let (requests, said, stop) = (Some(requests), Arc::default(), Arc::clone(stop));
        // From here on the process is ended with this.
        let mut worker = Self { child, requests, replies, said, hello: nobody, stop, dead: false };

        // Each thread ends with its pipe. One of them writes, so that a worker that does not read cannot hold up the runner.
        let keep = Arc::clone(&worker.said);
        let errors = spawn(move || keep_the_end(errors, &keep));
        let input = spawn(move || {
            for line in lines {
                if input.write_all(line.as_bytes()).and_then(|()| input.flush()).is_err() {
                    break;
                }
            }
        });
        let output = spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = String::new();
                let reply = match output.by_ref().take(LONGEST_REPLY).read_line(&mut line) {
                    Ok(0) => break,
                    Ok(_) => Ok(line),
                    Err(e) => Err(e),
                };
                if sender.send(reply).is_err() {
                    break;
                }
            }
        });

        errors.and(input).and(output).map_err(|e| failed(format!("no thread to talk to it: {e}")))?;
        let hello: Hello = worker.ask(&Request::Hello, timeout).map_err(|f| match f.stage.as_str() {
            "crash" | "protocol" => failure("start", f.message),
            _ => f,
        })?;
        if hello.protocol != PROTOCOL {
            return Err(failed(format!("it speaks protocol {}, and this program {PROTOCOL}", hello.protocol)));
        }
        worker.hello = hello;
        Ok(worker)
    }

    /// Who it said it is.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Whether it can be asked again.
    pub fn is_alive(&self) -> bool {
        !self.dead
    }

    /// Sends a request and waits for its reply. After `timeout`, a crash or nonsense the process is ended.
    ///
    /// # Errors
    /// What the worker answered; stages `timeout`, `crash` and `protocol` for what it did instead.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request, timeout: Duration) -> Result<T, Failure> {
        if self.dead {
            return Err(failure("crash", "the worker had ended before".into()));
        }
        let mut line = serde_json::to_string(request).map_err(|e| failure("protocol", e.to_string()))?;
        line.push('\n');
        // A worker that is gone does not answer either; why is found out below.
        let reply = match self.requests.as_ref().map(|requests| requests.send(line)) {
            Some(Ok(())) => self.reply(timeout),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        match reply {
            Ok(Ok(line)) => match serde_json::from_str::<Reply<T>>(&line) {
                Ok(Reply::Ok(value)) => Ok(value),
                Ok(Reply::Error(fault)) => {
                    if fault.fatal {
                        self.end();
                    }
                    Err(failure(&fault.stage, fault.message))
                }
                Err(e) => {
                    self.end();
                    let start: String = line.trim_end().chars().take(200).collect();
                    Err(failure("protocol", format!("{e}, in {start:?}{}", self.last_words())))
                }
            },
            Ok(Err(e)) => {
                self.end();
                Err(failure("protocol", format!("{e}{}", self.last_words())))
            }
            Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => {
                self.end();
                Err(failure("stopped", "the run was stopped".into()))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                Err(failure("timeout", format!("no reply in {:.0} s{}", timeout.as_secs_f64(), self.last_words())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait(GOODBYE);
                self.end();
                let how = status.map_or_else(|| "it closed its output".into(), describe);
                Err(failure("crash", format!("{how}{}", self.last_words())))
            }
        }
    }

    /// The next line, unless the time is up or the run is stopped.
    fn reply(&self, timeout: Duration) -> Result<std::io::Result<String>, RecvTimeoutError> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            match self.replies.recv_timeout(left.min(PATIENCE)) {
                Err(RecvTimeoutError::Timeout) if left > PATIENCE && !self.stop.load(Ordering::Relaxed) => {}
                reply => return reply,
            }
        }
    }

    /// The most memory it has held so far, in bytes, where the system tells.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// Waits for its end, at most so long.
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }

    fn end(&mut self) {
        self.dead = true;
        self.requests = None;
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it started may not: OpenVINO forks a process that outlives it, and holds our pipes open. The group is its own.
        #[cfg(unix)]
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// The end of its standard error, as a clause; nothing if it said nothing.
    fn last_words(&self) -> String {
        // What was written just before the end is still on its way through the pipe.
        thread::sleep(Duration::from_millis(20));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = said.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!("; it said: {text}") }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.dead {
            self.requests = None;
            self.wait(GOODBYE);
        }
        self.end();
    }
}

/// Does `work` on a thread of its own.
fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().spawn(work).map(drop)
}

/// A failure of a stage.
pub(crate) fn failure(stage: &str, message: String) -> Failure {
    Failure { stage: stage.into(), message }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("it was ended by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("it ended with status {code}"),
        None => "it ended".into(),
    }
}

fn keep_the_end(mut errors: impl Read, said: &Mutex<VecDeque<u8>>) {
    let mut part = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut part) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend(&part[..count]);
        let excess = said.len().saturating_sub(SAID);
        said.drain(..excess);
    }
}
