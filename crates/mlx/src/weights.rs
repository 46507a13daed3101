//! Weights on their way to MLX: stacked, rounded or quantised, and evaluated before anybody multiplies by them.

use mlxt_backend::{
    DType, Error, HostTensor, LinearPart, MatrixSource, NormKind, NormSource, Precision, RelativeSource, Result, check,
};
use mlxt_lazy::Held;

use crate::ffi::table::Element;
use crate::ffi::{Array, Device, Matrix, Norm, Relative, Values};

/// Inputs that share a scale in quantised weights: MLX's own default.
pub(crate) const GROUP: i32 = 64;

/// Bits of a quantised weight.
pub(crate) fn bits(precision: Precision) -> Option<i32> {
    match precision {
        Precision::Int8 => Some(8),
        Precision::Q4 => Some(4),
        Precision::F32 | Precision::Bf16 | Precision::F16 => None,
    }
}

/// A linear layer. On a GPU, weights of 16 bits make activations of 16 bits; on the CPU, where MLX has no fast products
/// of those, they are rounded and kept as f32.
pub(crate) fn matrix(device: &Device, source: &MatrixSource, gpu: bool) -> Result<Matrix> {
    let (outputs, inputs) = check::matrix(source)?;
    check::weight_range(source, source.precision)?;
    let dtype = source.precision.element().unwrap_or(DType::F32);
    let kept = if gpu { dtype } else { DType::F32 };
    let mut weight = Vec::with_capacity(outputs * inputs * kept.size());
    let mut bias = Vec::with_capacity(outputs);
    for LinearPart { weight: w, bias: b } in &source.parts {
        let rounded = if w.dtype() == dtype { w.clone() } else { w.cast(dtype) };
        weight.extend_from_slice(if dtype == kept { rounded } else { rounded.cast(kept) }.bytes());
        match b {
            Some(b) => bias.extend(b.to_f32()),
            None => bias.resize(bias.len() + w.shape()[0], 0.0),
        }
    }
    let shapes = [sizes(&[outputs, inputs])?, sizes(&[outputs])?];
    let weight = Values::new(element(kept), &shapes[0], &weight)?;
    let has_bias = source.parts.iter().any(|part| part.bias.is_some());
    let bias = if has_bias { Some(Values::f32(&shapes[1], &bias)?) } else { None };
    device.matrix(weight, bias, element(kept), bits(source.precision).map(|bits| (bits, GROUP)))
}

/// A table, in the type it is stored in.
pub(crate) fn table(device: &Device, tensor: &HostTensor) -> Result<Array> {
    check::table(tensor)?;
    device.array(Values::new(element(tensor.dtype()), &sizes(tensor.shape())?, tensor.bytes())?)
}

/// A normalisation.
pub(crate) fn norm(device: &Device, source: &NormSource) -> Result<Norm> {
    let shape = sizes(&[check::norm_weights(source)?])?;
    let (gain, shift) = (source.gain.to_f32(), source.shift.as_ref().map(HostTensor::to_f32));
    let shift = shift.as_ref().map(|shift| Values::f32(&shape, shift)).transpose()?;
    device.norm(source.kind == NormKind::RmsNorm, Values::f32(&shape, &gain)?, shift, source.eps)
}

/// A relative term.
pub(crate) fn relative(device: &Device, source: &RelativeSource<Held<Array>>) -> Result<Relative> {
    let buckets: Vec<i32> = source.buckets.iter().map(|&b| b as i32).collect();
    let parts = [&source.keys, &source.queries, &source.bias].map(|part| part.as_ref().map(|held| &*held.buffer));
    device.relative(&buckets, parts)
}

/// MLX counts in 32 bits.
pub(crate) fn sizes(shape: &[usize]) -> Result<Vec<i32>> {
    let large = |&size: &usize| {
        let what = || format!("a dimension of {size} is more than MLX can count");
        i32::try_from(size).map_err(|_| Error::Setting { op: "array", what: what() })
    };
    shape.iter().map(large).collect()
}

fn element(dtype: DType) -> Element {
    match dtype {
        DType::F32 => Element::F32,
        DType::F16 => Element::F16,
        DType::Bf16 => Element::Bf16,
    }
}
