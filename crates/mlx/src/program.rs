//! Plans as functions of the bridge: steps in its words, and what a run gives them.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use mlxt_backend::{Error, Mask, Result, Rotation, Segments};
use mlxt_lazy::plan::{InputId, InputKind, Operation, SegmentsRoom, Step, ValueId};
use mlxt_lazy::{Input, Plan};

use crate::MlxDevice;
use crate::ffi::table::{self, Element, Host, Kind, Layout};
use crate::ffi::{Argument, Array, Device, Function, Owned, Steps, Values};
use crate::places::{Moves, Places};
use crate::weights::sizes;

/// What a plan became: a function for each way in which its batches' rows may lie.
pub struct Program {
    plan: Arc<Plan<MlxDevice>>,
    functions: Mutex<HashMap<Vec<Lie>, Arc<Function>>>,
}

/// What a plan runs on.
#[derive(Clone, Copy)]
pub(crate) struct On<'a> {
    pub(crate) device: &'a Device,
    /// What values are kept in.
    pub(crate) activations: Element,
    /// Whether MLX compiles the function.
    pub(crate) compiled: bool,
}

/// How the rows of one batch lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Lie {
    packed: bool,
    full: bool,
}

impl Program {
    pub(crate) fn new(plan: Arc<Plan<MlxDevice>>) -> Self {
        Self { plan, functions: Mutex::default() }
    }

    pub(crate) fn run(&self, on: On<'_>, inputs: &[Input<'_, Array>]) -> Result<Vec<Array>> {
        let mut given = Given::default();
        for (kind, input) in self.plan.inputs.iter().zip(inputs) {
            given.add(kind, *input)?;
        }
        let function = self.function(on, &given)?;
        on.device.call(&function, &given.arguments()?, self.plan.outputs.len())
    }

    fn function(&self, on: On<'_>, given: &Given<'_>) -> Result<Arc<Function>> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let lies: Vec<Lie> = given.layouts.iter().map(|&(_, _, lie)| lie).collect();
        if let Some(found) = functions.get(&lies) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(function(&self.plan, on, given)?);
        functions.insert(lies, Arc::clone(&made));
        Ok(made)
    }
}

/// What one run gives, as flat arguments.
#[derive(Default)]
struct Given<'a> {
    /// The first argument of each input of the plan.
    first: Vec<usize>,
    /// Of each batch: its input, its first argument, how its rows lie.
    layouts: Vec<(InputId, SegmentsRoom, Lie)>,
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Integers(Vec<i32>, [i32; 1]),
    Floats(Vec<f32>, [i32; 2]),
    Array(&'a Array),
}

impl<'a> Given<'a> {
    fn add(&mut self, kind: &InputKind, input: Input<'a, Array>) -> Result<()> {
        let id = InputId(self.first.len());
        self.first.push(self.parts.len());
        match (kind, input) {
            (InputKind::Ids { room }, Input::Ids(ids)) => {
                // Spare rows are like the first one: whatever is finite there is finite in them.
                let spare = ids.first().map_or(0, |&id| id as i32);
                let mut ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
                ids.resize(*room, spare);
                self.integers(ids)
            }
            (InputKind::Segments(room), Input::Segments(segments)) => self.segments(id, segments, *room),
            (InputKind::Values { room, cols }, Input::Values(values)) => {
                let mut all = Vec::with_capacity(room * cols);
                all.extend_from_slice(values);
                while all.len() < room * cols {
                    all.extend_from_within(..*cols);
                }
                let shape = sizes(&[*room, *cols])?;
                self.parts.push(Part::Floats(all, [shape[0], shape[1]]));
                Ok(())
            }
            (InputKind::Buffer { .. }, Input::Buffer(array, _)) => {
                self.parts.push(Part::Array(array));
                Ok(())
            }
            _ => Err(Error::Setting { op: "run", what: format!("input {} is of another kind", id.0) }),
        }
    }

