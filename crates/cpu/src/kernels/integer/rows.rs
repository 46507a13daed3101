//! Rows of activations, rounded to 8 bits with a scale for each row and group of inputs.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Bits, GROUP};
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};

/// From how many times the next largest magnitude of its group on a value is kept apart. With 1.3 or 2 the error of whole models
/// is the same within a tenth (docs/performance/cpu.md).
const DWARFING: f32 = 1.5;

/// What there is to know of a row's group beside its bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Group {
    /// What its bytes are multiplied by.
    pub(super) scale: f32,
    /// What sums of its products begin with: minus the sum of its bytes times what packed weights are too large by.
    pub(super) start: i32,
    /// A value that dwarfs the others, whose byte is 0; 0 if there is none ..
    pub(super) largest: f32,
    /// .. and where that is.
    pub(super) place: u32,
}

/// Rows as tiles read them: their bytes as `[panel of rows][group][row][input]`, `[panel of rows][group][row]`
/// of what else there is of each, and for each panel and group a bit for each row that has a dwarfing value. The last group
/// is filled up with zeros.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: *mut i8,
    about: *mut Group,
    dwarfed: *mut u32,
    groups: usize,
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
    dwarfed: *mut u32,
    rows: usize,
    room: PhantomData<&'a mut [f32]>,
}

/// Where a tile reads a panel.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    pub(super) bytes: *const i8,
    pub(super) about: *const Group,
    pub(super) dwarfed: *const u32,
}

impl<'a> Packed<'a> {
    /// Room for `rows` rows, in f32.
    pub(super) fn len(rows: usize, groups: usize) -> usize {
        rows * groups * (GROUP + size_of::<Group>() + size_of::<u32>()) / size_of::<f32>()
    }

    /// Divides `room`, which has [`Packed::len`].
    pub(super) fn new(room: &'a mut [f32], rows: usize, groups: usize) -> Self {
        let (bytes, rest) = room.split_at_mut(rows * groups * GROUP / size_of::<f32>());
        let (about, dwarfed) = rest.split_at_mut(rows * groups * size_of::<Group>() / size_of::<f32>());
        assert!(dwarfed.len() >= rows * groups, "room for {rows} rows of {groups}");
        let (bytes, about) = (bytes.as_mut_ptr().cast(), about.as_mut_ptr().cast());
        Self { bytes, about, dwarfed: dwarfed.as_mut_ptr().cast(), groups, room: PhantomData }
    }

    /// The panel of `rows` rows from row `first` on, which are among those there is room for.
    pub(super) fn panel(self, Range { start: first, end }: Range<usize>) -> Panel<'a> {
        let rows = end - first;
        let before = first * self.groups;
        let (bytes, about) = (self.bytes.wrapping_add(before * GROUP), self.about.wrapping_add(before));
        // A panel has a row at least, so this has room for its groups.
        Panel { bytes, about, dwarfed: self.dwarfed.wrapping_add(before), rows, room: PhantomData }
    }
}

impl Panel<'_> {
    pub(super) fn as_ptrs(self) -> Pointers {
        Pointers { bytes: self.bytes, about: self.about, dwarfed: self.dwarfed }
    }
}

/// Fills a panel's group with that of the rows of `x`.
pub(super) struct Quantize<'a> {
    /// `[rows, inputs]`, all rows.
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) out: Packed<'a>,
    /// The panel's.
    pub(super) rows: Range<usize>,
    pub(super) group: usize,
    pub(super) bits: Bits,
}

impl DotKernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let Panel { bytes, about, dwarfed, rows, .. } = self.out.panel(self.rows.clone());
        let offset = match self.bits {
            Bits::Eight => D::OFFSET_8,
            Bits::Four => D::OFFSET_4,
        };
        let inputs = self.group * GROUP..self.inputs.min((self.group + 1) * GROUP);
        let mut found = 0;
        for (r, row) in self.rows.enumerate() {
            let values = &self.x[row * self.inputs..][inputs.clone()];
            let place = self.group * rows + r;
            // SAFETY: `place` is one of the panel's rows and groups, which is this task's, and any bits are a group's bytes.
            unsafe {
                let out = &mut *bytes.add(place * GROUP).cast::<[i8; GROUP]>();
                let group = round(d, values, offset, out);
                found |= u32::from(group.largest != 0.0) << r;
                about.add(place).write(group);
            }
        }
        // SAFETY: as above.
        unsafe { dwarfed.add(self.group).write(found) };
    }
}

/// Rounds `values`, of which there are at most `GROUP`, to `out`. The scale is NaN if one of them is NaN or infinite.
#[inline(always)]
fn round<D: Dot>(d: D, values: &[f32], offset: i32, out: &mut [i8; GROUP]) -> Group {
    let mut whole = [0.0; GROUP];
    let values: &[f32; GROUP] = if let Ok(values) = values.try_into() {
        values
    } else {
        whole[..values.len()].copy_from_slice(values);
        &whole
    };
    let Extent { most, second, not_finite } = Extent::of(d, values);
    if most > DWARFING * second {
        let place = values.iter().position(|v| v.abs() == most).unwrap_or(0);
        let mut others = *values;
        let largest = std::mem::replace(&mut others[place], 0.0);
        let most = Extent::of(d, &others).most;
        let start = -offset * narrow(d, &others, super::inverse(most, 127.0), out);
        Group { scale: most / 127.0 + not_finite, start, largest, place: place as u32 }
    } else {
        let start = -offset * narrow(d, values, super::inverse(most, 127.0), out);
        Group { scale: most / 127.0 + not_finite, start, largest: 0.0, place: 0 }
    }
}

/// How large a group's values are.
pub(super) struct Extent {
    /// The largest magnitude.
    pub(super) most: f32,
    /// The largest but one; less if several are the largest.
    second: f32,
    /// 0; NaN if a value is NaN or infinite.
    pub(super) not_finite: f32,
}

impl Extent {
    #[inline(always)]
    pub(super) fn of<D: Dot>(d: D, values: &[f32; GROUP]) -> Self {
        let s = d.floats();
        let (mut most, mut second, mut not_finite) = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
        for chunk in values.chunks_exact(D::F::LANES) {
            let magnitude = s.abs(s.get(chunk));
            second = s.max(second, s.min(most, magnitude));
            most = s.max(most, magnitude);
            not_finite = s.mul_add(magnitude, s.splat(0.0), not_finite);
        }
        let largest = s.largest(most);
        let second = s.largest(s.select(s.less(most, s.splat(largest)), most, second));
        Self { most: largest, second, not_finite: s.sum(not_finite) }
    }
}

/// `values` times `by` in whole numbers, of which none is beyond -127 or 127; gives their sum.
#[inline(always)]
pub(super) fn narrow<D: Dot>(d: D, values: &[f32; GROUP], by: f32, out: &mut [i8; GROUP]) -> i32 {
    let (s, lanes) = (d.floats(), D::F::LANES);
    for (chunk, out) in values.chunks_exact(lanes).zip(out.chunks_exact_mut(lanes)) {
        // SAFETY: `out` has room for a vector's bytes.
        unsafe { d.narrow(s.mul(s.get(chunk), s.splat(by)), out.as_mut_ptr()) };
    }
    out.iter().map(|&byte| i32::from(byte)).sum()
}
