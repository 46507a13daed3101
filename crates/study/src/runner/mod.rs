//! Runs a plan: starts workers, has their values checked, takes their times in turns, and appends each row as it is done.
//!
//! For every process number and every group of cells the variants' workers are started once and live side by side. In a
//! cell each first returns its result, which is compared with the golden one (`verify.rs`); only then it is warmed up
//! and timed, in rounds whose order is shuffled, so that a machine that slows down slows all of them. A worker that fails is
//! a row that says so, and the study goes on. What is done already is found in the records: a run that was stopped
//! or killed goes on where it was.

mod energy;
mod paces;
mod seat;
mod verify;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use self::energy::Meters;
use self::paces::Paces;
use self::seat::Seat;
use self::verify::{Limit, compare};
use crate::machine;
use crate::models::{self, Model};
use crate::peers::{Home, Kind, Pattern, Peers};
use crate::plan::{Effort, Given, Group, Plan, Schedule, Task};
use crate::protocol::{Probe, Request, Setting, Times};
use crate::random::Random;
use crate::record::{
    Cell, Failure, Limits, Line, Measured, Outcome, PeerInfo, Records, Row, Run, SCHEMA, Variant, Writer,
};
use crate::worker::{Worker, failure};
use crate::{Error, Result};

/// What share of the free memory workers may fill together; the rest is for inputs, results and the system.
const MEMORY_SHARE: f64 = 0.75;
/// Bytes a worker needs for each byte of a checkpoint: the engine's own copy, and what it computes with.
const COPIES: f64 = 1.6;

/// How much quicker than the machine's measured peak of f32 a CPU may seem: the peak is measured once, on a machine that
/// may be busy, and some CPUs have units for matrices that it does not know.
const BEYOND_PEAK: f64 = 4.0;

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

/// Whether a peer's mode can run on a device here, and who it says it is.
///
/// # Errors
/// Why it cannot, and what mends it.
pub fn usable(
    home: &Home,
    peers: &Peers,
    variant: &Variant,
    threads: usize,
    stop: &Arc<AtomicBool>,
) -> Result<PeerInfo, String> {
    let peer = peers.find(&variant.peer).map_err(|e| e.to_string())?;
    let launch = home.launch(peers, peer, &variant.mode, threads)?;
    let timeout = Duration::from_mins(2);
    let said = |f: Failure| format!("{}: {}", f.stage, f.message);
    let mut worker = Worker::start(&launch, timeout, stop).map_err(said)?;
    let setting = setting(variant, threads);
    worker.ask::<crate::protocol::Loaded>(&Request::Open { setting }, timeout).map_err(said)?;
    let hello = worker.hello();
    Ok(PeerInfo { title: peer.title.clone(), version: hello.version.clone(), detail: hello.detail.clone() })
}

