//! Starts the kernels of jobs, at the places a program has for their values.

use std::collections::HashMap;
use std::sync::Arc;

use mlxt_backend::{Arithmetic, Attention, Error, Mask, NormKind, Reduction, Result, Rotation};
use mlxt_lazy::Plan;
use mlxt_lazy::plan::{InputId, InputKind, Rows, ValueId};

use crate::CudaDevice;
use crate::attention::{Tiled, Tiles};
use crate::device::Inner;
use crate::ffi::BACKEND;
use crate::ffi::context::Queue;
use crate::ffi::memory::Memory;
use crate::ffi::module::{Shape, launch};
use crate::gemm::{Operands, Way};
use crate::inputs::Staging;
use crate::jobs::{Job, Jobs, Source};
use crate::norm;
use crate::operand::{Extent, Operand, round_kernel};
use crate::operands::{self, Ahead};
use crate::program::Place;
use crate::room;
use crate::weights::{Norm, Relative};

/// Threads of the kernels that take a row or part of one, eight columns each.
const THREADS: usize = 128;

/// Up to so many rows attention in f32 has a warp for each query, and above it tiles of them, which at 14 rows take 6 us more.
const FEW_ROWS: usize = 32;

/// What is needed to start the jobs of one program.
pub(crate) struct Recorder<'a> {
    inner: &'a Inner,
    plan: &'a Plan<CudaDevice>,
    staging: &'a Staging,
    /// Where the inputs are.
    block: u64,
    places: &'a [Place],
    /// Products that leave their sums in parts: how many, and the bias that is still to be added.
    parts: HashMap<ValueId, (usize, u64)>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(
        inner: &'a Inner,
        plan: &'a Plan<CudaDevice>,
        (staging, block): (&'a Staging, u64),
        places: &'a [Place],
        (jobs, ways): (&Jobs, &[Option<Arc<Way>>]),
    ) -> Self {
        let left = jobs.list.iter().zip(ways).filter_map(|(job, way)| match (job, way.as_ref()?.parts()) {
            (Job::Linear { w, out, .. }, Some(parts)) => Some((*out, (parts, w.full_bias.address()))),
            _ => None,
        });
        Self { inner, plan, staging, block, places, parts: left.collect() }
    }

    /// Starts a job.
    ///
    /// # Errors
    /// Sizes that no kernel takes; the driver's own.
    pub(crate) fn job(&self, (job, ahead): (&Job, Ahead), way: Option<&Way>, frequencies: Option<u64>) -> Result<()> {
        match job {
            Job::Linear { x, w, out, .. } => {
                let (Some(way), Some(size)) = (way, job.size(self.plan)) else { return Ok(()) };
                let operands::Rounded { rows: x, scales: x_scales } = self.rounded(*x, (size.room, size.inputs));
                let operands = Operands { x, x_scales, w, out: self.at(*out), rows: self.rows(*out), ahead };
                way.start(self.inner, Queue::Record, size, operands)
            }
            Job::Norm { source, residual, sum, normed, rounded } => {
                self.norm((source, ahead), *residual, *sum, normed.as_ref(), *rounded)
            }
            Job::Round { x, operand, out } => {
                let value = self.plan.values[x.0];
                let operands = operands::Round {
                    x: self.at(*x),
                    out: self.rounded(*out, (value.room, value.cols)),
                    rows: self.rows(*x),
                    cols: value.cols as i32,
                };
                let shape = Shape { grid: [value.room, 1, 1], threads: THREADS, shared: 0 };
                self.start_of(*operand, round_kernel(value.cols), shape, &operands)
            }
            Job::Gate { x, activation, out } => {
                let value = self.plan.values[out.0];
                let (x, rows, activation) = (self.at(*x), self.rows(*out), *activation as i32);
                let operands = operands::Gate { x, out: self.at(*out), rows, cols: value.cols as i32, activation };
                self.start("gate", [value.room, value.cols.div_ceil(8 * THREADS), 1], &operands)
            }
            Job::Rotate { qkv, layout, rotation, out } => {
                self.rotate(*qkv, *layout, rotation, frequencies.unwrap_or(0), *out)
            }
            Job::Attention { qkv, layout, attention, relative, out } => {
                self.attention(*qkv, *layout, attention, relative.as_deref(), *out)
            }
            Job::Take { x, indices, out } => {
                let value = self.plan.values[out.0];
                let operands = operands::Take {
                    x: self.at(*x),
                    indices: self.block + self.staging.start(*indices) as u64,
                    out: self.at(*out),
                    rows: self.rows(*out),
                    cols: value.cols as i32,
                };
                self.start("take_rows", [value.room, value.cols.div_ceil(THREADS), 1], &operands)
            }
            Job::Reduce { x, layout, reduction, out } => self.reduce(*x, *layout, *reduction, *out),
        }
    }

    /// Where a value is.
    fn at(&self, value: ValueId) -> u64 {
        self.places[value.0].address
    }

    /// Where codes and scales of a value of that size in 8 bits are; where it is not in 8 bits, only the first means anything.
    fn rounded(&self, value: ValueId, (room, cols): (usize, usize)) -> operands::Rounded {
        let rows = self.at(value);
        operands::Rounded { rows, scales: rows + Extent::of(room, cols).scales as u64 }
    }

    /// Where the number of a value's real rows is.
    fn rows(&self, value: ValueId) -> u64 {
        self.block + Staging::counts(self.plan.values[value.0].rows) as u64
    }

    /// Where the counts of a batch and its offsets are.
    fn batch(&self, layout: InputId) -> (u64, u64) {
        let counts = self.block + Staging::counts(Rows::Of(layout)) as u64;
        (counts, self.block + self.staging.start(layout) as u64)
    }

    fn start<P: Copy>(&self, name: &'static str, grid: [usize; 3], operands: &P) -> Result<()> {
        self.start_shaped(name, Shape { grid, threads: THREADS, shared: 0 }, operands)
    }

    fn start_shaped<P: Copy>(&self, name: &'static str, shape: Shape, operands: &P) -> Result<()> {
        self.start_of(Operand::Kept, name, shape, operands)
    }

    /// Starts one of the kernels for an operand of products.
    fn start_of<P: Copy>(&self, operand: Operand, name: &'static str, shape: Shape, operands: &P) -> Result<()> {
        let function = self.inner.kernels(operand)?.function(name, shape.shared)?;
        // SAFETY: operands are those of the kernel (`operands.rs`), at places that were made for their sizes.
        unsafe { launch((&self.inner.context, Queue::Record), function, shape, operands) }
    }

    fn norm(
        &self,
        (source, ahead): (&Source, Ahead),
        residual: Option<ValueId>,
        sum: Option<ValueId>,
        normed: Option<&(Arc<Norm>, ValueId)>,
        rounded: Option<(Operand, ValueId)>,
    ) -> Result<()> {
        let Some(result) = normed.map(|(_, out)| *out).or(sum) else { return Ok(()) };
        let value = self.plan.values[result.0];
        let mut operands = operands::Norm {
            residual: residual.map_or(0, |value| self.at(value)),
            sum: sum.map_or(0, |value| self.at(value)),
            rows: self.rows(result),
            cols: value.cols as i32,
            ahead,
            ..operands::Norm::default()
        };
        if let Some((norm, out)) = normed {
            operands.out = self.at(*out);
            operands.gain = norm.gain.address();
            operands.shift = norm.shift.as_ref().map_or(0, Memory::address);
            operands.eps = norm.eps;
            operands.centred = i32::from(norm.kind == NormKind::LayerNorm);
        }
        let mut operand = Operand::Kept;
        if let Some((of, out)) = rounded {
            (operand, operands.rounded) = (of, self.rounded(out, (value.room, value.cols)));
        }
        match source {
            Source::Lookups(lookups) => {
                if lookups.len() > operands::LOOKUPS {
                    return Err(unsupported(format!("{} tables in one embedding", lookups.len())));
                }
                operands.lookups = lookups.len() as i32;
                for (i, (table, ids)) in lookups.iter().enumerate() {
                    operands.tables[i] = table.rows.address();
                    operands.ids[i] = self.block + self.staging.start(*ids) as u64;
                }
            }
            Source::Value(x) => match self.parts.get(x) {
                Some(&(parts, bias)) => {
                    (operands.partial, operands.bias, operands.splits) = (self.at(*x), bias, parts as i32);
                    operands.stride = (value.room * value.cols) as u64;
                }
                None => operands.x = self.at(*x),
            },
            Source::Product { x, w, size, way } => {
                let product = Operands { x: self.at(*x), x_scales: 0, w, out: 0, rows: operands.rows, ahead };
                return way.start_normed(self.inner, Queue::Record, *size, (product, &operands));
            }
        }
        // SAFETY: operands are at places that were made for their sizes.
        unsafe { norm::start(self.inner, Queue::Record, (operand, value.room), &operands) }
    }

    fn rotate(&self, qkv: ValueId, layout: InputId, rotation: &Rotation, frequencies: u64, out: ValueId) -> Result<()> {
        let (heads, head_size) = (rotation.heads, rotation.head_size);
        let (counts, offsets) = self.batch(layout);
        let (qkv, heads_, head_size_) = (self.at(qkv), heads as i32, head_size as i32);
        let operands = operands::Rotate {
            qkv,
            out: self.at(out),
            frequencies,
            counts,
            offsets,
            heads: heads_,
            head_size: head_size_,
        };
        // A thread for each pair of queries and keys, and for each value.
        let threads = 2 * heads * head_size;
        self.start("rotate", [self.plan.values[out.0].room, threads.div_ceil(THREADS), 1], &operands)
    }

    fn attention(
        &self,
        qkv: ValueId,
        layout: InputId,
        attention: &Attention,
        relative: Option<&Relative>,
        out: ValueId,
    ) -> Result<()> {
        /// Further than any two rows are apart, and small enough to be added to a row.
        const FAR: i32 = 1 << 30;
        let InputKind::Segments(room) = self.plan.inputs[layout.0] else {
            return Err(unsupported("attention without a batch".into()));
        };
        let (counts, offsets) = self.batch(layout);
        let (before, after) = match attention.mask {
            Mask::Full => (FAR, FAR),
            Mask::Causal => (FAR, 0),
            Mask::Window { radius } => [radius.min(FAR as usize) as i32; 2].into(),
        };
        let mut operands = operands::Attention {
            qkv: self.at(qkv),
            out: self.at(out),
            counts,
            offsets,
            tiles: self.block + self.staging.tiles(layout) as u64,
            scale: attention.scale,
            heads: attention.heads as i32,
            head_size: attention.head_size as i32,
            before,
            after,
            ..operands::Attention::default()
        };
        if let Some(term) = relative {
            operands.buckets = term.buckets.address();
            operands.reach = term.reach as i32;
            let part = |part: &Option<Arc<crate::Buffer>>| part.as_ref().map_or(0, |b| b.memory.address());
            operands.relative_keys = part(&term.keys);
            operands.relative_queries = part(&term.queries);
            operands.relative_bias = part(&term.bias);
        }
        // They take maxima before they scale.
        let queries = self.staging.queries(layout);
        let arithmetic = self.inner.arithmetic;
        let few = arithmetic == Arithmetic::F32 && room.rows <= FEW_ROWS;
        let tiled = relative.is_none() && attention.scale > 0.0 && !few;
        let tiles = Tiles::new(self.inner.context.capability, room, queries);
        if let Some(kernel) = Tiled::of(arithmetic, tiles, attention.head_size).filter(|_| tiled) {
            // Those of a tile lie side by side: what there is to do comes first, and blocks without work last.
            let grid = [room::tiles(room, queries) * attention.heads, 1, 1];
            let shape = Shape { grid, threads: kernel.threads, shared: kernel.shared };
            return self.start_shaped(kernel.name, shape, &operands);
        }
        let name = match attention.head_size {
            0..=64 => "attention_64",
            65..=128 => "attention_128",
            129..=512 => "attention_512",
            size => return Err(unsupported(format!("attention with heads of {size} columns"))),
        };
        self.start(name, [room.rows.div_ceil(THREADS / 32), attention.heads, 1], &operands)
    }

    fn reduce(&self, x: ValueId, layout: InputId, reduction: Reduction, out: ValueId) -> Result<()> {
        let value = self.plan.values[out.0];
        let (counts, offsets) = self.batch(layout);
        let operands = operands::Reduce {
            x: self.at(x),
            out: self.at(out),
            counts,
            offsets,
            cols: value.cols as i32,
            reduction: reduction as i32,
        };
        let shape = Shape { grid: [value.room, value.cols.div_ceil(32), 1], threads: 256, shared: 0 };
        self.start_shaped("reduce_rows", shape, &operands)
    }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { backend: BACKEND, what }
}