    fn segments(&mut self, id: InputId, segments: &Segments, room: SegmentsRoom) -> Result<()> {
        let Places { packed, full, lengths, offsets, moves } = Places::new(segments, room);
        self.layouts.push((id, room, Lie { packed, full }));
        self.integers(lengths)?;
        self.integers(offsets)?;
        if let Some(Moves { rows, places, positions }) = moves {
            self.integers(rows)?;
            self.integers(places)?;
            self.integers(positions)?;
        }
        Ok(())
    }

    fn integers(&mut self, values: Vec<i32>) -> Result<()> {
        let shape = sizes(&[values.len()])?;
        self.parts.push(Part::Integers(values, [shape[0]]));
        Ok(())
    }

    fn arguments(&self) -> Result<Vec<Argument<'_>>> {
        let argument = |part| {
            Ok(match part {
                &Part::Array(array) => Argument::Array(array),
                Part::Integers(values, shape) => Argument::Values(Values::i32(shape, values)?),
                Part::Floats(values, shape) => Argument::Values(Values::f32(shape, values)?),
            })
        };
        self.parts.iter().map(argument).collect()
    }
}

/// The bridge's function of a plan whose rows lie as those of `given`.
fn function(plan: &Plan<MlxDevice>, on: On<'_>, given: &Given<'_>) -> Result<Function> {
    let angles = Angles::new(plan, given)?;
    let hosts = angles.hosts()?;
    let lookups: Vec<Lookups> = plan.steps.iter().map(|step| Lookups::new(step, given)).collect();
    let layout_of = |input: &InputId| given.layouts.iter().position(|(id, _, _)| id == input).unwrap_or(0) as i32;
    let argument = |input: &InputId| given.first[input.0] as i32;
    let value = |id: &ValueId| id.0 as i32;
    let mut steps = Vec::with_capacity(plan.steps.len());
    for (Step { operation, result }, lookups) in plan.steps.iter().zip(&lookups) {
        let step = table::Step { result: value(result), ..table::Step::default() };
        steps.push(match operation {
            Operation::Input(input) => table::Step { kind: Kind::Input, input: argument(input), ..step },
            Operation::Embed(_) => table::Step {
                kind: Kind::Embed,
                lookups: lookups.ids.len() as i32,
                tables: lookups.tables.as_ptr(),
                ids: lookups.ids.as_ptr(),
                ..step
            },
            Operation::Linear { x, w, activation } => table::Step {
                kind: Kind::Linear,
                x: value(x),
                matrix: w.as_ptr(),
                activation: *activation as i32,
                ..step
            },
            Operation::Gate { x, activation } => {
                table::Step { kind: Kind::Gate, x: value(x), activation: *activation as i32, ..step }
            }
            Operation::Norm { x, residual, n } => table::Step {
                kind: Kind::Norm,
                x: value(x),
                residual: residual.as_ref().map_or(-1, value),
                norm: n.as_ptr(),
                ..step
            },
            Operation::AddNorm { x, residual, n } => {
                table::Step { kind: Kind::AddNorm, x: value(x), residual: value(residual), norm: n.as_ptr(), ..step }
            }
            Operation::Rotate { qkv, layout, rotation } => table::Step {
                kind: Kind::Rotate,
                x: value(qkv),
                layout: layout_of(layout),
                heads: rotation.heads as i32,
                head_size: rotation.head_size as i32,
                angles: &raw const hosts[angles.place(*layout, rotation)],
                ..step
            },
            Operation::Attention { qkv, layout, attention, relative } => {
                let (mask, radius) = match attention.mask {
                    Mask::Full => (0, 0),
                    Mask::Causal => (1, 0),
                    Mask::Window { radius } => (2, i32::try_from(radius).unwrap_or(i32::MAX)),
                };
                table::Step {
                    kind: Kind::Attention,
                    x: value(qkv),
                    layout: layout_of(layout),
                    mask,
                    radius,
                    heads: attention.heads as i32,
                    head_size: attention.head_size as i32,
                    scale: attention.scale,
                    relative: relative.as_ref().map_or(std::ptr::null(), |r| r.as_ptr()),
                    ..step
                }
            }
            Operation::TakeRows { x, indices } => {
                table::Step { kind: Kind::TakeRows, x: value(x), input: argument(indices), ..step }
            }
            Operation::ReduceRows { x, layout, reduction } => table::Step {
                kind: Kind::ReduceRows,
                x: value(x),
                layout: layout_of(layout),
                reduction: *reduction as i32,
                ..step
            },
        });
    }
    let layout = |&(input, room, lie): &(InputId, SegmentsRoom, Lie)| -> Result<Layout> {
        let SegmentsRoom { rows, sequences, longest } = room;
        // Where every place holds a row there is none to spare: behind the first attention nothing is cut off or filled up any
        // more, which cost a copy in each layer, and up to 6 % more rows in everything else.
        let rows = if lie.full { sequences * longest } else { rows };
        let sizes = sizes(&[given.first[input.0], rows, sequences, longest])?;
        let (packed, full) = (i32::from(lie.packed), i32::from(lie.full));
        Ok(Layout { first: sizes[0], rows: sizes[1], sequences: sizes[2], longest: sizes[3], packed, full })
    };
    let steps = Steps {
        activations: on.activations,
        values: plan.values.len(),
        list: steps,
        layouts: given.layouts.iter().map(layout).collect::<Result<_>>()?,
        outputs: plan.outputs.iter().map(value).collect(),
        lent: PhantomData,
    };
    on.device.function(&steps, on.compiled)
}

