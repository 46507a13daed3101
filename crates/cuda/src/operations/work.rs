//! What operations are computed with: kernels by name, memory, and what is made once and kept.

use std::collections::HashMap;
use std::sync::Arc;

use mlxt_backend::Result;

use crate::cache::Cache;
use crate::device::Inner;
use crate::ffi::context::Queue;
use crate::ffi::matmul::{MatMul, Sizes};
use crate::ffi::memory::Memory;
use crate::ffi::module::{Kernels, Shape, launch};
use crate::kernels;

/// Threads of most kernels: `THREADS` in `operate.cuh`.
pub(super) const THREADS: usize = 256;

/// What outlives an operation.
#[derive(Debug)]
pub(crate) struct State {
    cache: Cache,
    /// None before the first operation that needs one.
    kernels: Option<Kernels>,
    /// Zeros between operations.
    counters: Option<Memory>,
    pub(super) products: HashMap<Sizes, MatMul>,
    /// Cosines and sines by length and half the size of a head.
    pub(super) angles: HashMap<(usize, usize), [Memory; 2]>,
}

impl State {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, kernels: None, counters: None, products: HashMap::new(), angles: HashMap::new() }
    }
}

/// What an operation works with.
pub(super) struct Work<'a> {
    pub(super) inner: &'a Inner,
    pub(super) state: &'a mut State,
}

impl<'a> Work<'a> {
    pub(super) fn new(inner: &'a Inner, state: &'a mut State) -> Self {
        Self { inner, state }
    }

    /// Blocks that keep every multiprocessor busy, a few each.
    pub(super) fn plenty(&self) -> usize {
        2 * self.inner.context.processors
    }

    /// Memory for values of 32 bits.
    ///
    /// # Errors
    /// [`mlxt_backend::Error::OutOfMemory`].
    pub(super) fn memory(&self, values: usize) -> Result<Memory> {
        Memory::new(&self.inner.context, 4 * values)
    }

    /// As many counters at 0. Kernels leave them so.
    ///
    /// # Errors
    /// As [`Work::memory`].
    pub(super) fn counters(&mut self, count: usize) -> Result<u64> {
        if let Some(enough) = self.state.counters.as_ref().filter(|memory| memory.bytes() >= 4 * count) {
            return Ok(enough.address());
        }
        let counters = self.memory(count.max(1 << 12))?;
        counters.fill(0, counters.bytes())?;
        Ok(self.state.counters.insert(counters).address())
    }

    /// Starts a kernel with as many blocks of [`THREADS`].
    ///
    /// # Errors
    /// As [`Work::start_shaped`].
    pub(super) fn start<P: Copy>(&mut self, name: &'static str, blocks: usize, o: &P) -> Result<()> {
        self.start_shaped(name, Shape { grid: [blocks, 1, 1], threads: THREADS, shared: 0 }, o)
    }

    /// Starts a kernel. One that is given more than 48 KiB of shared memory always is given as much.
    ///
    /// # Errors
    /// What NVRTC says of the kernels; the driver's own.
    pub(super) fn start_shaped<P: Copy>(&mut self, name: &'static str, shape: Shape, operands: &P) -> Result<()> {
        const WITHOUT_ASKING: usize = 48 << 10;
        let context = &self.inner.context;
        let kernels = match &mut self.state.kernels {
            Some(kernels) => kernels,
            none => none.insert(kernels::load_operations(context, &self.state.cache)?),
        };
        let asked = if shape.shared > WITHOUT_ASKING { shape.shared } else { 0 };
        let function = kernels.function(name, asked)?;
        // SAFETY: operands are those of the kernel, at places whose sizes were made from the checked shapes; indices in
        // them are checked by the kernel.
        unsafe { launch((context, Queue::Work), function, shape, operands) }
    }

    /// The product of these sizes, found once.
    ///
    /// # Errors
    /// cuBLASLt's own.
    pub(super) fn product(&mut self, sizes: Sizes, places: crate::ffi::matmul::Places) -> Result<&mut MatMul> {
        if !self.state.products.contains_key(&sizes) {
            // SAFETY: `product.rs` makes sizes and places together from checked shapes.
            let made = unsafe { MatMul::new(&Arc::clone(&self.inner.blas), sizes, places) }?;
            self.state.products.insert(sizes, made);
        }
        self.state
            .products
            .get_mut(&sizes)
            .ok_or_else(|| crate::ffi::failure("a product that was just made is gone".to_owned()))
    }
}
