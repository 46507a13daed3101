//! Linear layers: `activation(x wᵀ + bias)` over packed weights.
//!
//! A task is a block of rows times a range of weight panels. Its rows are packed first, `[panel of rows][input][row]`,
//! so that the innermost product ([`tile`]) reads both operands as streams. Then, for each block of inputs, every
//! weight panel meets every panel of rows: the weights come from memory once per task, the rows from the second-level
//! cache. What is needed next is fetched meanwhile: weights (behind the last panel the first of the next matrix,
//! `next.rs`), the rows that are packed next, and the lines that a tile's result is written to. Bias and activation are
//! applied right after a tile's last block of inputs, while it is in the nearest cache.
//!
//! How the work is cut never changes a result: the blocks of inputs depend on the matrix alone, and within them all
//! tiles add in the same order.

mod pack;
pub(crate) mod plan;
pub(crate) mod tile;
pub(crate) mod weight;

pub(crate) use pack::{Matrix, Width, bias, decode_output};
pub(crate) use weight::Kept;

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use half::{bf16, f16};
use mlxt_backend::{Activation, Result, Shaped};

use self::plan::{Part, Plan};
use self::tile::{Fetch, LINE, Panels, Tile, function_of};
use self::weight::{Pair, Weight};
use super::activate::activate;
use crate::arena::Arena;
use crate::simd::{Kernel, MAX_LANES, Simd, Token};
use crate::threads::{Pool, Shareable};

/// Steps summed in registers before the sums go to memory. Shorter blocks store and load the sums more often than
/// nearer operands win back: 400 costs 3 %, 256 costs 4 %.
const INPUT_BLOCK: usize = 1024;
/// Values of a block of rows that stay in the second-level cache, which is 1 MiB or more, beside the weights that
/// pass through.
const ROW_BLOCK: usize = 96 << 10;
/// Products below this (about 9 microseconds) are not worth the hand-off.
const SMALL: usize = 1 << 19;

/// `out = activation(x wᵀ + bias)`: `x` is `[rows, inputs]`, `out` `[rows, outputs]`.
///
/// # Errors
/// Out of memory for the packed rows.
pub(crate) fn linear(
    (token, pool, arena): (Token, &Pool, &Arc<Arena>),
    x: &[f32],
    w: &Matrix,
    activation: Activation,
    out: &mut [f32],
) -> Result<()> {
    let inputs = w.cols();
    let rows = x.len() / inputs;
    let steps = inputs.div_ceil(w.kept().inputs());
    let tile_rows = token.run(TileRows);
    let block_rows = ROW_BLOCK / steps.min(INPUT_BLOCK);
    let plan = Plan::new(rows, (tile_rows, block_rows), w.count(), rows * w.rows() * inputs < SMALL, pool.threads());
    let room = plan.largest_block() * steps + MAX_LANES;
    let out = Shareable(out.as_mut_ptr());
    plan.run((pool, arena), room, |packed, part| {
        let task = Task { x, w, activation, part, packed, out };
        match w.kept() {
            Kept::F32 => token.run(Of::<f32>(task, PhantomData)),
            Kept::Bf16 => token.run(Of::<bf16>(task, PhantomData)),
            Kept::F16 => token.run(Of::<f16>(task, PhantomData)),
            Kept::Pairs(token) => token.run(Of::<Pair>(task, PhantomData)),
        }
    })
}

/// Rows of the instruction set's tile.
pub(crate) struct TileRows;

impl Kernel for TileRows {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::TILE_ROWS
    }
}

/// One task.
struct Task<'a> {
    x: &'a [f32],
    w: &'a Matrix,
    activation: Activation,
    part: Part,
    /// `[panel of rows][steps][rows of the panel]`, and a vector to spill into. A step is as many inputs as a [`Weight`] holds.
    packed: &'a mut [f32],
    out: Shareable,
}

/// A task with weights that are kept as `W`.
struct Of<'a, W>(Task<'a>, PhantomData<W>);

impl<W: Weight> Kernel for Of<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.multiply::<S, W>(s);
    }
}

