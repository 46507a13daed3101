//! Sums of table rows, straight from the bytes of a checkpoint.
//!
//! A table stays as it was loaded: mapped, unaligned, of 16 or 32 bits. Only the rows looked up are ever read.

use mlxt_backend::{DType, HostTensor, Lookup, Shaped};

use crate::simd::{Kernel, MAX_LANES, Simd, Token};
use crate::threads::Pool;

/// Rows to look up, `[entries, cols]`.
#[derive(Debug)]
pub struct Table {
    tensor: HostTensor,
    entries: usize,
    cols: usize,
}

impl Table {
    /// A table over a tensor of that shape.
    pub(crate) fn new(tensor: HostTensor, entries: usize, cols: usize) -> Self {
        Self { tensor, entries, cols }
    }

    /// The bytes of one row.
    fn row(&self, id: u32) -> &[u8] {
        let bytes = self.cols * self.tensor.dtype().size();
        &self.tensor.bytes()[id as usize * bytes..][..bytes]
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

/// `out[r] = Σ table[ids[r]]`, rows of `cols`.
pub(crate) fn embed((token, pool): (Token, &Pool), lookups: &[Lookup<'_, Table>], cols: usize, out: &mut [f32]) {
    pool.rows(out, cols, cols * lookups.len() / 4, |first, rows| {
        for (r, row) in rows.chunks_exact_mut(cols).enumerate() {
            for (i, lookup) in lookups.iter().enumerate() {
                let bytes = lookup.table.row(lookup.ids[first + r]);
                token.run(Decode { dtype: lookup.table.tensor.dtype(), bytes, add: i > 0, out: row });
            }
        }
    });
}

/// Decodes `bytes` over `out`, or adds them to it.
pub(crate) struct Decode<'a> {
    pub(crate) dtype: DType,
    /// `out.len()` elements, of any alignment.
    pub(crate) bytes: &'a [u8],
    pub(crate) add: bool,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let size = self.dtype.size();
        let (out, bytes) = (self.out, self.bytes);
        for (out, bytes) in out.chunks_mut(S::LANES).zip(bytes.chunks(S::LANES * size)) {
            let mut padded = [0_u8; 4 * MAX_LANES];
            let whole = if out.len() == S::LANES && bytes.len() == S::LANES * size {
                bytes
            } else {
                padded[..bytes.len()].copy_from_slice(bytes);
                &padded
            };
            // SAFETY: `whole` holds a vector's worth of elements of the type, and needs no alignment.
            let value = unsafe {
                match self.dtype {
                    DType::F32 => s.load(whole.as_ptr().cast()),
                    DType::F16 => s.load_f16(whole.as_ptr()),
                    DType::Bf16 => s.load_bf16(whole.as_ptr()),
                }
            };
            let value = if self.add { s.add(s.get(out), value) } else { value };
            s.put(out, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, noise};
    use bytes::Bytes;
    use mlxt_backend::{Backend, DType, HostTensor, Lookup, Reference};

    /// The same tensor with its bytes at an odd address.
    fn unaligned(tensor: &HostTensor) -> HostTensor {
        let bytes = Bytes::from([&[0_u8][..], tensor.bytes()].concat()).slice(1..);
        HostTensor::new(tensor.dtype(), tensor.shape().to_vec(), bytes).unwrap()
    }

    #[test]
    fn sums_are_the_references() {
        for cols in (1..35).chain([384, 769]) {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let table = |entries: usize| {
                    let full = HostTensor::from_f32(&[entries, cols], &noise(entries * cols, 1.0)).unwrap();
                    unaligned(&full.cast(dtype))
                };
                let (words, types) = (table(40), table(2));
                let rows = if cols > 300 { 100 } else { 5 };
                let ids: Vec<u32> = (0..rows).map(|r| (r * 17 + 39) % 40).collect();
                let type_ids: Vec<u32> = (0..rows).map(|r| r % 2).collect();
                let (w, t) = (Reference.table(words.clone()).unwrap(), Reference.table(types.clone()).unwrap());
                let want =
                    Reference.embed(&[Lookup { table: &w, ids: &ids }, Lookup { table: &t, ids: &type_ids }]).unwrap();
                let want = Reference.read(&want).unwrap();
                every_cpu(|cpu| {
                    let (w, t) = (cpu.table(words.clone())?, cpu.table(types.clone())?);
                    let got = cpu.embed(&[Lookup { table: &w, ids: &ids }, Lookup { table: &t, ids: &type_ids }])?;
                    assert_near(&cpu.read(&got)?, &want, 1e-7);
                    Ok(())
                });
            }
        }
    }
}
