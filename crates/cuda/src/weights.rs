//! What lives on the device for longer than a forward, in the types its kernels want.

use std::sync::Arc;

use mlxt_backend::convert::encode;
use mlxt_backend::{
    Arithmetic, DType, Error, HostTensor, MatrixSource, NormKind, NormSource, Precision, RelativeSource, Result,
    Shaped, check,
};
use mlxt_lazy::Held;

use crate::device::Inner;
use crate::ffi::BACKEND;
use crate::ffi::context::{Context, Queue};
use crate::ffi::memory::Memory;
use crate::ffi::module::{Shape, launch};
use crate::operand::{Extent, OLDEST_FOR_FP8, Operand, precisions, round_kernel};
use crate::operands;
use crate::results::Buffer;

/// A linear layer: weights `[outputs, inputs]` as they are multiplied, the bias in the device's type and as f32.
#[derive(Debug)]
pub struct Matrix {
    pub(crate) operand: Operand,
    /// Codes and their scales where they are of 8 bits: [`Extent`].
    pub(crate) weights: Memory,
    pub(crate) bias: Memory,
    pub(crate) full_bias: Memory,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// A normalisation, as f32.
#[derive(Debug)]
pub struct Norm {
    pub(crate) gain: Memory,
    pub(crate) shift: Option<Memory>,
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
}

/// Rows to look up, in the device's type.
#[derive(Debug)]
pub struct Table {
    pub(crate) rows: Memory,
    entries: usize,
    cols: usize,
}

/// A relative term of attention.
#[derive(Debug)]
pub struct Relative {
    pub(crate) buckets: Memory,
    pub(crate) reach: usize,
    pub(crate) keys: Option<Arc<Buffer>>,
    pub(crate) queries: Option<Arc<Buffer>>,
    pub(crate) bias: Option<Arc<Buffer>>,
    shape: mlxt_backend::RelativeShape,
}

impl Shaped for Matrix {
    fn rows(&self) -> usize {
        self.outputs
    }
    fn cols(&self) -> usize {
        self.inputs
    }
}

impl Shaped for Table {
    fn rows(&self) -> usize {
        self.entries
    }
    fn cols(&self) -> usize {
        self.cols
    }
}

impl Matrix {
    /// # Errors
    /// A precision other than the arithmetic's, a weight it cannot hold, no memory.
    pub(crate) fn new(inner: &Inner, source: &MatrixSource) -> Result<Self> {
        let (outputs, inputs) = check::matrix(source)?;
        let (context, arithmetic, precision) = (&inner.context, inner.arithmetic, source.precision);
        let dtype = arithmetic.activations();
        let unsupported = |supported| Error::UnsupportedPrecision { backend: BACKEND, precision, supported };
        if precision == Precision::Fp8 && context.capability < OLDEST_FOR_FP8 {
            return Err(unsupported("f32, tf32, f16, bf16, int8 (fp8 from compute capability 8.9 on)"));
        }
        // What is rounded to 8 bits on the device comes there in 16.
        let stored = match precision {
            Precision::Int8 | Precision::Fp8 if arithmetic == Arithmetic::F16 => Precision::F16,
            Precision::Int8 | Precision::Fp8 => return Err(unsupported(precisions(arithmetic))),
            others => others,
        };
        let rounded = stored.element().ok_or_else(|| unsupported(ALL))?;
        // f32 holds what any of them has been rounded to; a 16-bit type only its own. Nobody gets TF32 for f32.
        let tf32 = arithmetic == Arithmetic::Tf32;
        if (dtype != DType::F32 && rounded != dtype) || tf32 != (precision == Precision::Tf32) {
            return Err(unsupported(precisions(arithmetic)));
        }
        if rounded != DType::F32 {
            check::weight_range(source, stored)?;
        }
        let (mut weights, mut bias, mut full_bias) = (Vec::new(), Vec::new(), Vec::new());
        for part in &source.parts {
            weights.extend_from_slice(part.weight.full().cast(rounded).cast(dtype).bytes());
            let zeros = vec![0.0; part.weight.shape()[0]];
            let values = part.bias.as_ref().map_or(zeros, HostTensor::to_f32);
            bias.extend(encode(&values, dtype));
            full_bias.extend(encode(&values, DType::F32));
        }
        let (operand, weights) = (Operand::of(source, (outputs, inputs)), Memory::with(context, &weights)?);
        let weights = match operand {
            Operand::Kept => weights,
            Operand::Int8 | Operand::Fp8 => round(inner, operand, &weights, (outputs, inputs))?,
        };
        Ok(Self {
            operand,
            weights,
            bias: Memory::with(context, &bias)?,
            full_bias: Memory::with(context, &full_bias)?,
            outputs,
            inputs,
        })
    }
}

impl Norm {
    /// # Errors
    /// No memory.
    pub(crate) fn new(context: &Arc<Context>, source: &NormSource) -> Result<Self> {
        check::norm_weights(source)?;
        let full = |tensor: &HostTensor| Memory::with(context, &encode(&tensor.to_f32(), DType::F32));
        Ok(Self {
            gain: full(&source.gain)?,
            shift: source.shift.as_ref().map(full).transpose()?,
            kind: source.kind,
            eps: source.eps,
        })
    }
}

impl Table {
    /// # Errors
    /// A value the arithmetic's type cannot hold; no memory.
    pub(crate) fn new(context: &Arc<Context>, arithmetic: Arithmetic, tensor: &HostTensor) -> Result<Self> {
        let (entries, cols) = check::table(tensor)?;
        match arithmetic {
            Arithmetic::F16 => check::range(tensor, Precision::F16)?,
            Arithmetic::Bf16 => check::range(tensor, Precision::Bf16)?,
            Arithmetic::F32 | Arithmetic::Tf32 => {}
        }
        Ok(Self { rows: Memory::with(context, tensor.cast(arithmetic.activations()).bytes())?, entries, cols })
    }
}

impl Relative {
    /// Programs refer to its parts by their addresses, so each gets memory of its own. [`crate::results::Results`] are held.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(context: &Arc<Context>, source: RelativeSource<Held<Buffer>>) -> Result<Self> {
        let shape = check::relative(&source)?;
        let buckets: Vec<u8> = source.buckets.iter().flat_map(|b| b.to_le_bytes()).collect();
        let reach = source.reach();
        let settled = |held: Held<Buffer>| held.buffer.memory.settle(context).map(|()| held.buffer);
        let part = |held: Option<Held<Buffer>>| held.map(settled).transpose();
        Ok(Self {
            buckets: Memory::with(context, &buckets)?,
            reach,
            keys: part(source.keys)?,
            queries: part(source.queries)?,
            bias: part(source.bias)?,
            shape,
        })
    }

    /// The columns of its parts.
    #[must_use]
    pub fn shape(&self) -> mlxt_backend::RelativeShape {
        self.shape
    }
}

/// What weights can be had in.
const ALL: &str = "f32, tf32, f16, bf16, int8, fp8";

/// Weights rounded to 8 bits, each output with a scale, by the kernel that rounds activations.
fn round(inner: &Inner, operand: Operand, weights: &Memory, (outputs, inputs): (usize, usize)) -> Result<Memory> {
    let extent = Extent::of(outputs, inputs);
    let (out, rows) = (Memory::new(&inner.context, extent.bytes)?, Memory::with(&inner.context, &[outputs as u32])?);
    let function = inner.kernels(operand)?.function(round_kernel(inputs), 0)?;
    let operands = operands::Round {
        x: weights.address(),
        out: operands::Rounded { rows: out.address(), scales: out.address() + extent.scales as u64 },
        rows: rows.address(),
        cols: inputs as i32,
    };
    let shape = Shape { grid: [outputs, 1, 1], threads: 128, shared: 0 };
    // SAFETY: the kernel takes these operands; the weights are whole, and there is room for their codes and scales.
    unsafe { launch((&inner.context, Queue::Work), function, shape, &operands) }?;
    Ok(out)
}
