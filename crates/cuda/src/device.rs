//! A GPU as [`mlxt_lazy::Device`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mlxt_backend::{
    Arithmetic, DeviceInfo, HostTensor, MatrixSource, NormSource, Precision, RelativeSource, Result, Segments,
};
use mlxt_lazy::plan::SegmentsRoom;
use mlxt_lazy::{Device, Held, Input, Plan};

use crate::cache::Cache;
use crate::ffi::blas::Blas;
use crate::ffi::context::Context;
use crate::ffi::failure;
use crate::ffi::memory::Memory;
use crate::ffi::module::Kernels;
use crate::gemm::{self, Size, Way, Ways};
use crate::operand::Operand;
use crate::operations::State;
use crate::program::Program;
use crate::results::{Buffer, Landings, Results};
use crate::weights::{Matrix, Norm, Relative, Table};
use crate::{CudaOptions, kernels, room};

/// The oldest compute capability whose instructions the kernels use: Ampere, 2020.
const OLDEST: u32 = 80;

/// One GPU. All work of it goes through one stream.
#[derive(Debug)]
pub struct CudaDevice {
    pub(crate) inner: Inner,
    ordinal: usize,
}

/// What programs and their making share.
#[derive(Debug)]
pub(crate) struct Inner {
    // Dropped in this order: kernels and memory before the context they belong to.
    kernels: Kernels,
    /// Of [`Operand::Int8`] and [`Operand::Fp8`], from the first weights of that kind on.
    eight_bits: [OnceLock<Kernels>; 2],
    pub(crate) cache: Cache,
    /// What the choices depend on that are kept there, besides sizes; none where they are made anew.
    pub(crate) choices: Option<String>,
    pub(crate) blas: Arc<Blas>,
    pub(crate) arithmetic: Arithmetic,
    /// As [`CudaOptions::product`].
    pub(crate) product: Option<String>,
    /// The fastest of each size, by itself.
    fastest: Mutex<HashMap<Size, Vec<Arc<Way>>>>,
    /// Those that are the fastest together, by the sizes of a plan.
    pub(crate) together: Mutex<HashMap<Vec<Size>, Ways>>,
    workspace: Mutex<Option<Arc<Memory>>>,
    /// What the last run left. Held while a program is put into the stream.
    pub(crate) results: Mutex<Results>,
    landings: Landings,
    notes: Mutex<Vec<String>>,
    /// What single operations keep.
    pub(crate) operations: Mutex<State>,
    /// Held while a program is recorded, or put into the stream.
    order: Mutex<()>,
    pub(crate) context: Arc<Context>,
}

impl Inner {
    /// The kernels that multiply an operand; what none is multiplied in is in those of [`Operand::Kept`] alone.
    ///
    /// # Errors
    /// As [`kernels::load`].
    pub(crate) fn kernels(&self, operand: Operand) -> Result<&Kernels> {
        let place = match operand {
            Operand::Kept => return Ok(&self.kernels),
            Operand::Int8 => &self.eight_bits[0],
            Operand::Fp8 => &self.eight_bits[1],
        };
        if let Some(kernels) = place.get() {
            return Ok(kernels);
        }
        let kernels = kernels::load(&self.context, (self.arithmetic, operand), &self.cache)?;
        Ok(place.get_or_init(|| kernels))
    }

    /// The fastest ways for a product of this size.
    ///
    /// # Errors
    /// As [`gemm::fastest`].
    pub(crate) fn fastest(&self, size: Size, matrices: &[Arc<Matrix>]) -> Result<Vec<Arc<Way>>> {
        if let Some(ways) = lock(&self.fastest).get(&size) {
            return Ok(ways.clone());
        }
        let ways = gemm::fastest(self, size, matrices)?;
        lock(&self.fastest).insert(size, ways.clone());
        Ok(ways)
    }

    /// Memory for what programs compute on the way, shared by all: they run one after the other. One that needs more
    /// gets more, and those before it keep what they have.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn workspace(&self, bytes: usize) -> Result<Arc<Memory>> {
        let mut workspace = lock(&self.workspace);
        if let Some(enough) = workspace.as_ref().filter(|memory| memory.bytes() >= bytes) {
            return Ok(Arc::clone(enough));
        }
        // Twice the last one at least, so that all together are at most twice the largest.
        let twice = workspace.as_ref().map_or(0, |memory| 2 * memory.bytes());
        let memory = Memory::new(&self.context, bytes.max(twice)).or_else(|_| Memory::new(&self.context, bytes));
        let memory = Arc::new(memory?);
        *workspace = Some(Arc::clone(&memory));
        Ok(memory)
    }

    /// Remembers something worth knowing about how this device is used.
    pub(crate) fn note(&self, what: String) {
        lock(&self.notes).push(what);
    }
}

/// What decides which kernels are the fastest: the device, what it is driven by, and the kernels.
fn ground(context: &Context, arithmetic: Arithmetic) -> Result<String> {
    let Context { name, processors, memory, driver, .. } = context;
    let (kernels, blas, version) = (kernels::fingerprint()?, Blas::version(), env!("CARGO_PKG_VERSION"));
    Ok(format!("{name}, {processors}, {memory}, {driver}, {blas}, {kernels}, {version}, {arithmetic}"))
}

