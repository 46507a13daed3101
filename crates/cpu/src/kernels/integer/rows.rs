//! Rows of activations, rounded to 8 bits with a scale for each row and group of inputs.

use std::marker::PhantomData;
use std::ops::Range;

use super::spread::spread;
use super::{BLOCK, Bits, Eight, Four, Weights};
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};

/// What there is to know of a row's group beside its bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Group {
    /// What its bytes are multiplied by.
    pub(super) scale: f32,
    /// What sums of its products begin with: minus the sum of its bytes times what packed weights are too large by.
    pub(super) start: i32,
}

/// Rows as tiles read them: their bytes as `[panel of rows][group][row][input]` and `[panel of rows][group][row]` of what else
/// there is of each. Behind the last input are zeros before values are spread.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: *mut i8,
    about: *mut Group,
    /// Groups of a row.
    groups: usize,
    /// Inputs of a group.
    group: usize,
    room: PhantomData<&'a mut [f32]>,
}

// SAFETY: pointers into `room`, of which a task writes the part of one panel's group, and which is read when all are
// written.
unsafe impl Send for Packed<'_> {}
// SAFETY: as above.
unsafe impl Sync for Packed<'_> {}

/// The part of a panel.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    bytes: *mut i8,
    about: *mut Group,
    rows: usize,
    room: PhantomData<&'a mut [f32]>,
}

/// Where a tile reads a panel.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    pub(super) bytes: *const i8,
    pub(super) about: *const Group,
}

impl<'a> Packed<'a> {
    /// Room for `rows` rows of `blocks` blocks in groups of `group` inputs, in f32.
    pub(super) fn len((rows, blocks, group): (usize, usize, usize)) -> usize {
        let bytes = rows * blocks * BLOCK;
        (bytes + bytes / group * size_of::<Group>()) / size_of::<f32>()
    }

    /// Divides `room`, which has [`Packed::len`].
    pub(super) fn new(room: &'a mut [f32], (rows, blocks, group): (usize, usize, usize)) -> Self {
        let groups = blocks * (BLOCK / group);
        let (bytes, about) = room.split_at_mut(rows * blocks * BLOCK / size_of::<f32>());
        assert!(size_of_val(about) >= rows * groups * size_of::<Group>(), "room for {rows} rows of {groups}");
        Self { bytes: bytes.as_mut_ptr().cast(), about: about.as_mut_ptr().cast(), groups, group, room: PhantomData }
    }

    /// The panel of `rows` rows from row `first` on, which are among those there is room for.
    pub(super) fn panel(self, Range { start: first, end }: Range<usize>) -> Panel<'a> {
        let rows = end - first;
        let before = first * self.groups;
        let (bytes, about) = (self.bytes.wrapping_add(before * self.group), self.about.wrapping_add(before));
        Panel { bytes, about, rows, room: PhantomData }
    }
}

impl Panel<'_> {
    pub(super) fn as_ptrs(self) -> Pointers {
        Pointers { bytes: self.bytes, about: self.about }
    }
}

/// Fills a panel's block with that of the rows of `x`.
pub(super) struct Quantize<'a> {
    /// `[rows, inputs]`, all rows.
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) out: Packed<'a>,
    /// The panel's.
    pub(super) rows: Range<usize>,
    pub(super) block: usize,
    pub(super) bits: Bits,
    /// Whether weights are spread.
    pub(super) is_spread: bool,
}

impl DotKernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        match self.bits {
            Bits::Eight => self.fill::<D, Eight>(d, D::OFFSET_8),
            Bits::Four => self.fill::<D, Four>(d, D::OFFSET_4),
        }
    }
}

impl Quantize<'_> {
    /// With what is added to weights when they are packed.
    #[inline(always)]
    fn fill<D: Dot, W: Weights>(self, d: D, offset: i32) {
        let Panel { bytes, about, rows, .. } = self.out.panel(self.rows.clone());
        let inputs = self.block * BLOCK..self.inputs.min((self.block + 1) * BLOCK);
        let first_group = self.block * (BLOCK / W::GROUP);
        for (r, row) in self.rows.enumerate() {
            let mut values = whole_block(&self.x[row * self.inputs..][inputs.clone()]);
            if self.is_spread {
                spread(d, &mut values);
            }
            for (g, values) in values.chunks_exact(W::GROUP).enumerate() {
                let place = (first_group + g) * rows + r;
                // SAFETY: `place` is one of the panel's rows and groups, which is this task's, and any bits are a group's bytes.
                unsafe {
                    let out = std::slice::from_raw_parts_mut(bytes.add(place * W::GROUP), W::GROUP);
                    about.add(place).write(round(d, values, offset, out));
                }
            }
        }
    }
}

/// `values`, of which there are at most `BLOCK`, and zeros behind them.
#[inline(always)]
fn whole_block(values: &[f32]) -> [f32; BLOCK] {
    if let Ok(values) = <&[f32; BLOCK]>::try_from(values) {
        *values
    } else {
        let mut whole = [0.0; BLOCK];
        whole[..values.len()].copy_from_slice(values);
        whole
    }
}

/// Rounds a group's values. The scale is NaN if one of them is NaN or infinite.
#[inline(always)]
fn round<D: Dot>(d: D, values: &[f32], offset: i32, out: &mut [i8]) -> Group {
    let Extent { most, not_finite } = Extent::of(d, values);
    let start = -offset * narrow(d, values, super::inverse(most, 127.0), out);
    Group { scale: most / 127.0 + not_finite, start }
}

/// How large a group's values are.
pub(super) struct Extent {
    /// The largest magnitude.
    pub(super) most: f32,
    /// 0; NaN if a value is NaN or infinite.
    pub(super) not_finite: f32,
}

impl Extent {
    #[inline(always)]
    pub(super) fn of<D: Dot>(d: D, values: &[f32]) -> Self {
        let s = d.floats();
        let (mut most, mut not_finite) = (s.splat(0.0), s.splat(0.0));
        for chunk in values.chunks_exact(D::F::LANES) {
            let magnitude = s.abs(s.get(chunk));
            most = s.max(most, magnitude);
            not_finite = s.mul_add(magnitude, s.splat(0.0), not_finite);
        }
        Self { most: s.largest(most), not_finite: s.sum(not_finite) }
    }
}

/// `values` times `by` in whole numbers, of which none is beyond -127 or 127; gives their sum.
#[inline(always)]
pub(super) fn narrow<D: Dot>(d: D, values: &[f32], by: f32, out: &mut [i8]) -> i32 {
    let (s, lanes) = (d.floats(), D::F::LANES);
    for (chunk, out) in values.chunks_exact(lanes).zip(out.chunks_exact_mut(lanes)) {
        // SAFETY: `out` has room for a vector's bytes.
        unsafe { d.narrow(s.mul(s.get(chunk), s.splat(by)), out.as_mut_ptr()) };
    }
    out.iter().map(|&byte| i32::from(byte)).sum()
}
