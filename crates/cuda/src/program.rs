//! A plan as a CUDA graph: one copy of what differs from run to run, then the kernels, at addresses that never change.

use std::collections::HashMap;
use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, Mutex};

use mlxt_backend::convert::encode;
use mlxt_backend::{DType, Result, Rotation};
use mlxt_lazy::plan::{InputKind, Operation, Value};
use mlxt_lazy::{Input, Plan};

use crate::CudaDevice;
use crate::ahead::ahead;
use crate::device::{Inner, lock};
use crate::ffi::context::{Event, Queue};
use crate::ffi::graph::Graph;
use crate::ffi::memory::{Memory, Pinned, copy};
use crate::gemm::{Way, Ways};
use crate::inputs::Staging;
use crate::jobs::{Job, Jobs};
use crate::layout::{Lifetime, place};
use crate::operand::Extent;
use crate::record::Recorder;
use crate::results::Buffer;
use crate::room::ROWS;
use crate::together::together;

/// Runs by which a recording is timed, and milliseconds of them after which there are enough.
const RUNS: usize = 6;
const SPENT: f32 = 5.0;

/// A plan that can be run.
pub struct Program {
    recording: Recording,
    staging: Staging,
    sending: Mutex<Sending>,
    _plan: Arc<Plan<CudaDevice>>,
}

/// A plan's kernels with their operands.
#[derive(Debug)]
pub(crate) struct Recording {
    graph: Graph,
    /// Where results of earlier plans go before the graph is started.
    arrivals: Vec<(usize, Place)>,
    outputs: Vec<Place>,
    // What the graph refers to.
    ground: Arc<Ground>,
    _constants: Vec<Memory>,
    _ways: Vec<Option<Arc<Way>>>,
}

/// The memory that inputs and results of a program lie in.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Its inputs.
    _block: Arc<Memory>,
    /// Shared with others.
    _workspace: Arc<Memory>,
}

/// The host's side of the inputs, and when it may be written to again.
#[derive(Debug)]
struct Sending {
    pinned: Pinned,
    sent: Event,
}

/// Values on the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) bytes: usize,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} bytes of inputs, {} outputs)", self.staging.bytes(), self.recording.outputs.len())
    }
}

impl Program {
    /// Records a plan. The device's order is held.
    ///
    /// # Errors
    /// Sizes that no kernel takes; the driver's own.
    pub(crate) fn new(inner: &Inner, plan: Arc<Plan<CudaDevice>>) -> Result<Self> {
        let staging = Staging::new(&plan.inputs, inner.arithmetic.activations());
        let block = Arc::new(Memory::new(&inner.context, staging.bytes())?);
        let mut pinned = Pinned::new(&inner.context, staging.bytes())?;
        staging.fill_room(pinned.bytes_mut());
        let recording = together(inner, &plan, |ways| Recording::new(inner, &plan, (&staging, &block, &pinned), ways))?;
        let sending = Mutex::new(Sending { pinned, sent: Event::untimed(&inner.context)? });
        // Trials have read what is to be written for runs.
        inner.context.synchronize()?;
        Ok(Self { recording, staging, sending, _plan: plan })
    }

    /// Puts one run into the stream. The device's order is held.
    ///
    /// # Errors
    /// No memory for what is still held of the last run; the driver's own.
    pub(crate) fn run(&self, inner: &Inner, inputs: &[Input<'_, Buffer>]) -> Result<Vec<Buffer>> {
        let mut sending = lock(&self.sending);
        sending.sent.wait()?;
        self.staging.fill(inputs, sending.pinned.bytes_mut());
        let mut results = lock(&inner.results);
        results.settle(&inner.context)?;
        let Recording { graph, arrivals, outputs, ground, .. } = &self.recording;
        for &(input, place) in arrivals {
            if let Input::Buffer(buffer, _) = inputs[input] {
                let bytes = buffer.memory.bytes().min(place.bytes);
                // SAFETY: both are at least that long.
                unsafe { copy(&inner.context, place.address, buffer.memory.address(), bytes) }?;
            }
        }
        // SAFETY: this holds all the graph refers to.
        unsafe { graph.launch() }?;
        let outputs = outputs.iter().map(|&place| results.lend(place, ground)).collect();
        drop(results);
        sending.sent.record()?;
        Ok(outputs)
    }
}

impl Recording {
    /// Records a plan with these ways. What the graph refers to of the staging has to live as long as it.
    fn new(
        inner: &Inner,
        plan: &Plan<CudaDevice>,
        (staging, block, pinned): (&Staging, &Arc<Memory>, &Pinned),
        ways: &Ways,
    ) -> Result<Self> {
        let element = inner.arithmetic.activations();
        let mut jobs = Jobs::of(plan);
        let way = |job: &Job| job.size(plan).and_then(|size| ways.get(&size).cloned());
        let mut ways: Vec<_> = jobs.list.iter().map(way).collect();
        jobs.join(plan, &mut ways);
        let lifetimes = lifetimes(plan, &jobs, &ways, element);
        let (offsets, bytes) = place(&lifetimes);
        let workspace = inner.workspace(bytes)?;
        let mut places: Vec<Place> = lifetimes
            .iter()
            .zip(&offsets)
            .map(|(life, offset)| Place { address: workspace.address() + *offset as u64, bytes: life.bytes })
            .collect();
        let mut arrivals = Vec::new();
        for step in &plan.steps {
            if let Operation::Input(input) = step.operation {
                let place = &mut places[step.result.0];
                match plan.inputs[input.0] {
                    InputKind::Buffer { .. } => arrivals.push((input.0, *place)),
                    _ => *place = Place { address: block.address() + staging.start(input) as u64, ..*place },
                }
            }
        }
        let (outputs, mut constants) = (plan.outputs.iter().map(|v| places[v.0]).collect(), Vec::new());
        let frequencies = frequencies(inner, &jobs.list, &mut constants)?;
        let recorder = Recorder::new(inner, plan, (staging, block.address()), &places, (&jobs, &ways));
        let ahead = ahead(&jobs.list, &ways);
        let graph = Graph::record(&inner.context, || {
            // SAFETY: the block has the staging's size, and lives as long as the graph.
            unsafe { pinned.send(Queue::Record, block.address()) }?;
            for (i, job) in jobs.list.iter().enumerate() {
                recorder.job((job, ahead[i]), ways[i].as_deref(), frequencies.get(&i).copied())?;
            }
            Ok(())
        })?;
        let ground = Arc::new(Ground { _block: Arc::clone(block), _workspace: workspace });
        Ok(Self { graph, arrivals, outputs, ground, _constants: constants, _ways: ways })
    }

