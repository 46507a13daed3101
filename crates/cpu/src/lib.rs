//! The CPU backend: kernels written for speed, on AVX-512, AVX2, NEON or plain Rust, chosen when it starts.
//!
//! [`Cpu`] implements [`mlxt_backend::Backend`]. It promises more than the contract: a row's result is the same bits
//! whatever batch it is in, wherever it lies in it, and however many threads there are.
//!
//! It is not a tensor library, and it reads no environment variable: what it may do is in [`CpuOptions`].
//!
//! Where next: `kernels/` has one operation per file, `simd/` the instruction sets, `threads.rs` the pool, `arena.rs`
//! the memory; docs/performance/cpu.md says how fast it is and how that was found.

// Intrinsics become instructions only where they are inlined into a function that has the feature: see `simd`.
#![allow(clippy::inline_always)]

mod arena;
mod hardware;
mod kernels;
pub mod limits;
mod operations;
mod place;
pub mod product;
mod simd;
mod threads;

use std::sync::Arc;

use mlxt_backend::{
    Activation, Arithmetic, Attention, Backend, DeviceInfo, Error, HostTensor, Lookup, MatrixSource, NormSource,
    Precision, Reduction, RelativeSource, Result, Rotation, Segments, Shaped, check,
};

pub use kernels::attention::{Layout, Relative};
pub use kernels::embed::Table;
pub use kernels::linear::Matrix;
pub use kernels::norm::Norm;
pub use operations::Array;
pub use simd::Isa;

use arena::{Arena, Buffer};
use kernels::next::Last;
use simd::{PairToken, Token};
use threads::Pool;

/// The most threads that can be asked for: several times what any machine has, and few enough that a number that was mistyped takes
/// no memory to speak of.
pub const MOST_THREADS: usize = 4096;

/// How to use the CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// How many threads work on an operation, the caller's included; at most [`MOST_THREADS`]. All that the process may use by
    /// default.
    pub threads: Option<usize>,
    /// The instruction set. The best one by default.
    pub isa: Option<Isa>,
    /// What attention and weights of [`Precision::Bf16`] are multiplied in: f32 by default, or bf16, which rounds the rows they
    /// meet to it and is there where [`Cpu::arithmetic`] says so.
    pub arithmetic: Arithmetic,
}

/// The CPU, as a backend.
///
/// Callers on several threads at once are safe, but one of them has the threads: the others work alone meanwhile.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    token: Token,
    /// Where products are in bf16.
    pairs: Option<PairToken>,
    pool: Pool,
    arena: Arc<Arena>,
    last: Last,
}

/// Activations, `[rows, cols]`. Their memory goes back to the [`Cpu`] when they are dropped.
#[derive(Debug)]
pub struct Tensor {
    rows: usize,
    cols: usize,
    values: Buffer,
}

impl Shaped for Tensor {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
}

impl Cpu {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an instruction set this CPU has not, [`Error::Setting`] for no thread at all or
    /// more than [`MOST_THREADS`], [`Error::Device`] if the system gives none.
    pub fn new(options: CpuOptions) -> Result<Self> {
        let isa = options.isa.unwrap_or_else(Isa::best);
        let Some(token) = isa.token() else {
            let has: Vec<_> = Isa::available().map(Isa::name).collect();
            let what = format!("{isa} on this CPU (it has {})", has.join(", "));
            return Err(Error::Unsupported { backend: "cpu", what });
        };
        let pairs = match options.arithmetic {
            Arithmetic::F32 => None,
            other => {
                let pairs = PairToken::of(token).filter(|_| other == Arithmetic::Bf16);
                let what = || format!("products in {other} on this CPU with {isa}");
                Some(pairs.ok_or_else(|| Error::Unsupported { backend: "cpu", what: what() })?)
            }
        };
        let threads = options.threads.unwrap_or_else(hardware::threads);
        if !(1..=MOST_THREADS).contains(&threads) {
            let what = format!("there must be 1 to {MOST_THREADS} threads, found {threads}");
            return Err(Error::Setting { op: "cpu", what });
        }
        Ok(Self { isa, token, pairs, pool: Pool::new(threads)?, arena: Arc::default(), last: Last::default() })
    }

    /// What this CPU computes fastest in, besides integers, for weights of a precision that gives up as many digits: bf16 where it
    /// multiplies that faster than f32, which CPUs of AMD do that have AVX-512's instructions for it; f32 elsewhere.
    #[must_use]
    pub fn arithmetic(precision: Precision) -> Arithmetic {
        let fast = || Isa::best().token().and_then(PairToken::of).is_some();
        let coarse = matches!(precision, Precision::Bf16 | Precision::Int8 | Precision::Q4);
        if coarse && fast() { Arithmetic::Bf16 } else { Arithmetic::F32 }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many threads work on an operation.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// A tensor whose values are still to be written.
    fn tensor(&self, rows: usize, cols: usize) -> Result<Tensor> {
        Ok(Tensor { rows, cols, values: self.arena.take(rows.saturating_mul(cols))? })
    }
}

impl Backend for Cpu {
    type Tensor = Tensor;
    type Matrix = Matrix;
    type Norm = Norm;
    type Table = Table;
    type Relative = Relative;
    type Layout = Layout;

