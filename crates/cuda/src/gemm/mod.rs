//! Which kernel multiplies: all that can are timed once for each size, on the weights they will run on.

mod bench;
mod few;
mod full;
mod normed;
mod own;

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::Arc;

use mlxt_backend::{Activation, Arithmetic, DType, Result};

use crate::device::Inner;
use crate::ffi::blas::{Places, Product};
use crate::ffi::context::Queue;
use crate::ffi::failure;
use crate::ffi::module::{Function, Shape, launch, launch_in_clusters};
use crate::ffi::tensor_map::{Element, TensorMap};
use crate::operand::{Extent, Operand};
use crate::operands::{self, Ahead};
use crate::weights::Matrix;

use bench::Bench;

/// Algorithms of cuBLASLt that are tried. Its own order is good but not always right.
const ALGORITHMS: usize = 8;
/// Of how many ways the times are kept for whoever looks.
const NOTED: usize = 6;
/// How many of the fastest ways are tried among the other products of a plan, and how much slower than the fastest they may be.
const TRIED: usize = 3;
const SLOWER: f32 = 1.25;

/// Bytes of a row that our kernels of tensor cores take at a time.
const STEP: usize = 128;

/// What a product's time depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Size {
    pub(crate) room: usize,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    pub(crate) activation: Activation,
    /// Whether the sum may be left in parts.
    pub(crate) parts: bool,
    /// Whether the norm that reads it may be part of it. All that may be may be left in parts, too.
    pub(crate) normed: bool,
    pub(crate) operand: Operand,
}

impl Size {
    /// Inputs in 128 bytes, which our kernels of tensor cores take at a time, where activations are kept as these.
    fn step(self, activations: DType) -> usize {
        STEP / self.operand.bytes(activations)
    }
}

