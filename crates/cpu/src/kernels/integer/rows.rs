//! Rows of activations, rounded to 8 bits with a scale for each row and group of inputs.

use std::marker::PhantomData;

use super::GROUP;
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};

/// From how many times the mean magnitude of a group on a value is kept apart. Of 128 normal values the largest is 3.3
/// times the mean, and one in seven times more than 4 times.
const DWARFING: f32 = 4.0;

/// What there is to know of a row's group beside its bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Group {
    /// What its bytes are multiplied by.
    pub(super) scale: f32,
    /// The sum of its bytes.
    pub(super) sum: i32,
    /// A value that dwarfs the others, whose byte is 0; 0 if there is none ..
    pub(super) largest: f32,
    /// .. and where that is.
    pub(super) place: u32,
}

/// A block of rows as tiles read them: their bytes as `[panel of rows][group][row][input]`, and `[panel of rows][group][row]`
/// of what else there is of each. The last group is filled up with zeros.
pub(super) struct Packed<'a> {
    bytes: *mut i8,
    about: *mut Group,
    groups: usize,
    room: PhantomData<&'a mut [f32]>,
}

/// The part of a panel.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    bytes: *mut i8,
    about: *mut Group,
    rows: usize,
    groups: usize,
    room: PhantomData<&'a mut [f32]>,
}

/// Where a tile reads a panel.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    pub(super) bytes: *const i8,
    pub(super) about: *const Group,
}

impl<'a> Packed<'a> {
    /// Room for `rows` rows, in f32.
    pub(super) fn len(rows: usize, groups: usize) -> usize {
        rows * groups * (GROUP + size_of::<Group>()) / size_of::<f32>()
    }

    /// Divides `room`, which has [`Packed::len`].
    pub(super) fn new(room: &'a mut [f32], rows: usize, groups: usize) -> Self {
        let (bytes, about) = room.split_at_mut(rows * groups * GROUP / size_of::<f32>());
        assert!(size_of_val(about) >= rows * groups * size_of::<Group>(), "room for {rows} rows of {groups}");
        Self { bytes: bytes.as_mut_ptr().cast(), about: about.as_mut_ptr().cast(), groups, room: PhantomData }
    }

    /// The panel of `rows` rows from row `first` of the block on, which lie inside it.
    pub(super) fn panel(&mut self, first: usize, rows: usize) -> Panel<'_> {
        let (before, groups) = (first * self.groups, self.groups);
        let (bytes, about) = (self.bytes.wrapping_add(before * GROUP), self.about.wrapping_add(before));
        Panel { bytes, about, rows, groups, room: PhantomData }
    }
}

impl Panel<'_> {
    pub(super) fn as_ptrs(self) -> Pointers {
        Pointers { bytes: self.bytes, about: self.about }
    }
}

/// Fills a panel with the rows of `x`.
pub(super) struct Quantize<'a> {
    /// `[rows, inputs]`
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) out: Panel<'a>,
}

impl DotKernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let Panel { bytes, about, rows, groups, .. } = self.out;
        debug_assert!(rows * self.inputs == self.x.len() && self.inputs.div_ceil(GROUP) == groups);
        for (r, row) in self.x.chunks_exact(self.inputs).enumerate() {
            for (g, values) in row.chunks(GROUP).enumerate() {
                let place = g * rows + r;
                // SAFETY: `place` is one of the panel's `rows * groups`, and any bits are a group and its bytes.
                unsafe {
                    let out = &mut *bytes.add(place * GROUP).cast::<[i8; GROUP]>();
                    *about.add(place) = round(d, values, out);
                }
            }
        }
    }
}

/// Rounds `values`, of which there are at most `GROUP`, to `out`. The scale is NaN if one of them is NaN or infinite.
#[inline(always)]
fn round<D: Dot>(d: D, values: &[f32], out: &mut [i8; GROUP]) -> Group {
    let s = d.floats();
    let lanes = D::F::LANES;
    let mut padded = [0.0; GROUP];
    let values: &[f32; GROUP] = if let Ok(whole) = values.try_into() {
        whole
    } else {
        padded[..values.len()].copy_from_slice(values);
        &padded
    };
    let (mut most, mut total, mut finite) = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
    for chunk in values.chunks_exact(lanes) {
        let v = s.get(chunk);
        most = s.max(most, s.abs(v));
        total = s.add(total, s.abs(v));
        finite = s.mul_add(v, s.splat(0.0), finite);
    }
    let (most, mean) = (s.largest(most), s.sum(total) / GROUP as f32);
    if most > DWARFING * mean {
        without_largest(d, *values, most, s.sum(finite), out)
    } else {
        let (scale, sum) = narrow(d, values, most, out);
        Group { scale: scale + s.sum(finite), sum, largest: 0.0, place: 0 }
    }
}

/// The same without the value whose magnitude is `most`.
#[inline(always)]
fn without_largest<D: Dot>(d: D, mut values: [f32; GROUP], most: f32, finite: f32, out: &mut [i8; GROUP]) -> Group {
    let s = d.floats();
    let place = values.iter().position(|v| v.abs() == most).unwrap_or(0);
    let largest = std::mem::replace(&mut values[place], 0.0);
    let mut second = s.splat(0.0);
    for chunk in values.chunks_exact(D::F::LANES) {
        second = s.max(second, s.abs(s.get(chunk)));
    }
    let (scale, sum) = narrow(d, &values, s.largest(second), out);
    Group { scale: scale + finite, sum, largest, place: place as u32 }
}

/// Rounds values of magnitudes up to `most`; gives their scale, and the sum of the bytes.
#[inline(always)]
fn narrow<D: Dot>(d: D, values: &[f32; GROUP], most: f32, out: &mut [i8; GROUP]) -> (f32, i32) {
    let s = d.floats();
    let lanes = D::F::LANES;
    let inverse = s.splat(super::inverse(most, 127.0));
    for (chunk, out) in values.chunks_exact(lanes).zip(out.chunks_exact_mut(lanes)) {
        // SAFETY: `out` has room for a vector's bytes.
        unsafe { d.narrow(s.mul(s.get(chunk), inverse), out.as_mut_ptr()) };
    }
    (most / 127.0, out.iter().map(|&byte| i32::from(byte)).sum())
}