pub(crate) fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CudaDevice {
    /// Kernels that multiply: see [`CudaOptions::product`].
    pub const PRODUCTS: [&str; 23] = [
        "cuBLASLt",
        "stream_16_1_12",
        "stream_16_3_3",
        "stream_32_2_3",
        "tile_16_64",
        "tile_32_32",
        "tile_64_64",
        "tile_128_64",
        "hopper_128",
        "hopper_192",
        "few_64_32",
        "few_64_64",
        "few_64_96",
        "few_64_128",
        "few_128_64",
        "few_128_96",
        "normed_64_96",
        "normed_64_128",
        "normed_64_192",
        "normed_128_96",
        "normed_128_128",
        "normed_128_192",
        "normed_128_256",
    ];

    /// The same where activations are f32.
    pub const PRODUCTS_F32: [&str; 5] = ["cuBLASLt", "stream_f32_8", "stream_f32_16", "stream_f32_24", "stream_f32_32"];

    /// Those besides where f32 may be multiplied as TF32.
    pub const PRODUCTS_TF32: [&str; 8] =
        ["hopper_128", "hopper_192", "few_64_32", "few_64_64", "few_64_96", "few_64_128", "few_128_64", "few_128_96"];

    /// What activations are kept in for weights of a precision: 16 bits where products multiply numbers of 8.
    #[must_use]
    pub fn arithmetic(precision: Precision) -> Arithmetic {
        match precision {
            Precision::Tf32 => Arithmetic::Tf32,
            Precision::Bf16 => Arithmetic::Bf16,
            Precision::F16 | Precision::Int8 | Precision::Fp8 => Arithmetic::F16,
            Precision::F32 | Precision::Q4 => Arithmetic::F32,
        }
    }

    /// Opens a GPU and gets its kernels ready, from the cache or by compiling them (seconds, on all cores, once).
    ///
    /// # Errors
    /// [`mlxt_backend::Error::Device`] that says what is missing and what to do: no driver, no such GPU, one that is too
    /// old, a driver that is, no NVRTC, no cuBLASLt; [`mlxt_backend::Error::OutOfMemory`].
    pub fn new(options: &CudaOptions) -> Result<Self> {
        let context = Context::new(options.ordinal)?;
        if context.capability < OLDEST {
            let (major, minor) = (context.capability / 10, context.capability % 10);
            return Err(failure(format!(
                "{} has compute capability {major}.{minor}; 8.0 (Ampere) or newer is needed",
                context.name
            )));
        }
        let blas = Blas::new(&context)?;
        let cache = Cache::new(options.cache.clone());
        let kernels = kernels::load(&context, (options.arithmetic, Operand::Kept), &cache)?;
        let anew = options.choose_again || options.product.is_some();
        let choices = if anew { None } else { Some(ground(&context, options.arithmetic)?) };
        let inner = Inner {
            kernels,
            eight_bits: Default::default(),
            cache: cache.clone(),
            choices,
            blas,
            arithmetic: options.arithmetic,
            product: options.product.clone(),
            fastest: Mutex::default(),
            together: Mutex::default(),
            workspace: Mutex::default(),
            results: Mutex::default(),
            landings: Landings::default(),
            notes: Mutex::default(),
            operations: Mutex::new(State::new(cache)),
            order: Mutex::default(),
            context,
        };
        Ok(Self { inner, ordinal: options.ordinal })
    }

    /// Which kernel multiplies each size seen so far, and how long it takes.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        lock(&self.inner.notes).clone()
    }
}

impl Device for CudaDevice {
    type Buffer = Buffer;
    type Matrix = Matrix;
    type Norm = Norm;
    type Table = Table;
    type Relative = Relative;
    type Program = Program;

    fn info(&self) -> DeviceInfo {
        let context = &self.inner.context;
        let (version, capability) = (context.driver, context.capability);
        DeviceInfo {
            device: format!("cuda:{}", self.ordinal),
            hardware: context.name.clone(),
            detail: format!(
                "compute capability {}.{}, {} multiprocessors, {:.0} GiB, CUDA {}.{}",
                capability / 10,
                capability % 10,
                context.processors,
                context.memory as f64 / f64::from(1 << 30),
                version / 1000,
                version % 1000 / 10
            ),
            arithmetic: self.inner.arithmetic,
        }
    }

    fn matrix(&self, source: MatrixSource) -> Result<Matrix> {
        self.inner.context.bind()?;
        Matrix::new(&self.inner, &source)
    }

    fn table(&self, tensor: HostTensor) -> Result<Table> {
        self.inner.context.bind()?;
        Table::new(&self.inner.context, self.inner.arithmetic, &tensor)
    }

    fn norm_weights(&self, source: NormSource) -> Result<Norm> {
        self.inner.context.bind()?;
        Norm::new(&self.inner.context, &source)
    }

    fn relative(&self, source: RelativeSource<Held<Buffer>>) -> Result<Relative> {
        self.inner.context.bind()?;
        let _results = lock(&self.inner.results);
        Relative::new(&self.inner.context, source)
    }

    fn room(&self, rows: usize) -> usize {
        room::rows(rows)
    }

    fn segments_room(&self, segments: &Segments) -> SegmentsRoom {
        room::segments(segments)
    }

    fn compile(&self, plan: Arc<Plan<Self>>) -> Result<Program> {
        self.inner.context.bind()?;
        let _order = lock(&self.inner.order);
        Program::new(&self.inner, plan)
    }

    fn run(&self, program: &Program, inputs: &[Input<'_, Buffer>]) -> Result<Vec<Buffer>> {
        self.inner.context.bind()?;
        let _order = lock(&self.inner.order);
        program.run(&self.inner, inputs)
    }

    fn read(&self, buffer: &Buffer, rows: usize, cols: usize) -> Result<Vec<f32>> {
        self.inner.context.bind()?;
        let (landings, element) = (&self.inner.landings, self.inner.arithmetic.activations());
        landings.read((&self.inner.context, &self.inner.results), &buffer.memory, rows * cols, element)
    }
}
