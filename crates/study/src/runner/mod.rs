//! Runs a plan: starts workers, has their values checked, takes their times in turns, and appends each row as it is done.
//!
//! For every process number and every group of cells the variants' workers are started once and live side by side. In a
//! cell each first returns its result, which is compared with the golden one (`verify.rs`); only then it is warmed up
//! and timed, in rounds whose order is shuffled, so that a machine that slows down slows all of them. A worker that fails is
//! a row that says so, and the study goes on. What is done already is found in the records: a run that was stopped
//! or killed goes on where it was.

mod abreast;
mod cell;
mod crew;
mod energy;
mod paces;
mod seat;
mod verify;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use self::abreast::abreast;
pub use self::crew::usable;
use self::crew::{Crew, Known, cores, together};
use self::energy::Meters;
use self::paces::Paces;
use self::seat::Seat;
use crate::machine;
use crate::models::{self, Model};
use crate::peers::{Home, Kind, Peers};
use crate::plan::{Group, Plan, Task};
use crate::protocol::{Probe, Request};
use crate::random::Random;
use crate::record::{Limits, Line, Records, Row, Run, SCHEMA, Variant, Writer};
use crate::worker::Worker;
use crate::{Error, Result};

/// What is run, where, and how it can be stopped.
#[derive(Debug)]
pub struct Study<'a> {
    /// What.
    pub plan: &'a Plan,
    /// Who may take part.
    pub peers: &'a Peers,
    /// Where environments, workers and random checkpoints are.
    pub home: &'a Home,
    /// The record file: rows it holds already are not measured again.
    pub records: PathBuf,
    /// Folders of real checkpoints, by the name of their model.
    pub checkpoints: BTreeMap<String, PathBuf>,
    /// Of inputs, weights and orders.
    pub seed: u64,
    /// Threads of each engine.
    pub threads: usize,
    /// The program's version and the commit it was built from.
    pub version: (String, Option<String>),
    /// Set to end the run after the current request.
    pub stop: Arc<AtomicBool>,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something takes a while.
    Doing(String),
    /// A variant that the plan names cannot run here.
    Absent {
        /// Which.
        variant: &'a Variant,
        /// Why not, and what mends it.
        reason: &'a str,
    },
    /// The measurement begins.
    Begin {
        /// Rows to measure.
        rows: usize,
        /// Rows that were there already.
        done: usize,
    },
    /// A variant has its turn in a cell.
    Turn {
        /// The cell.
        cell: &'a str,
        /// Whose turn.
        variant: &'a Variant,
    },
    /// A row is done and on the disk.
    Row(&'a Row),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Rows with times.
    pub measured: usize,
    /// Rows that say why there are none.
    pub failed: usize,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// Runs the plan.
///
/// # Errors
/// Records that are damaged or of another plan or seed, no golden engine, no engine at all; the disk's own. What goes wrong with a
/// worker is a row instead.
pub fn run(study: &Study<'_>, hear: &mut dyn FnMut(Event<'_>)) -> Result<Summary> {
    let (writer, records) = Writer::open(&study.records)?;
    check_resumed(study, &records)?;
    std::fs::create_dir_all(&study.home.folder).map_err(Error::io("create", &study.home.folder))?;
    let scratch = tempfile::Builder::new().prefix("scratch-").tempdir_in(&study.home.folder);
    let scratch = scratch.map_err(Error::io("create", &study.home.folder))?;
    let mut runner = Runner {
        study,
        hear,
        writer,
        done: records.rows.iter().map(key).collect(),
        run: String::new(),
        limits: None,
        scratch,
        meters: Meters::find(),
        paces: Paces::of(&records.rows),
        summary: Summary::default(),
    };
    match runner.everything() {
        Err(Ended::Failed(error)) => Err(error),
        Err(Ended::Stopped) => Ok(Summary { stopped: true, ..runner.summary }),
        Ok(()) => Ok(runner.summary),
    }
}

