//! Times ways to compute a product, each among others of its size.

use std::sync::Arc;

use mlxt_backend::{DType, Result};

use super::{Operands, Size, Way};
use crate::device::Inner;
use crate::ffi::context::{Event, Queue};
use crate::ffi::graph::Graph;
use crate::ffi::memory::{Memory, copy};
use crate::operand::Operand;
use crate::operands::{self, Ahead};
use crate::weights::Matrix;

/// Launches of one timing: enough that their start does not count, and that weights change as they do in a model.
const LAUNCHES: usize = 24;
/// Timings of each way, of which the shortest counts.
const TIMINGS: usize = 3;

/// Operands to time a size on.
pub(super) struct Bench<'a> {
    inner: &'a Inner,
    size: Size,
    x: Memory,
    x_scales: Memory,
    out: Memory,
    rows: Memory,
    /// Rows that a norm makes, ones and zeros for it, where one reads the product.
    norm: Option<[Memory; 2]>,
    events: [Event; 2],
}

impl<'a> Bench<'a> {
    pub(super) fn new(inner: &'a Inner, size: Size, ways: &[Way], matrices: &[Arc<Matrix>]) -> Result<Self> {
        let context = &inner.context;
        let parts = ways.iter().filter_map(Way::parts).max().unwrap_or(1);
        let x = Memory::new(context, size.room.next_multiple_of(crate::room::ROWS) * size.inputs * DType::F32.size())?;
        // The weights themselves, again and again: products of equal numbers take less power, and so less time.
        let weights = matrices.iter().map(|w| &w.weights).cycle();
        let mut begin = 0;
        for from in weights.take_while(|from| from.bytes() > 0) {
            let bytes = from.bytes().min(x.bytes() - begin);
            // SAFETY: both are at least that long.
            unsafe { copy(context, x.address() + begin as u64, from.address(), bytes) }?;
            begin += bytes;
            if begin == x.bytes() {
                break;
            }
        }
        let x_scales = Memory::with(context, &vec![1.0_f32; size.room])?;
        let out = Memory::new(context, size.room * size.outputs * parts * DType::F32.size())?;
        let rows = Memory::with(context, &(size.room as u32).to_le_bytes())?;
        let numbers: Vec<f32> = [1.0, 0.0].into_iter().flat_map(|n| vec![n; size.outputs]).collect();
        let normed = || {
            Ok([Memory::new(context, size.room * size.outputs * DType::F32.size())?, Memory::with(context, &numbers)?])
        };
        let norm = size.parts.then(normed).transpose()?;
        Ok(Self { inner, size, x, x_scales, out, rows, norm, events: [Event::new(context)?, Event::new(context)?] })
    }

    /// The norm that reads the product; its rows are their own residual.
    fn norm(&self, way: &Way, w: &Matrix) -> Option<operands::Norm> {
        let [normed, numbers] = self.norm.as_ref()?;
        let (outputs, out) = (self.size.outputs, self.out.address());
        let parts = way.parts();
        Some(operands::Norm {
            x: if parts.is_none() { out } else { 0 },
            partial: if parts.is_some() { out } else { 0 },
            bias: w.full_bias.address(),
            residual: normed.address(),
            out: normed.address(),
            gain: numbers.address(),
            shift: numbers.address() + (outputs * DType::F32.size()) as u64,
            rows: self.rows.address(),
            stride: (self.size.room * outputs) as u64,
            splits: parts.unwrap_or(0) as i32,
            cols: outputs as i32,
            centred: 1,
            ..operands::Norm::default()
        })
    }

    /// Milliseconds that one product takes among others, with the norm that reads it: what is left to that is not free.
    pub(super) fn time(&self, way: &Way, matrices: &[Arc<Matrix>]) -> Result<f32> {
        let graph = Graph::record(&self.inner.context, || {
            for w in matrices.iter().cycle().take(LAUNCHES) {
                let (x, x_scales) = (self.x.address(), self.x_scales.address());
                let (out, rows) = (self.out.address(), self.rows.address());
                let (to, operands) = (Queue::Record, Operands { x, x_scales, w, out, rows, ahead: Ahead::default() });
                match self.norm(way, w) {
                    Some(norm) if way.is_normed() => way.start_normed(self.inner, to, self.size, (operands, &norm))?,
                    Some(norm) => {
                        way.start(self.inner, to, self.size, operands)?;
                        // SAFETY: everything has room for the rows of the size.
                        unsafe { crate::norm::start(self.inner, to, (Operand::Kept, self.size.room), &norm) }?;
                    }
                    None => way.start(self.inner, to, self.size, operands)?,
                }
            }
            Ok(())
        })?;
        let [start, end] = &self.events;
        let mut least = f32::INFINITY;
        for timing in 0..=TIMINGS {
            start.record()?;
            // SAFETY: everything it was recorded with lives as long as this function.
            unsafe { graph.launch() }?;
            end.record()?;
            let time = end.since(start)?;
            if timing > 0 {
                least = least.min(time);
            }
        }
        Ok(least / LAUNCHES as f32)
    }
}