    fn info(&self) -> DeviceInfo {
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        DeviceInfo {
            device: "cpu".into(),
            hardware: hardware::name(),
            detail: format!("{}, {threads} thread{plural}", self.isa),
            arithmetic: if self.pairs.is_some() { Arithmetic::Bf16 } else { Arithmetic::F32 },
        }
    }

    fn matrix(&self, source: MatrixSource) -> Result<Matrix> {
        let shape = check::matrix(&source)?;
        Matrix::new((self.token, &self.pool), self.pairs, &source, shape)
    }

    fn table(&self, tensor: HostTensor) -> Result<Table> {
        let (entries, cols) = check::table(&tensor)?;
        Ok(Table::new(tensor, entries, cols))
    }

    fn norm_weights(&self, source: NormSource) -> Result<Norm> {
        check::norm_weights(&source)?;
        Ok(Norm::new(&source))
    }

    fn relative(&self, source: RelativeSource<Tensor>) -> Result<Relative> {
        check::relative(&source)?;
        Relative::new(&source)
    }

    fn layout(&self, segments: &Segments) -> Result<Layout> {
        Ok(Layout::new(segments))
    }

    fn write(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Tensor> {
        check::write(rows, cols, values)?;
        let mut out = self.tensor(rows, cols)?;
        out.values.copy_from_slice(values);
        Ok(out)
    }

    fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.values.to_vec())
    }

    fn embed(&self, lookups: &[Lookup<'_, Table>]) -> Result<Tensor> {
        let (rows, cols) = check::embed(lookups)?;
        let mut out = self.tensor(rows, cols)?;
        kernels::embed::embed((self.token, &self.pool), lookups, cols, &mut out.values);
        Ok(out)
    }

    fn linear(&self, x: &Tensor, w: &Matrix, activation: Activation) -> Result<Tensor> {
        check::size("linear", "inputs", w.cols(), x.cols)?;
        let mut out = self.tensor(x.rows, w.rows())?;
        let context = (self.token, &self.pool, &self.arena);
        kernels::linear::linear(context, &self.last, &x.values, w, activation, &mut out.values)?;
        Ok(out)
    }

    fn norm(&self, mut x: Tensor, residual: Option<&Tensor>, n: &Norm) -> Result<Tensor> {
        check::norm(&x, residual, n.cols())?;
        kernels::norm::norm((self.token, &self.pool), &mut x.values, residual.map(|r| &*r.values), n);
        Ok(x)
    }

    fn gate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let cols = check::gate(x)?;
        let mut out = self.tensor(x.rows, cols)?;
        kernels::gate::gate((self.token, &self.pool), &x.values, cols, activation, &mut out.values);
        Ok(out)
    }

    fn add_norm(&self, mut x: Tensor, residual: &Tensor, n: &Norm) -> Result<(Tensor, Tensor)> {
        check::norm(&x, Some(residual), n.cols())?;
        let mut out = self.tensor(x.rows, x.cols)?;
        kernels::norm::add_norm((self.token, &self.pool), &mut x.values, &residual.values, n, &mut out.values);
        Ok((x, out))
    }

    fn rotate(&self, mut qkv: Tensor, layout: &Layout, rotation: &Rotation) -> Result<Tensor> {
        check::rotate(&qkv, &layout.segments, rotation)?;
        let context = (self.token, &self.pool, &self.arena);
        kernels::rotate::rotate(context, &mut qkv.values, &layout.segments, rotation)?;
        Ok(qkv)
    }

    fn attention(
        &self,
        qkv: &Tensor,
        layout: &Layout,
        attention: &Attention,
        relative: Option<&Relative>,
    ) -> Result<Tensor> {
        let hidden = check::attention(qkv, &layout.segments, attention, relative.map(Relative::shape))?;
        let mut out = self.tensor(qkv.rows, hidden)?;
        let context = (self.token, &self.pool, &self.arena);
        let (a, x, y) = (attention, &qkv.values, &mut out.values);
        kernels::attention::attention(context, self.pairs, x, layout, a, relative, y)?;
        Ok(out)
    }

    fn take_rows(&self, x: &Tensor, indices: &[u32]) -> Result<Tensor> {
        check::take_rows(x, indices)?;
        let mut out = self.tensor(indices.len(), x.cols)?;
        kernels::rows::take(&self.pool, &x.values, x.cols, indices, &mut out.values);
        Ok(out)
    }

    fn reduce_rows(&self, x: &Tensor, layout: &Layout, reduction: Reduction) -> Result<Tensor> {
        check::size("reduce rows", "rows of the layout", layout.segments.rows(), x.rows)?;
        let mut out = self.tensor(layout.segments.count(), x.cols)?;
        let context = (self.token, &self.pool);
        kernels::rows::reduce(context, &x.values, x.cols, &layout.segments, reduction, &mut out.values);
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