/// The tables of an embedding and the arguments that hold their ids.
struct Lookups {
    tables: Vec<*const table::Array>,
    ids: Vec<i32>,
}

impl Lookups {
    fn new(step: &Step<MlxDevice>, given: &Given<'_>) -> Self {
        let Operation::Embed(lookups) = &step.operation else { return Self { tables: vec![], ids: vec![] } };
        let tables = lookups.iter().map(|(table, _)| Owned::as_ptr(table)).collect();
        Self { tables, ids: lookups.iter().map(|(_, ids)| given.first[ids.0] as i32).collect() }
    }
}

/// Cosines and sines of a plan's rotations, `[longest, head_size]`; layers that turn alike share a table.
struct Angles {
    tables: Vec<(InputId, u32, Vec<f32>, Vec<i32>)>,
}

impl Angles {
    fn new(plan: &Plan<MlxDevice>, given: &Given<'_>) -> Result<Self> {
        let mut made = Self { tables: vec![] };
        for Step { operation, .. } in &plan.steps {
            let Operation::Rotate { layout, rotation, .. } = operation else { continue };
            let longest = given.layouts.iter().find(|(id, ..)| id == layout).map_or(0, |(_, room, _)| room.longest);
            if made.position(*layout, rotation).is_none() {
                let shape = sizes(&[longest, rotation.head_size])?;
                made.tables.push((*layout, rotation.theta.to_bits(), angles(rotation, longest), shape));
            }
        }
        Ok(made)
    }

    fn position(&self, layout: InputId, rotation: &Rotation) -> Option<usize> {
        let same = |(id, theta, _, shape): &(InputId, u32, Vec<f32>, Vec<i32>)| {
            *id == layout && *theta == rotation.theta.to_bits() && shape[1] == rotation.head_size as i32
        };
        self.tables.iter().position(same)
    }

    fn place(&self, layout: InputId, rotation: &Rotation) -> usize {
        self.position(layout, rotation).unwrap_or(0)
    }

    fn hosts(&self) -> Result<Vec<Host>> {
        self.tables.iter().map(|(_, _, values, shape)| Ok(Values::f32(shape, values)?.host())).collect()
    }
}

/// Of each position: cosines, then sines, each rounded once. The angle itself is rounded to f32, as the contract says.
fn angles(rotation: &Rotation, longest: usize) -> Vec<f32> {
    let frequencies = rotation.frequencies();
    let mut out = Vec::with_capacity(longest * rotation.head_size);
    for position in 0..longest {
        let angle = |frequency: &f32| f64::from(position as f32 * frequency);
        out.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
        out.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
    }
    out
}