impl Task<'_> {
    #[inline(always)]
    fn multiply<S: Simd, W: Weight>(self, s: S) {
        let Part { rows: block, panels, fresh, after, packed_next } = &self.part;
        let (inputs, outputs, width) = (self.w.cols(), self.w.rows(), self.w.width());
        let (first, all_steps) = (block.first(), inputs.div_ceil(W::INPUTS));
        if *fresh {
            for rows in block.iter() {
                // SAFETY: the panel before ends where this begins, and what it spilled there is written over now; the
                // last has a vector to spill into.
                unsafe {
                    let x = self.x.as_ptr().add(rows.start * inputs);
                    let dst = self.packed.as_mut_ptr().add((rows.start - first) * all_steps);
                    W::pack(s, x, (rows.len(), inputs), dst);
                }
            }
        }
        let tiles = block.count();
        let blocks = Panels::new(all_steps, INPUT_BLOCK);
        // Whole panels of `W`, which this stays inside.
        let all = self.w.panels.as_ptr().cast::<W>();
        let weights =
            |(panel, i): (usize, usize)| all.wrapping_add((panel * all_steps + blocks.range(i).start) * width);
        let next = self.w.next().weights(self.w.place(), *after);
        let mut left = panels.len() * blocks.count();
        let mut turns = turns(panels.clone(), blocks.count(), tiles).peekable();
        while let Some(turn) = turns.next() {
            let (panel, i) = turn;
            left -= 1;
            let (steps, last) = (blocks.range(i), i + 1 == blocks.count());
            let column = panel * width;
            let cols = width.min(outputs - column);
            let next = turns.peek().map(|&turn| weights(turn)).or(next).unwrap_or(weights(turn));
            let rows_ahead = self.rows_ahead(packed_next, left, tiles * steps.len());
            for (t, rows) in block.iter().enumerate() {
                // SAFETY: all places lie inside their slices: `rows` and `steps` inside `x`, as it was packed
                // above; the panel inside the weights, which are whole panels like the bias. The tile of `out`
                // belongs to this task alone.
                unsafe {
                    let c = self.out.get().add(rows.start * outputs + column);
                    let height = rows.len();
                    // The next panel comes from memory while this one is used, a part during each tile: otherwise memory
                    // rests during all tiles but the first.
                    let mut fetch = Fetch::two_vectors::<S, W>(
                        next.wrapping_add(t * steps.len() * width / tiles),
                        width.div_ceil(tiles),
                    );
                    if let (Some(rows), 2..) = (rows_ahead, tiles) {
                        // With two tiles or more a line at each step is enough for the weights.
                        fetch[1] = Fetch { at: rows.wrapping_add(t * steps.len() * LINE), stride: LINE };
                    }
                    let tile = Tile {
                        a: self.packed.as_ptr().add((rows.start - first) * all_steps + steps.start * height),
                        a_stride: height,
                        b: weights(turn),
                        b_stride: width,
                        steps: steps.len(),
                        c,
                        c_stride: outputs,
                        cols,
                        accumulate: i > 0,
                        bias: if last { self.w.bias.as_ptr().add(column) } else { ptr::null() },
                        fetch,
                    };
                    // Else the results wait for their lines, and the next tile for room to leave results in.
                    for i in 0..height {
                        for j in (0..cols).step_by(LINE) {
                            s.prefetch(c.add(i * outputs + j));
                        }
                    }
                    function_of::<S, W>(height, 2)(s, &tile);
                    if last {
                        let row = |i| std::slice::from_raw_parts_mut(c.add(i * outputs), cols);
                        activate(s, self.activation, (0..height).map(row));
                    }
                }
            }
        }
    }

    /// Where to fetch from, a line at each of so many steps, when so many panels are left after this one: all rows that are packed
    /// next, in the last panels. Packing alone would wait for memory, which rests while tiles are multiplied.
    fn rows_ahead(&self, next: &Range<usize>, left: usize, steps: usize) -> Option<*const f32> {
        let inputs = self.w.cols();
        let panels = (next.len() * inputs).div_ceil(steps * LINE);
        let done = panels.checked_sub(left + 1)?;
        Some(self.x.as_ptr().wrapping_add(next.start * inputs + done * steps * LINE))
    }
}