    /// Milliseconds of a run, the least of some. Results of other programs are taken to safety first.
    ///
    /// # Errors
    /// No memory for them; the driver's own.
    pub(crate) fn time(&self, inner: &Inner) -> Result<f32> {
        lock(&inner.results).settle(&inner.context)?;
        let [start, end] = [Event::new(&inner.context)?, Event::new(&inner.context)?];
        let (mut least, mut spent) = (f32::INFINITY, 0.0);
        for _ in 0..RUNS {
            // The first of two keeps the device busy until the second has been sent.
            // SAFETY: this holds all the graph refers to but the staging, which whoever records it has.
            unsafe { self.graph.launch() }?;
            start.record()?;
            // SAFETY: as above.
            unsafe { self.graph.launch() }?;
            end.record()?;
            let time = end.since(&start)?;
            (least, spent) = (least.min(time), spent + time);
            if spent > SPENT {
                break;
            }
        }
        Ok(least)
    }
}

/// From when to when each value is needed, and how much room it takes.
fn lifetimes(plan: &Plan<CudaDevice>, jobs: &Jobs, ways: &[Option<Arc<Way>>], element: DType) -> Vec<Lifetime> {
    let Jobs { list: jobs, rounded } = jobs;
    let kept = |value: &Value| value.room.next_multiple_of(ROWS) * value.cols * element.size();
    let rounded = rounded.iter().map(|of| {
        let value = plan.values[of.0];
        Extent::of(value.room, value.cols).bytes
    });
    let bytes = plan.values.iter().map(kept).chain(rounded);
    let mut lives: Vec<_> = bytes.map(|bytes| Lifetime { first: jobs.len(), last: 0, bytes }).collect();
    for step in &plan.steps {
        if let Operation::Input(_) = step.operation {
            lives[step.result.0].first = 0;
        }
    }
    for (i, job) in jobs.iter().enumerate() {
        for value in job.writes() {
            lives[value.0].first = i;
            lives[value.0].last = lives[value.0].last.max(i);
        }
        for value in job.reads() {
            lives[value.0].last = lives[value.0].last.max(i);
        }
        if let (Job::Linear { out, .. }, Some(parts)) = (job, ways[i].as_ref().and_then(|way| way.parts())) {
            let value = plan.values[out.0];
            lives[out.0].bytes = parts * value.room * value.cols * size_of::<f32>();
        }
    }
    for output in &plan.outputs {
        lives[output.0].last = jobs.len();
    }
    // A value that nobody makes or reads: the embeddings that a norm looks up itself.
    for life in &mut lives {
        if life.first > life.last {
            *life = Lifetime { first: 0, last: 0, bytes: 0 };
        }
    }
    lives
}

/// The frequencies of each rotation, on the device, by its job.
fn frequencies(inner: &Inner, jobs: &[Job], constants: &mut Vec<Memory>) -> Result<HashMap<usize, u64>> {
    let mut known: Vec<(Rotation, u64)> = Vec::new();
    let mut of = HashMap::new();
    for (i, job) in jobs.iter().enumerate() {
        let Job::Rotate { rotation, .. } = job else { continue };
        let address = known.iter().find(|(known, _)| known == rotation).map(|(_, address)| *address);
        let address = if let Some(address) = address {
            address
        } else {
            let memory = Memory::with(&inner.context, &encode(&rotation.frequencies(), DType::F32))?;
            let address = memory.address();
            constants.push(memory);
            known.push((*rotation, address));
            address
        };
        of.insert(i, address);
    }
    Ok(of)
}
