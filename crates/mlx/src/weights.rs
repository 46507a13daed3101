//! Weights on their way to MLX: stacked, rounded or quantised, and evaluated before anybody multiplies by them.

use mlxt_backend::quantised::{Scales, Scheme};
use mlxt_backend::{
    DType, Error, HostTensor, LinearPart, LinearWeight, MatrixSource, NormKind, NormSource, Precision, RelativeSource,
    Result, check,
};
use mlxt_lazy::Held;

use crate::ffi::table::Element;
use crate::ffi::{Array, Device, Matrix, Norm, Packed, Relative, Values};

/// What weights can be had in. MLX takes TF32 or f32 for a whole process, by a variable that it reads once.
pub const PRECISIONS: [Precision; 5] =
    [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8, Precision::Q4];

/// Inputs that share a scale in quantised weights: MLX's own default.
pub(crate) const GROUP: i32 = 64;

/// Bits of a quantised weight.
pub(crate) fn bits(precision: Precision) -> Option<i32> {
    match precision {
        Precision::Int8 => Some(8),
        Precision::Q4 => Some(4),
        Precision::F32 | Precision::Tf32 | Precision::Bf16 | Precision::F16 | Precision::Fp8 => None,
    }
}

/// A linear layer, for activations of that type. Weights that are rounded to another are kept as f32.
pub(crate) fn matrix(device: &Device, source: &MatrixSource, activations: DType) -> Result<Matrix> {
    let (outputs, inputs) = check::matrix(source)?;
    let precision = source.precision;
    if !PRECISIONS.contains(&precision) {
        return Err(Error::UnsupportedPrecision { backend: "mlx", precision, supported: "f32, bf16, f16, int8, q4" });
    }
    let bias_shape = sizes(&[outputs])?;
    let bias = bias(source);
    let bias = bias.as_ref().map(|bias| Values::f32(&bias_shape, bias)).transpose()?;
    if let Some(stacked) = Stacked::new(source) {
        return stacked.matrix(device, bias, (outputs, inputs), activations);
    }
    check::weight_range(source, precision)?;
    let bits = bits(precision);
    let dtype = precision.element().unwrap_or(DType::F32);
    let kept = if dtype == activations { dtype } else { DType::F32 };
    let mut weight = Vec::with_capacity(outputs * inputs * kept.size());
    for LinearPart { weight: w, .. } in source.parts.iter().map(LinearPart::full) {
        weight.extend_from_slice(w.cast(dtype).cast(kept).bytes());
    }
    let shape = sizes(&[outputs, inputs])?;
    let multiplied = if bits.is_some() { activations } else { kept };
    let weight = Values::new(element(kept), &shape, &weight)?;
    device.matrix(weight, bias, element(multiplied), bits.map(|bits| (bits, GROUP)))
}

/// The biases of all parts, if one has any.
fn bias(source: &MatrixSource) -> Option<Vec<f32>> {
    source.parts.iter().any(|part| part.bias.is_some()).then(|| {
        let of = |part: &LinearPart| match &part.bias {
            Some(bias) => bias.to_f32(),
            None => vec![0.0; part.weight.shape()[0]],
        };
        source.parts.iter().flat_map(of).collect()
    })
}

/// Parts that are packed alike, one after the other: MLX multiplies by them as they are.
struct Stacked {
    scheme: Scheme,
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Option<Vec<u8>>,
}

impl Stacked {
    /// Nothing if a part is not packed, or otherwise than the first, or as MLX does not multiply.
    fn new(source: &MatrixSource) -> Option<Self> {
        let LinearWeight::Quantised(first) = &source.parts.first()?.weight else { return None };
        let scheme = first.scheme();
        if scheme.bits() == 1 {
            return None;
        }
        let mut stacked = Self { scheme, codes: vec![], scales: vec![], biases: None };
        for part in &source.parts {
            let LinearWeight::Quantised(part) = &part.weight else { return None };
            if part.scheme() != scheme {
                return None;
            }
            stacked.codes.extend_from_slice(part.codes());
            match part.scales() {
                Scales::Bytes(scales) => stacked.scales.extend_from_slice(scales),
                Scales::Affine { scales, biases } => {
                    stacked.scales.extend_from_slice(scales.cast(DType::F32).bytes());
                    stacked.biases.get_or_insert_default().extend_from_slice(biases.cast(DType::F32).bytes());
                }
            }
        }
        Some(stacked)
    }

    fn matrix(
        &self,
        device: &Device,
        bias: Option<Values<'_>>,
        (outputs, inputs): (usize, usize),
        activations: DType,
    ) -> Result<Matrix> {
        let (bits, group) = (self.scheme.bits(), self.scheme.group());
        let codes = sizes(&[outputs, inputs * bits / 32])?;
        let scales = sizes(&[outputs, inputs / group])?;
        let scale = if self.biases.is_some() { Element::F32 } else { Element::U8 };
        let packed = Packed {
            mode: match self.scheme {
                Scheme::Affine { .. } => c"affine",
                Scheme::Mxfp4 => c"mxfp4",
                Scheme::Nvfp4 => c"nvfp4",
                Scheme::Mxfp8 => c"mxfp8",
            },
            bits: bits as i32,
            group: group as i32,
            codes: Values::new(Element::U32, &codes, &self.codes)?,
            scales: Values::new(scale, &scales, &self.scales)?,
            biases: self.biases.as_ref().map(|biases| Values::new(Element::F32, &scales, biases)).transpose()?,
        };
        device.packed_matrix(&packed, bias, element(activations))
    }
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

/// The bridge's name of a type.
pub(crate) fn element(dtype: DType) -> Element {
    match dtype {
        DType::F32 => Element::F32,
        DType::F16 => Element::F16,
        DType::Bf16 => Element::Bf16,
    }
}