/// How a product is computed.
#[derive(Debug)]
pub(crate) enum Way {
    /// By the kernel that takes every size.
    Any(Function),
    /// By cuBLASLt, and an activation by itself behind it.
    Blas { product: Arc<Product>, algorithm: usize, activate: Function },
    /// By a kernel of `gemm.cu` or `gemm_f32.cu`.
    Own { name: &'static str, function: Function, shape: Shape, parts: usize },
    /// By a kernel of `gemm_hopper.cu` or `gemm_few.cu`, in tiles of so many rows and outputs. Blocks of a cluster add up
    /// their sums; what is left is in parts.
    Hopper { name: &'static str, function: Function, shape: Shape, tile: (usize, usize), cluster: usize, parts: usize },
    /// By a kernel of `gemm_norm.cu`, which is also the norm behind it: [`Way::start_normed`].
    Normed { name: &'static str, function: Function, shape: Shape, tile: (usize, usize), cluster: usize },
}

/// How each size of product is computed.
pub(crate) type Ways = HashMap<Size, Arc<Way>>;

/// Operands of one product; `out` has room for the parts of [`Way::parts`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub(crate) x: u64,
    /// Those of its rows, where they were rounded.
    pub(crate) x_scales: u64,
    pub(crate) w: &'a Matrix,
    pub(crate) out: u64,
    /// Where the number of real rows is.
    pub(crate) rows: u64,
    /// What its kernel brings to the second-level cache, where [`Way::fetches_ahead`].
    pub(crate) ahead: Ahead,
}

impl Way {
    /// In how many parts it leaves the sums, as f32 without bias; none where it computes the result itself.
    pub(crate) fn parts(&self) -> Option<usize> {
        match self {
            Self::Own { parts, .. } | Self::Hopper { parts, .. } if *parts > 1 => Some(*parts),
            _ => None,
        }
    }

    /// Whether its kernel brings others' weights to the second-level cache.
    pub(crate) fn fetches_ahead(&self) -> bool {
        matches!(self, Self::Own { .. } | Self::Hopper { .. } | Self::Normed { .. })
    }

    /// Whether it is also the norm behind the product.
    pub(crate) fn is_normed(&self) -> bool {
        matches!(self, Self::Normed { .. })
    }

    /// What it is, for whoever looks at timings, and to find it again: no two that can compute a size are called alike.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Any(_) => "any".into(),
            Self::Blas { algorithm, .. } => format!("cuBLASLt {algorithm}"),
            Self::Own { name, parts, .. } => format!("{name} / {parts}"),
            Self::Hopper { name, shape, cluster, parts, .. } => {
                format!("{name} / {parts}, clusters of {cluster}, {} KiB", shape.shared / 1024)
            }
            Self::Normed { name, cluster, .. } => format!("{name}, clusters of {cluster}"),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// The driver's or cuBLASLt's own.
    pub(crate) fn start(&self, inner: &Inner, queue: Queue, size: Size, o: Operands<'_>) -> Result<()> {
        let context = &*inner.context;
        let (inputs, outputs, activation) = (size.inputs as i32, size.outputs as i32, size.activation as i32);
        let w = o.w.weights.address();
        // SAFETY: the operands have the sizes of `size`, by which this way was chosen.
        unsafe {
            match self {
                Self::Any(function) => {
                    let grid = [size.outputs.div_ceil(32), size.room.div_ceil(32), 1];
                    let bias = o.w.full_bias.address();
                    let operands =
                        operands::GemmAny { x: o.x, w, bias, out: o.out, rows: o.rows, inputs, outputs, activation };
                    launch((context, queue), *function, Shape { grid, threads: 256, shared: 0 }, &operands)
                }
                Self::Blas { product, algorithm, activate } => {
                    let places = Places { x: o.x, w, bias: o.w.bias.address(), out: o.out };
                    product.run(queue, *algorithm, places)?;
                    if size.activation == Activation::Identity {
                        return Ok(());
                    }
                    let shape = Shape { grid: [size.room, size.outputs.div_ceil(1024), 1], threads: 128, shared: 0 };
                    let operands = operands::Activate { x: o.out, rows: o.rows, cols: outputs, activation };
                    launch((context, queue), *activate, shape, &operands)
                }
                Self::Own { function, shape, parts, .. } => {
                    launch((context, queue), *function, *shape, &o.gemm(size, *parts))
                }
                Self::Hopper { function, shape, tile: (rows, outs), cluster, parts, .. } => {
                    let (x, w) = o.maps(inner, size, (*rows, *outs))?;
                    let operands = operands::Hopper { x, w, gemm: o.gemm(size, *parts) };
                    launch_in_clusters((context, queue), *function, *shape, *cluster, &operands)
                }
                Self::Normed { .. } => Err(failure("a product that is also a norm was started without one".into())),
            }
        }
    }

    /// Starts it with the norm behind it, for which it is made ([`Way::is_normed`]): `out` of the product is not used.
    ///
    /// # Errors
    /// The driver's own.
    pub(crate) fn start_normed(
        &self,
        inner: &Inner,
        queue: Queue,
        size: Size,
        (o, norm): (Operands<'_>, &operands::Norm),
    ) -> Result<()> {
        let Self::Normed { function, shape, tile, cluster, .. } = self else {
            return Err(failure("a product that is no norm was started as one".into()));
        };
        let (x, w) = o.maps(inner, size, *tile)?;
        let operands = operands::Normed {
            x,
            w,
            gemm: Operands { out: norm.out, ..o }.gemm(size, 1),
            residual: norm.residual,
            sum: norm.sum,
            gain: norm.gain,
            shift: norm.shift,
            eps: norm.eps,
            centred: norm.centred,
        };
        // SAFETY: the operands have the sizes of `size`, by which this way was chosen.
        unsafe { launch_in_clusters((&inner.context, queue), *function, *shape, *cluster, &operands) }
    }
}

impl Operands<'_> {
    /// What the copy engine is told of both sides, for tiles of so many rows and outputs.
    fn maps(&self, inner: &Inner, size: Size, (rows, outputs): (usize, usize)) -> Result<(TensorMap, TensorMap)> {
        let element = match size.operand {
            Operand::Kept => Element::of(inner.arithmetic)?,
            Operand::Int8 | Operand::Fp8 => Element::Byte,
        };
        let step = size.step(inner.arithmetic.activations());
        let map = |address, rows, box_rows| TensorMap::new(element, address, (rows, size.inputs), (box_rows, step));
        Ok((map(self.x, size.room, rows)?, map(self.w.weights.address(), size.outputs, outputs)?))
    }

    /// What kernels of tensor cores take.
    fn gemm(&self, size: Size, parts: usize) -> operands::Gemm {
        let (out, partial) = if parts > 1 { (0, self.out) } else { (self.out, 0) };
        operands::Gemm {
            x: self.x,
            w: self.w.weights.address(),
            bias: self.w.full_bias.address(),
            x_scales: self.x_scales,
            w_scales: self.w.weights.address() + Extent::of(size.outputs, size.inputs).scales as u64,
            out,
            partial,
            rows: self.rows,
            stride: (size.room * size.outputs) as u64,
            room: size.room as i32,
            inputs: size.inputs as i32,
            outputs: size.outputs as i32,
            activation: size.activation as i32,
            ahead: self.ahead,
        }
    }
}

/// The way for a size that [`Way::describe`] calls so.
///
/// # Errors
/// The driver's or cuBLASLt's own.
pub(crate) fn named(inner: &Inner, size: Size, name: &str) -> Result<Option<Way>> {
    Ok(ways(inner, size)?.into_iter().find(|way| way.describe() == name))
}

/// The fastest ways for a size, of all that can compute it, by the time that each takes by itself; at least one.
///
/// # Errors
/// The driver's or cuBLASLt's own; no memory.
pub(crate) fn fastest(inner: &Inner, size: Size, matrices: &[Arc<Matrix>]) -> Result<Vec<Arc<Way>>> {
    let mut ways = ways(inner, size)?;
    if let Some(name) = &inner.product {
        // Of those by that name the one that cuts the sum into most parts. Sizes that it does not take are others' to check.
        let asked_for = ways.iter().rposition(|way| way.describe().starts_with(name));
        return Ok(vec![Arc::new(ways.swap_remove(asked_for.unwrap_or(0)))]);
    }
    if ways.len() == 1 {
        return Ok(ways.into_iter().map(Arc::new).collect());
    }
    let bench = Bench::new(inner, size, &ways, matrices)?;
    let timed = ways.into_iter().map(|way| Ok((bench.time(&way, matrices)?, Arc::new(way))));
    let mut timed = timed.collect::<Result<Vec<_>>>()?;
    timed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let activation = if size.activation == Activation::Identity { "" } else { "+" };
    let shown = timed.iter().take(NOTED).map(|(time, way)| format!("{} {:.1}", way.describe(), time * 1e3));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let operand = if size.operand == Operand::Kept { String::new() } else { format!(" {:?}", size.operand) };
    inner.note(format!("{}x{}x{}{activation}{operand} us: {shown}", size.room, size.outputs, size.inputs));
    Ok(worth_a_trial(timed))
}

/// Of ways by their time: the first few, and the first of each other kind, as far as they are not much slower.
fn worth_a_trial(timed: Vec<(f32, Arc<Way>)>) -> Vec<Arc<Way>> {
    let most = timed.first().map_or(0.0, |(least, _)| least * SLOWER);
    let mut kept: Vec<Arc<Way>> = Vec::new();
    for (_, way) in timed.into_iter().take_while(|(time, _)| *time <= most) {
        let kind = discriminant(&*way);
        if kept.len() < TRIED || kept.iter().all(|other| discriminant(&**other) != kind) {
            kept.push(way);
        }
    }
    kept
}

/// Every way that can compute a size.
fn ways(inner: &Inner, size: Size) -> Result<Vec<Way>> {
    let wide = 16 / inner.arithmetic.activations().size();
    if !size.inputs.is_multiple_of(wide) || !size.outputs.is_multiple_of(wide) {
        return Ok(vec![Way::Any(inner.kernels(Operand::Kept)?.function("gemm_any", 0)?)]);
    }
    let mut ways = Vec::new();
    if inner.arithmetic.activations() == DType::F32 {
        ways.extend(full::ways(inner, size)?);
    }
    // Tensor cores have no f32, and their kernels finish eight outputs together.
    if inner.arithmetic != Arithmetic::F32 && size.outputs.is_multiple_of(8) {
        ways.extend(own::ways(inner, size)?);
        ways.extend(few::ways(inner, size)?);
        ways.extend(normed::ways(inner, size)?);
    }
    // cuBLASLt rounds what the activation is applied to. With bf16 that shows: over 387 rows of an encoder the least cosine
    // is 0.99987 with it, 0.99990 without.
    let coarse = inner.arithmetic == Arithmetic::Bf16 && size.activation != Activation::Identity;
    if size.operand == Operand::Kept && (ways.is_empty() || !coarse) {
        let activate = inner.kernels(Operand::Kept)?.function("activate_rows", 0)?;
        let sizes = (size.room, size.outputs, size.inputs);
        let product = Arc::new(inner.blas.product(inner.arithmetic, sizes, ALGORITHMS)?);
        let blas = |algorithm| Way::Blas { product: Arc::clone(&product), algorithm, activate };
        ways.extend((0..product.algorithms()).map(blas));
    }
    if ways.is_empty() {
        ways.push(Way::Any(inner.kernels(Operand::Kept)?.function("gemm_any", 0)?));
    }
    Ok(ways)
}