fn setting(variant: &Variant, threads: usize) -> Setting {
    let Variant { mode, device, dtype, .. } = variant.clone();
    Setting { device, dtype, mode, threads }
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

/// The variants of one kind that can run here, and the golden one.
struct Crew {
    golden: Variant,
    variants: Vec<Variant>,
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
        let rows = cells.iter().map(|(_, crew)| crew.variants.len()).sum::<usize>() * plan.processes;
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

    /// Finds out which variants of a kind can run here.
    fn crew(&mut self, kind: Kind, known: &mut BTreeMap<String, Result<PeerInfo, String>>) -> Result<Crew, Ended> {
        let Study { plan, peers, home, threads, .. } = *self.study;
        let mut check = |runner: &mut Self, variant: &Variant| -> Result<bool, Ended> {
            let name = format!("{}/{}/{}", variant.peer, variant.mode, variant.device);
            if !known.contains_key(&name) {
                (runner.hear)(Event::Doing(format!("starting {name}")));
                let found = usable(home, peers, variant, threads, &runner.study.stop);
                runner.go_on()?;
                if let Err(reason) = &found {
                    (runner.hear)(Event::Absent { variant, reason });
                }
                known.insert(name.clone(), found);
            }
            Ok(known.get(&name).is_some_and(Result::is_ok))
        };
        let mut variants = Vec::new();
        for variant in peers.variants(kind, &plan.variants) {
            if check(self, &variant)? {
                variants.push(variant);
            }
        }
        let mut golden = None;
        for pattern in &plan.golden {
            for variant in peers.variants(kind, std::slice::from_ref(pattern)) {
                if golden.is_none() && check(self, &variant)? {
                    golden = Some(variant);
                }
            }
        }
        let nobody = |what: String| Ended::Failed(Error::Plan { name: plan.name.clone(), what });
        let patterns = |all: &[Pattern]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if variants.is_empty() {
            return Err(nobody(format!("none of {} can run here", patterns(&plan.variants))));
        }
        let golden = golden
            .ok_or_else(|| nobody(format!("no golden engine: none of {} can run here", patterns(&plan.golden))))?;
        Ok(Crew { golden, variants })
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
    fn head(
        &mut self,
        groups: &[Group],
        folders: &[Option<PathBuf>],
        known: BTreeMap<String, Result<PeerInfo, String>>,
    ) -> Result<(), Ended> {
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
            for (task, left) in todo {
                let mut taking: Vec<&mut Seat<'_>> = seats.iter_mut().filter(|s| left.contains(&&s.variant)).collect();
                self.cell(process, group.effort, task, &mut golden, &mut taking, &mut random)?;
            }
        }
        Ok(())
    }

    /// One cell: every worker's values, then everybody's times in turns.
    fn cell(
        &mut self,
        process: usize,
        effort: Effort,
        task: &Task,
        golden: &mut Seat<'_>,
        seats: &mut [&mut Seat<'_>],
        random: &mut Random,
    ) -> Result<(), Ended> {
        let cell = &task.cell.id;
        let folder = tempfile::Builder::new().prefix("cell-").tempdir_in(self.scratch.path());
        let folder = folder.map_err(Error::io("create", self.scratch.path()))?;
        let (request, limit) = match &task.given {
            Given::Texts(ids) => (Request::Batch { ids: ids.clone() }, Limit::Model),
            Given::Case(case) => {
                let request = case.write_inputs(self.study.seed, folder.path())?;
                (Request::Operation(request), Limit::Operation { terms: case.form()?.terms })
            }
        };
        let expected = folder.path().join("golden.bin");
        (self.hear)(Event::Turn { cell, variant: &golden.variant });
        let shape = golden.prepare(&request).and_then(|()| golden.output(&expected));
        self.go_on()?;

        let mut results: Vec<Result<Measured, Failure>> = Vec::with_capacity(seats.len());
        for seat in seats.iter_mut() {
            (self.hear)(Event::Turn { cell, variant: &seat.variant });
            let found = folder.path().join("found.bin");
            let golden_failed =
                |f: &Failure| failure("golden", format!("{}: {}: {}", golden.variant, f.stage, f.message));
            let result = shape.as_ref().map_err(golden_failed).and_then(|shape| {
                self.paces.in_time(&task.cell, &seat.variant, effort)?;
                seat.prepare(&request)?;
                let got = seat.output(&found)?;
                let name = golden.variant.to_string();
                compare((&expected, shape), (&found, &got), &seat.variant.dtype, limit, name)
            });
            results.push(result.map(|check| Measured {
                host_ns: Vec::new(),
                device_ns: None,
                check,
                load_seconds: seat.load_seconds(),
                peak_memory: None,
                joules: None,
                detail: seat.detail(),
            }));
            self.go_on()?;
        }
        self.times(&task.cell, effort, seats, &mut results, random)?;
        for (seat, result) in seats.iter().zip(&mut results) {
            let implausible = result.as_ref().ok().and_then(|m| self.implausible(&seat.variant, &task.cell, m));
            if let Some(failed) = implausible {
                *result = Err(failed);
            }
        }
        for (seat, result) in seats.iter().zip(results) {
            let outcome = match result {
                Ok(measured) => Outcome::Measured(Measured { peak_memory: seat.peak_memory(), ..measured }),
                Err(failed) => Outcome::Failed(failed),
            };
            let row =
                Row { run: self.run.clone(), cell: task.cell.clone(), variant: seat.variant.clone(), process, outcome };
            let row = Line::Row(row);
            self.writer.append(&row)?;
            let Line::Row(row) = row else { continue };
            match row.outcome {
                Outcome::Measured(_) => self.summary.measured += 1,
                Outcome::Failed(_) => self.summary.failed += 1,
            }
            self.done.insert(key(&row));
            (self.hear)(Event::Row(&row));
        }
        Ok(())
    }

    /// Warms up and times those whose values were right, in shuffled rounds. A failure takes its times away.
    fn times(
        &mut self,
        cell: &Cell,
        effort: Effort,
        seats: &mut [&mut Seat<'_>],
        results: &mut [Result<Measured, Failure>],
        random: &mut Random,
    ) -> Result<(), Ended> {
        let mut schedules = vec![Schedule { iterations: 0, rounds: 0 }; seats.len()];
        for ((seat, result), schedule) in seats.iter_mut().zip(results.iter_mut()).zip(&mut schedules) {
            if result.is_err() {
                continue;
            }
            (self.hear)(Event::Turn { cell: &cell.id, variant: &seat.variant });
            match warm_up(seat, effort) {
                Ok(seconds) => {
                    self.paces.note(cell, &seat.variant, seconds);
                    *schedule = effort.schedule(seconds);
                }
                Err(failed) => *result = Err(failed),
            }
            self.go_on()?;
        }
        let mut order: Vec<usize> = (0..seats.len()).collect();
        for round in 0..effort.rounds {
            random.shuffle(&mut order);
            for &i in &order {
                let Schedule { iterations, rounds } = schedules[i];
                let Ok(measured) = &mut results[i] else { continue };
                if round >= rounds {
                    continue;
                }
                let seat = &mut *seats[i];
                (self.hear)(Event::Turn { cell: &cell.id, variant: &seat.variant });
                let start = Instant::now();
                let before = self.meters.read(&seat.variant.device);
                let times: Result<Times, Failure> = seat.ask(&Request::Run { iterations });
                let after = self.meters.read(&seat.variant.device);
                match times.and_then(|times| whole(times, iterations)) {
                    Ok(times) => {
                        let joules = before.zip(after).and_then(|(b, a)| b.until(a, start.elapsed()));
                        add(measured, times, joules.map(|joules| joules / iterations as f64), rounds);
                    }
                    Err(failed) => results[i] = Err(failed),
                }
                self.go_on()?;
            }
        }
        Ok(())
    }

    /// A time in which this CPU cannot have computed the cell: its worker did not wait for the result.
    fn implausible(&self, variant: &Variant, cell: &Cell, measured: &Measured) -> Option<Failure> {
        let on_cpu = matches!(variant.device.as_str(), "cpu" | "mlx:cpu") && variant.dtype == "f32";
        let peak = self.limits.as_ref()?.gflops.get("f32").filter(|_| on_cpu)?;
        let least = cell.flops as f64 / (peak * BEYOND_PEAK);
        let quickest = *measured.host_ns.iter().flatten().min()?;
        let told = || format!("{quickest} ns for what takes this machine {:.0} ns at its peak", least * BEYOND_PEAK);
        ((quickest as f64) < least).then(|| failure("implausible", told()))
    }

    /// Ends the run if that was asked for.
    fn go_on(&self) -> Result<(), Ended> {
        if self.study.stop.load(Ordering::Relaxed) { Err(Ended::Stopped) } else { Ok(()) }
    }
}

/// Runs that do not count; gives the seconds of the quickest. The result that was checked was the first; slow ones are not
/// repeated beyond their share of time.
fn warm_up(seat: &mut Seat<'_>, effort: Effort) -> Result<f64, Failure> {
    let first = seat.output_seconds().filter(|&seconds| seconds > 0.0);
    let (mut quickest, mut spent) = (first.unwrap_or(f64::INFINITY), first.unwrap_or(0.0));
    for _ in 0..effort.warmup.max(1) {
        if spent > effort.at_most_seconds {
            break;
        }
        let times: Times = seat.ask(&Request::Run { iterations: 1 })?;
        let seconds = whole(times, 1)?.host_ns[0] as f64 / 1e9;
        quickest = quickest.min(seconds);
        spent += seconds;
    }
    Ok(quickest)
}

/// Refuses times that cannot be: another number of them than iterations, or none at all for work that takes some.
fn whole(times: Times, iterations: usize) -> Result<Times, Failure> {
    let counts = [Some(times.host_ns.len()), times.device_ns.as_ref().map(Vec::len)];
    if counts.into_iter().flatten().any(|count| count != iterations) {
        return Err(failure("protocol", format!("{counts:?} times for {iterations} iterations")));
    }
    if times.host_ns.contains(&0) {
        return Err(failure("protocol", "an iteration that took no time".into()));
    }
    Ok(times)
}

fn add(measured: &mut Measured, times: Times, joules: Option<f64>, rounds: usize) {
    measured.host_ns.push(times.host_ns);
    if let Some(device) = times.device_ns {
        measured.device_ns.get_or_insert_default().push(device);
    }
    // An engine that counts for itself knows better.
    if let Some(joules) = times.joules.or(joules) {
        *measured.joules.get_or_insert(0.0) += joules / rounds as f64;
    }
}

/// The variants of a group, cut into parts whose workers fit into memory side by side.
fn together(crew: &Crew, group: &Group) -> Vec<Vec<Variant>> {
    let (Some(model), Some(memory)) = (group.model, machine::available_memory()) else {
        return vec![crew.variants.clone()];
    };
    // Two places are the golden engine's: it computes in 64 bits.
    let places = MEMORY_SHARE * memory as f64 / (COPIES * model.bytes() as f64) - 2.0;
    crew.variants.chunks((places as usize).max(1)).map(<[_]>::to_vec).collect()
}