fn check_resumed(study: &Study<'_>, records: &Records) -> Result<()> {
    for run in &records.runs {
        if run.plan != study.plan.name || run.seed != study.seed {
            let what = format!("it holds plan {} with seed {}: choose another file", run.plan, run.seed);
            return Err(Error::Plan { name: study.records.display().to_string(), what });
        }
    }
    Ok(())
}

/// What makes a row one of its kind.
fn key(row: &Row) -> (String, Variant, usize) {
    (row.cell.id.clone(), row.variant.clone(), row.process)
}

enum Ended {
    Failed(Error),
    Stopped,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Runner<'a> {
    study: &'a Study<'a>,
    hear: &'a mut dyn FnMut(Event<'_>),
    writer: Writer,
    done: HashSet<(String, Variant, usize)>,
    /// The id of this run.
    run: String,
    /// What the machine can do at most.
    limits: Option<Limits>,
    scratch: TempDir,
    meters: Meters,
    paces: Paces,
    summary: Summary,
}

impl Runner<'_> {
    fn everything(&mut self) -> Result<(), Ended> {
        let Study { plan, .. } = *self.study;
        let groups = plan.groups()?;
        let mut known = BTreeMap::new();
        let mut crews = Vec::new();
        for group in &groups {
            let kind = if group.model.is_some() { Kind::Models } else { Kind::Operations };
            crews.push(self.crew(kind, &mut known)?);
        }
        let cells: Vec<(String, &Crew)> = groups
            .iter()
            .zip(&crews)
            .flat_map(|(g, crew)| g.tasks.iter().map(move |t| (t.cell.id.clone(), crew)))
            .collect();
        let rows = cells.iter().map(|(_, crew)| crew.variants.len()).sum::<usize>().checked_mul(plan.processes);
        let rows = rows.ok_or_else(|| Error::Plan {
            name: plan.name.clone(),
            what: format!("processes = {}: more rows than can be counted", plan.processes),
        })?;
        let mut left = 0;
        for (cell, crew) in &cells {
            for variant in &crew.variants {
                let missing = |&p: &usize| !self.done.contains(&(cell.clone(), variant.clone(), p));
                left += (0..plan.processes).filter(missing).count();
            }
        }
        if left == 0 {
            (self.hear)(Event::Begin { rows: 0, done: rows });
            return Ok(());
        }
        // Not before it is clear that something can run: what cannot leaves no file. And before what takes minutes.
        self.writer.begin()?;
        let mut folders = Vec::new();
        for group in &groups {
            folders.push(group.model.map(|model| self.checkpoint(model)).transpose()?);
        }
        self.head(&groups, &folders, known)?;
        (self.hear)(Event::Begin { rows: left, done: rows - left });
        for process in 0..plan.processes {
            for ((group, crew), folder) in groups.iter().zip(&crews).zip(&folders) {
                self.group(process, group, crew, folder.as_ref())?;
            }
        }
        Ok(())
    }

    /// The folder of a model's weights: the one given, or random ones.
    fn checkpoint(&mut self, model: &Model) -> Result<PathBuf, Ended> {
        if let Some(folder) = self.study.checkpoints.get(model.name) {
            return Ok(folder.clone());
        }
        (self.hear)(Event::Doing(format!("random weights for {}", model.name)));
        Ok(model.checkpoint(&self.study.home.checkpoints(), self.study.seed)?)
    }

    /// Writes the circumstances of what follows.
    fn head(&mut self, groups: &[Group], folders: &[Option<PathBuf>], known: Known) -> Result<(), Ended> {
        let mut checkpoints = BTreeMap::new();
        for (group, folder) in groups.iter().zip(folders) {
            if let (Some(model), Some(folder)) = (group.model, folder) {
                (self.hear)(Event::Doing(format!("hashing the weights of {}", model.name)));
                checkpoints.insert(model.name.to_owned(), models::hash(folder)?);
            }
        }
        self.go_on()?;
        (self.hear)(Event::Doing("measuring what the machine can do".into()));
        self.limits = self.probe();
        let limits = self.limits.clone();
        self.go_on()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let machine = machine::machine();
        let Study { plan, seed, threads, .. } = *self.study;
        let mut id = Random::new(now.as_nanos() as u64, &machine.name);
        self.run = format!("{:016x}", id.bits());
        let (version, commit) = self.study.version.clone();
        let peers = known.into_iter().filter_map(|(name, info)| Some((name, info.ok()?)));
        let run = Run {
            schema: SCHEMA,
            id: self.run.clone(),
            plan: plan.name.clone(),
            started: machine::utc(now.as_secs()),
            version,
            commit,
            seed,
            threads,
            machine,
            limits,
            peers: peers.collect(),
            checkpoints,
        };
        Ok(self.writer.append(&Line::Run(run))?)
    }

    /// The machine's limits, from our own worker; none if that does not run.
    fn probe(&self) -> Option<Limits> {
        let Study { peers, home, threads, ref stop, .. } = *self.study;
        let own = peers.iter().find(|peer| peer.environment().is_none())?;
        let launch = home.launch(peers, own, own.first_mode()?, threads).ok()?;
        let timeout = Duration::from_mins(1);
        let mut worker = Worker::start(&launch, timeout, stop).ok()?;
        worker.ask::<Probe>(&Request::Probe { threads }, timeout).ok()
    }

    /// All cells of a group, with as many workers side by side as fit into memory.
    fn group(&mut self, process: usize, group: &Group, crew: &Crew, folder: Option<&PathBuf>) -> Result<(), Ended> {
        for variants in together(crew, group) {
            let missing = |v: &&Variant, cell: &str| !self.done.contains(&(cell.to_owned(), (*v).clone(), process));
            let mut todo: Vec<(&Task, Vec<&Variant>)> = Vec::new();
            for task in &group.tasks {
                let left: Vec<_> = variants.iter().filter(|v| missing(v, &task.cell.id)).collect();
                if !left.is_empty() {
                    todo.push((task, left));
                }
            }
            if todo.is_empty() {
                continue;
            }
            let seat = |variant: &Variant| Seat::new(self.study, variant.clone(), folder.cloned());
            let mut golden = seat(&crew.golden);
            let mut seats: Vec<Seat<'_>> = variants.iter().map(seat).collect();
            let name = group.model.map_or("operations", |model| model.name);
            let mut random = Random::new(self.study.seed, &format!("order/{process}/{name}"));
            random.shuffle(&mut todo);
            if group.effort.at_most_seconds_each.is_some() {
                // Small cells tell how long the larger ones will take.
                todo.sort_by_key(|(task, _)| task.cell.flops);
            }
            // Processes start side by side; what they load is timed, and comes later.
            let with_work = |seat: &&mut Seat<'_>| todo.iter().any(|(_, left)| left.contains(&&seat.variant));
            let starting: Vec<_> = seats.iter_mut().filter(with_work).chain([&mut golden]).collect();
            let names: Vec<_> = starting.iter().map(|seat| seat.variant.clone()).collect();
            let mut tell = |place: usize| (self.hear)(Event::Doing(format!("starting {}", names[place])));
            // One that cannot start is a failed row of each of its cells.
            abreast(starting, cores(), &mut tell, |seat| drop(seat.start()));
            self.go_on()?;
            for (task, left) in todo {
                let mut taking: Vec<&mut Seat<'_>> = seats.iter_mut().filter(|s| left.contains(&&s.variant)).collect();
                self.cell(process, group.effort, task, &mut golden, &mut taking, &mut random)?;
            }
        }
        Ok(())
    }

    /// Ends the run if that was asked for.
    fn go_on(&self) -> Result<(), Ended> {
        if self.study.stop.load(Ordering::Relaxed) { Err(Ended::Stopped) } else { Ok(()) }
    }
}
