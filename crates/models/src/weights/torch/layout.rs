//! A tensor's bytes out of its storage: a slice where they lie in order, a copy where strides say otherwise.

use bytes::Bytes;

use super::TorchError;
use super::object::Tensor;

/// Hands out contiguous tensors, and counts what has to be copied.
pub(super) struct Layout {
    limit: usize,
    copied: usize,
}

impl Layout {
    /// For a file of that many bytes: twice as many may be copied. A dimension of stride 0 repeats its values, and many
    /// tensors can share one storage, so a small file could ask for any amount.
    pub(super) fn new(file: usize) -> Self {
        Self { limit: file.saturating_mul(2), copied: 0 }
    }

    /// The tensor's bytes, outermost dimension first.
    pub(super) fn contiguous(&mut self, name: &str, tensor: &Tensor, storage: &Bytes) -> Result<Bytes, TorchError> {
        let width = tensor.storage.dtype.bitsize() / 8;
        let held = tensor.storage.elements;
        let expected = held.saturating_mul(width);
        if expected > storage.len() {
            return Err(TorchError::Storage { key: tensor.storage.key.to_owned(), expected, found: storage.len() });
        }
        // Of a number that does not fit, the largest: it is beyond every storage.
        let elements = tensor.shape.iter().fold(1, |all: usize, &size| all.saturating_mul(size));
        if tensor.shape.contains(&0) {
            return Ok(Bytes::new());
        }
        let dimensions = || tensor.shape.iter().zip(&tensor.strides);
        let reach =
            dimensions().fold(0, |all: usize, (&size, stride)| all.saturating_add((size - 1).saturating_mul(*stride)));
        let needed = tensor.offset.saturating_add(reach).saturating_add(1);
        if needed > held {
            return Err(TorchError::TensorOutside { tensor: name.to_owned(), needed, found: held });
        }
        let mut step = 1;
        let in_order = dimensions().rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == step;
            step = step.saturating_mul(size);
            fits
        });
        if in_order {
            return Ok(storage.slice(tensor.offset * width..(tensor.offset + elements) * width));
        }
        self.copied = self.copied.saturating_add(elements.saturating_mul(width));
        if self.copied > self.limit {
            return Err(TorchError::Limit { what: "bytes of tensors that are not contiguous", limit: self.limit });
        }
        Ok(gather(tensor, width, elements, storage))
    }
}

/// Copies element by element, the last index fastest. All of them lie within `storage`.
fn gather(tensor: &Tensor, width: usize, elements: usize, storage: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(elements * width);
    let mut index = vec![0; tensor.shape.len()];
    let mut at = tensor.offset;
    for _ in 0..elements {
        out.extend_from_slice(&storage[at * width..(at + 1) * width]);
        for ((i, &size), &stride) in index.iter_mut().zip(&tensor.shape).zip(&tensor.strides).rev() {
            *i += 1;
            at += stride;
            if *i < size {
                break;
            }
            *i = 0;
            at -= size * stride;
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::super::object::Storage;
    use super::*;
    use safetensors::Dtype;

    fn tensor(offset: usize, shape: &[usize], strides: &[usize]) -> Tensor<'static> {
        let storage = Storage { dtype: Dtype::U8, key: "0", elements: 12 };
        Tensor { storage, offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    fn laid_out(limit: usize, tensor: &Tensor) -> Result<Vec<u8>, TorchError> {
        let storage: Bytes = (0..12).collect::<Vec<u8>>().into();
        Layout { limit, copied: 0 }.contiguous("t", tensor, &storage).map(|bytes| bytes.to_vec())
    }

    #[test]
    fn strides_are_followed() {
        // What torch prints for arange(12).as_strided(shape, strides, offset).flatten().
        assert_eq!(laid_out(0, &tensor(1, &[2, 3], &[3, 1])).unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(laid_out(6, &tensor(0, &[3, 2], &[1, 3])).unwrap(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(laid_out(4, &tensor(5, &[2, 1, 2], &[4, 99, 2])).unwrap(), [5, 7, 9, 11]);
        assert_eq!(laid_out(4, &tensor(2, &[2, 2], &[0, 1])).unwrap(), [2, 3, 2, 3]);
        assert_eq!(laid_out(0, &tensor(11, &[], &[])).unwrap(), [11]);
        assert_eq!(laid_out(0, &tensor(0, &[1, 4], &[77, 1])).unwrap(), [0, 1, 2, 3]);
        assert_eq!(laid_out(0, &tensor(99, &[3, 0], &[1, 1])).unwrap(), [0_u8; 0]);
    }

    #[test]
    fn nothing_outside_the_storage_is_read() {
        for (needed, outside) in [
            (13, tensor(12, &[], &[])),
            (13, tensor(9, &[2, 2], &[2, 1])),
            (13, tensor(1, &[3, 4], &[4, 1])),
            (usize::MAX, tensor(usize::MAX, &[2], &[1])),
            (usize::MAX, tensor(0, &[usize::MAX, usize::MAX], &[usize::MAX, 1])),
        ] {
            let error = laid_out(1000, &outside).unwrap_err();
            assert!(
                matches!(&error, TorchError::TensorOutside { needed: n, found: 12, .. } if *n == needed),
                "{error}"
            );
        }
        let mut short = tensor(0, &[1], &[1]);
        short.storage.elements = 13;
        assert!(matches!(laid_out(0, &short), Err(TorchError::Storage { expected: 13, found: 12, .. })));
    }

    #[test]
    fn copies_have_a_limit() {
        assert!(matches!(laid_out(5, &tensor(0, &[3, 2], &[1, 3])), Err(TorchError::Limit { limit: 5, .. })));
        let huge = tensor(0, &[1 << 40, 1 << 40], &[0, 0]);
        assert!(matches!(laid_out(usize::MAX - 1, &huge), Err(TorchError::Limit { .. })));
    }
}
