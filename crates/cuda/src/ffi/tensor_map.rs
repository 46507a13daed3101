//! Descriptions of matrices for Hopper's bulk copy engine.

use cudarc::driver::sys;
use mlxt_backend::{Arithmetic, Result};

use super::{check, failure};

/// What a matrix is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    /// f32 in memory, which the copy engine rounds on the way: what it brings as plain f32, `wgmma` would cut.
    Tf32,
    /// Codes of 8 bits.
    Byte,
}

impl Element {
    /// What activations are.
    ///
    /// # Errors
    /// f32: no user of the copy engine multiplies it unrounded.
    pub(crate) fn of(arithmetic: Arithmetic) -> Result<Self> {
        match arithmetic {
            Arithmetic::F16 => Ok(Self::F16),
            Arithmetic::Bf16 => Ok(Self::Bf16),
            Arithmetic::Tf32 => Ok(Self::Tf32),
            Arithmetic::F32 => Err(failure("the copy engine is used for no products in f32".into())),
        }
    }
}

/// A matrix in device memory, and the boxes it is copied in.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct TensorMap(sys::CUtensorMap);

impl TensorMap {
    /// A matrix of `rows` by `cols` at `address`, in boxes of some rows by columns, which become rows of 128 swizzled bytes.
    ///
    /// # Errors
    /// An address or row that is not aligned to 16 bytes, boxes the engine does not have.
    pub(crate) fn new(
        element: Element,
        address: u64,
        (rows, cols): (usize, usize),
        (box_rows, box_cols): (usize, usize),
    ) -> Result<Self> {
        let (element, bytes) = match element {
            Element::F16 => (sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2),
            Element::Bf16 => (sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2),
            Element::Tf32 => (sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_TFLOAT32, 4),
            Element::Byte => (sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8, 1),
        };
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let (size, pitch) = ([cols as u64, rows as u64], [bytes * cols as u64]);
        let (boxes, steps) = ([box_cols as u32, box_rows as u32], [1_u32; 2]);
        // SAFETY: all arrays have the two dimensions announced, the pitch one less; nothing is read at the address.
        let code = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                element,
                2,
                address as *mut std::ffi::c_void,
                size.as_ptr(),
                pitch.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("cuTensorMapEncodeTiled", code)?;
        Ok(Self(map))
    }
}