/// Weight panels and blocks of inputs, in the order in which a task of so many tiles of rows uses them. With several tiles
/// all panels meet one block of inputs of the rows before the next, so that these stay in the second-level cache. With one
/// tile a panel is read from end to end, as it lies in memory: 14 rows of 3072 inputs take a sixth less.
fn turns(panels: Range<usize>, blocks: usize, tiles: usize) -> impl Iterator<Item = (usize, usize)> {
    let (first, count) = (panels.start, panels.len());
    (0..count * blocks).map(move |turn| {
        if tiles == 1 { (first + turn / blocks, turn % blocks) } else { (first + turn % count, turn / count) }
    })
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, every_cpu_in_bf16, matrix, noise};
    use crate::{Cpu, CpuOptions, Isa};
    use half::bf16;
    use mlxt_backend::{
        Activation, Arithmetic, Backend, DType, Error, HostTensor, LinearPart, MatrixSource, Precision, Reference,
        Shaped,
    };

    fn check(rows: usize, outputs: usize, inputs: usize) {
        let values = noise(rows * inputs, 1.0);
        let source = || matrix(outputs, inputs);
        let want = product(&Reference, rows, inputs, &values, source(), Activation::Identity);
        every_cpu(|cpu| {
            let got = product(cpu, rows, inputs, &values, source(), Activation::Identity);
            assert_near(&got, &want, 3e-6);
            Ok(())
        });
    }

    fn product<B: Backend>(
        b: &B,
        rows: usize,
        inputs: usize,
        values: &[f32],
        source: MatrixSource,
        activation: Activation,
    ) -> Vec<f32> {
        let w = b.matrix(source).unwrap();
        let x = b.write(rows, inputs, values).unwrap();
        let y = b.linear(&x, &w, activation).unwrap();
        assert_eq!((y.rows(), y.cols()), (rows, w.rows()));
        b.read(&y).unwrap()
    }

    #[test]
    fn every_tail_is_the_references() {
        for rows in 1..32 {
            check(rows, 37, 21);
        }
        for outputs in 1..67 {
            check(3, outputs, 5);
        }
        for inputs in 1..35 {
            check(15, 33, inputs);
        }
    }

    #[test]
    fn larger_sizes_are_the_references() {
        check(50, 384, 384);
        check(14, 100, 3072);
        check(300, 70, 1025);
        check(1, 768, 768);
    }

    #[test]
    fn activations_follow_the_bias() {
        let values = noise(29 * 48, 1.0);
        for activation in Activation::ALL {
            let want = product(&Reference, 29, 48, &values, matrix(70, 48), activation);
            every_cpu(|cpu| {
                assert_near(&product(cpu, 29, 48, &values, matrix(70, 48), activation), &want, 3e-6);
                Ok(())
            });
        }
    }

    #[test]
    fn parts_of_any_type_are_stacked() {
        let part = |outputs: usize, dtype, bias: bool| LinearPart {
            weight: HostTensor::from_f32(&[outputs, 300], &noise(outputs * 300, 0.1)).unwrap().cast(dtype).into(),
            bias: bias.then(|| HostTensor::from_f32(&[outputs], &noise(outputs, 1.0)).unwrap().cast(dtype)),
        };
        let source = || {
            let parts = vec![part(20, DType::F32, true), part(33, DType::F16, false), part(1, DType::Bf16, true)];
            MatrixSource::new(parts, Precision::F32)
        };
        let values = noise(9 * 300, 1.0);
        let want = product(&Reference, 9, 300, &values, source(), Activation::Identity);
        every_cpu(|cpu| {
            assert_near(&product(cpu, 9, 300, &values, source(), Activation::Identity), &want, 3e-6);
            Ok(())
        });
    }

    #[test]
    fn halves_are_the_reference_of_the_rounded_weights() {
        for precision in [Precision::Bf16, Precision::F16] {
            for (rows, outputs, inputs) in [(1, 37, 21), (14, 100, 1100), (15, 33, 7), (61, 65, 300)] {
                let values = noise(rows * inputs, 1.0);
                let source = || MatrixSource { precision, ..matrix(outputs, inputs) };
                let want = product(&Reference, rows, inputs, &values, source(), Activation::Identity);
                every_cpu(|cpu| {
                    assert_near(&product(cpu, rows, inputs, &values, source(), Activation::Identity), &want, 3e-6);
                    Ok(())
                });
            }
        }
    }

    #[test]
    fn products_in_bf16_are_the_reference_of_rounded_weights_and_rows() {
        let sizes = (1..32).map(|rows| (rows, 37, 21)).chain((1..70).map(|inputs| (15, 33, inputs)));
        for (rows, outputs, inputs) in sizes.chain([(14, 100, 1100), (61, 65, 3072), (300, 70, 2050)]) {
            let exact = noise(rows * inputs, 1.0);
            let values: Vec<f32> = exact.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
            let source = || MatrixSource { precision: Precision::Bf16, ..matrix(outputs, inputs) };
            let want = product(&Reference, rows, inputs, &values, source(), Activation::Gelu);
            every_cpu_in_bf16(|cpu| {
                let got = product(cpu, rows, inputs, &exact, source(), Activation::Gelu);
                assert_near(&got, &want, 3e-6);
                for first in [0, rows / 2, rows - 1] {
                    let part = product(cpu, 1, inputs, &exact[first * inputs..][..inputs], source(), Activation::Gelu);
                    assert_eq!(part, got[first * outputs..][..outputs], "row {first} of {rows} by itself");
                }
            });
        }
    }

    #[test]
    fn products_in_bf16_are_an_error_where_the_cpu_is_no_faster_in_them() {
        let on = |isa, arithmetic| Cpu::new(CpuOptions { isa: Some(isa), arithmetic, ..CpuOptions::default() });
        assert!(matches!(on(Isa::Scalar, Arithmetic::Bf16), Err(Error::Unsupported { backend: "cpu", .. })));
        assert!(matches!(on(Isa::Scalar, Arithmetic::F16), Err(Error::Unsupported { backend: "cpu", .. })));
    }

    #[test]
    fn a_weight_that_would_become_infinite_is_an_error_that_names_it() {
        // 65519.996 is the last that rounds to 65504, the largest f16.
        let source = |value: f32, precision| {
            let mut weights = vec![0.5; 40 * 300];
            weights[39 * 300 + 299] = value;
            let weight = HostTensor::from_f32(&[40, 300], &weights).unwrap().named("encoder.dense.weight");
            MatrixSource::new(vec![LinearPart { weight: weight.into(), bias: None }], precision)
        };
        every_cpu(|cpu| {
            assert!(cpu.matrix(source(65519.996, Precision::F16)).is_ok());
            assert!(cpu.matrix(source(-65520.0, Precision::Bf16)).is_ok());
            for value in [65520.0, -1e30, f32::INFINITY] {
                let message = cpu.matrix(source(value, Precision::F16)).unwrap_err().to_string();
                assert!(message.starts_with("encoder.dense.weight: the weight"), "{message}");
                assert!(message.contains("at element 11999") && message.ends_with("f32 or bf16"), "{message}");
            }
            assert!(matches!(
                cpu.matrix(source(f32::MAX, Precision::Bf16)),
                Err(Error::WeightRange { at: 11_999, found: f32::MAX, .. })
            ));
            Ok(())
        });
    }

    /// The promise of the contract: a row's result is the same bits in any batch, on any number of threads.
    #[test]
    fn rows_do_not_depend_on_their_batch_or_the_threads() {
        let (inputs, outputs, total) = (1100, 70, 101);
        let values = noise(total * inputs, 1.0);
        for isa in Isa::available() {
            let cpu = |threads| {
                Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), ..CpuOptions::default() }).unwrap()
            };
            let whole = product(&cpu(1), total, inputs, &values, matrix(outputs, inputs), Activation::Gelu);
            for threads in 1..4 {
                let cpu = cpu(threads);
                for (first, rows) in [(0, 1), (60, 1), (0, 101), (3, 13), (5, 14), (7, 15), (20, 29), (1, 90)] {
                    let part = &values[first * inputs..][..rows * inputs];
                    let got = product(&cpu, rows, inputs, part, matrix(outputs, inputs), Activation::Gelu);
                    assert_eq!(got, whole[first * outputs..][..rows * outputs], "{first}, {rows} on {isa}, {threads}");
                }
            }
        }
    }
}
