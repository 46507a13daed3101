//! A variant's place in a group: its worker, started when it is first needed and again when it has crashed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Study;
use super::crew::setting;
use crate::protocol::{Loaded, Output, Ready, Request, Shape};
use crate::record::{Failure, Variant};
use crate::worker::{Worker, failure};

/// How often a worker is started before its variant is given up in a group.
const STARTS: usize = 3;

pub(super) struct Seat<'a> {
    pub(super) variant: Variant,
    study: &'a Study<'a>,
    /// The checkpoint; `None` for operations.
    folder: Option<PathBuf>,
    worker: Option<Worker>,
    loaded: Option<Loaded>,
    starts: usize,
    /// Why it could not be started the last time.
    failed: Option<Failure>,
    /// Seconds the last result took, if its worker said so.
    output_seconds: Option<f64>,
}

impl<'a> Seat<'a> {
    pub(super) fn new(study: &'a Study<'a>, variant: Variant, folder: Option<PathBuf>) -> Self {
        Self { variant, study, folder, worker: None, loaded: None, starts: 0, failed: None, output_seconds: None }
    }

    /// Tells the worker what the next runs compute.
    pub(super) fn prepare(&mut self, request: &Request) -> Result<(), Failure> {
        self.load()?;
        self.ask::<Ready>(request).map(|_| ())
    }

    /// Has the result written to a file.
    pub(super) fn output(&mut self, file: &Path) -> Result<Shape, Failure> {
        let output: Output = self.ask(&Request::Output { file: file.to_owned() })?;
        self.output_seconds = output.host_ns.map(|ns| ns as f64 / 1e9);
        Ok(output.shape)
    }

    pub(super) fn output_seconds(&self) -> Option<f64> {
        self.output_seconds
    }

    /// Asks the worker that was prepared.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        let timeout = self.timeout();
        let Some(worker) = &mut self.worker else { return Err(failure("crash", "there is no worker".into())) };
        worker.ask(request, timeout)
    }

    pub(super) fn load_seconds(&self) -> Option<f64> {
        self.loaded.as_ref()?.seconds
    }

    pub(super) fn detail(&self) -> String {
        self.loaded.as_ref().map(|loaded| loaded.detail.clone()).unwrap_or_default()
    }

    pub(super) fn peak_memory(&self) -> Option<u64> {
        self.worker.as_ref()?.peak_memory()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.study.plan.timeout_seconds.min(1e6))
    }

    /// Makes sure that there is a worker: a process that has said who it is.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        if self.worker.as_ref().is_some_and(Worker::is_alive) {
            return Ok(());
        }
        if let Some(failed) = self.failed.clone().filter(|_| self.starts >= STARTS) {
            return Err(failed);
        }
        self.starts += 1;
        self.worker = None;
        self.loaded = None;
        let started = self.launch();
        self.failed = match &started {
            Ok(_) if self.starts >= STARTS => {
                Some(failure("crash", format!("its worker had to be started {STARTS} times, and ended again")))
            }
            Ok(_) => None,
            Err(failed) => Some(failed.clone()),
        };
        self.worker = Some(started?);
        Ok(())
    }

    fn launch(&self) -> Result<Worker, Failure> {
        let Study { peers, home, threads, ref stop, .. } = *self.study;
        let peer = peers.find(&self.variant.peer).map_err(|e| failure("start", e.to_string()))?;
        let launch = home.launch(peers, peer, &self.variant.mode, threads).map_err(|e| failure("start", e))?;
        Worker::start(&launch, self.timeout(), stop)
    }

    /// Makes sure that the worker has the checkpoint loaded.
    pub(super) fn load(&mut self) -> Result<(), Failure> {
        self.start()?;
        if self.loaded.is_some() {
            return Ok(());
        }
        let setting = setting(&self.variant, self.study.threads);
        let request = match &self.folder {
            Some(model) => Request::Load { model: model.clone(), setting },
            None => Request::Open { setting },
        };
        match self.ask(&request) {
            Ok(loaded) => self.loaded = Some(loaded),
            Err(failed) => {
                // Whatever is left of it is not asked again.
                self.worker = None;
                self.failed = Some(failed.clone());
                return Err(failed);
            }
        }
        Ok(())
    }
}
