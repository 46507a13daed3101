//! Tensors on the host, as a checkpoint holds them: an element type, a shape and shared little-endian bytes.
//!
//! A [`HostTensor`] is how weights reach a backend. It is cheap to clone (the bytes are reference counted and may be a
//! mapped file), so a backend may keep one instead of copying it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::convert::{decode, encode};
use crate::{Error, Result};

/// The element types of weights in a checkpoint that the contract knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl DType {
    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// A tensor in host memory, row-major. The bytes need not be aligned.
#[derive(Clone, PartialEq)]
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
    /// What errors call it.
    name: Option<Arc<str>>,
}

impl HostTensor {
    /// A tensor over `bytes`.
    ///
    /// # Errors
    /// [`Error::Bytes`] if their number does not fit `shape` and `dtype` exactly.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self> {
        let expected = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        if bytes.len() != expected {
            return Err(Error::Bytes { dtype, shape, expected, found: bytes.len() });
        }
        Ok(Self { dtype, shape, bytes, name: None })
    }

    /// The same tensor, which errors call `name`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("a tensor without a name")
    }

    /// An f32 tensor that owns a copy of `values`.
    ///
    /// # Errors
    /// [`Error::Bytes`] if their number does not fit `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::new(DType::F32, shape.to_vec(), encode(values, DType::F32).into())
    }

    /// As [`HostTensor::from_f32`], of a shape that is known to fit.
    pub(crate) fn f32(shape: Vec<usize>, values: &[f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { dtype: DType::F32, shape, bytes: encode(values, DType::F32).into(), name: None }
    }

    /// The same values, rounded to `dtype` (to nearest even); the same bytes if it is theirs.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Self {
        if dtype == self.dtype {
            return self.clone();
        }
        Self { dtype, shape: self.shape.clone(), bytes: encode(&self.to_f32(), dtype).into(), name: self.name.clone() }
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, outermost dimension first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The raw little-endian bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the elements from `first` on, as f32, over the whole of `out`.
    ///
    /// # Panics
    /// If fewer than `out.len()` elements follow `first`.
    pub fn decode(&self, first: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        decode(self.dtype, &self.bytes[first * size..][..out.len() * size], out);
    }

    /// All elements as f32.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.decode(0, &mut out);
        out
    }
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor({} {:?})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_fit_the_shape() {
        let short = HostTensor::new(DType::F16, vec![2, 3], Bytes::from_static(&[0; 11]));
        assert!(matches!(short, Err(Error::Bytes { expected: 12, found: 11, .. })));
        let huge = HostTensor::new(DType::F32, vec![usize::MAX, 4], Bytes::new());
        assert!(matches!(huge, Err(Error::Bytes { expected: usize::MAX, .. })));
    }

    #[test]
    fn halves_decode_to_the_values_they_hold() {
        let values = [1.0, -2.5, 0.000_061_035_156, 65504.0];
        let full = HostTensor::from_f32(&[4], &values).unwrap();
        assert_eq!(full.to_f32(), values);
        assert_eq!(full.cast(DType::F16).to_f32(), values);
        let mut tail = [0.0; 2];
        full.cast(DType::Bf16).decode(1, &mut tail);
        assert_eq!(tail, [-2.5, 0.000_061_035_156]);
    }
}
