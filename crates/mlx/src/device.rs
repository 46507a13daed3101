//! A device of MLX as [`mlxt_lazy::Device`] wants one.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlxt_backend::operations::{HostArray, Operation, Operations};
use mlxt_backend::{Arithmetic, DeviceInfo, HostTensor, MatrixSource, NormSource, RelativeSource, Result, Segments};
use mlxt_lazy::plan::SegmentsRoom;
use mlxt_lazy::{Held, Input, Plan};

use crate::ffi::{self, Array, Device, Matrix, Memory, Norm, Relative};
use crate::operations::Functions;
use crate::places::Room;
use crate::program::{On, Program};
use crate::{Installation, LoadError, find, weights};

/// Which of MLX's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// `mlx:cpu`
    #[default]
    Cpu,
    /// `mlx:gpu`: Metal or CUDA, whichever this MLX is built for.
    Gpu,
}

/// How to use MLX.
#[derive(Debug, Clone, Default)]
pub struct MlxOptions {
    /// On which device.
    pub kind: Kind,
    /// What activations are kept in: f32, f16 or bf16. On the CPU MLX's products of 16 bits are plain loops.
    pub arithmetic: Arithmetic,
    /// The MLX to load; the one that is found by default.
    pub installation: Option<Installation>,
    /// The folder for compiled bridges; one of this user's own by default.
    pub bridges: Option<PathBuf>,
    /// Bytes MLX may keep for later, for all devices of this process. Its own default is nearly all there is.
    pub spare_memory: Option<usize>,
    /// Whether MLX compiles functions. By default it does for a GPU. On the CPU it cannot be asked for: it would start a C++
    /// compiler for every kernel, 0.8 seconds each, in a folder that everybody can write to, and run no faster.
    pub compile: Option<bool>,
    /// How sizes are rounded up: by default, where functions are compiled.
    pub room: Option<Room>,
}

/// MLX on one of its devices.
pub struct MlxDevice {
    pub(crate) device: Device,
    pub(crate) functions: Functions,
    kind: Kind,
    arithmetic: Arithmetic,
    compile: bool,
    room: Room,
    info: DeviceInfo,
}

/// Bytes MLX keeps for later by default. A forward of BERT-base over 4096 tokens uses 300 MiB on the CPU.
const SPARE_MEMORY: usize = 512 << 20;

impl MlxDevice {
    /// Loads MLX, if this process has not yet.
    ///
    /// # Errors
    /// As [`LoadError`], which says what mends it.
    pub fn new(options: MlxOptions) -> Result<Self, LoadError> {
        let MlxOptions { kind, arithmetic, installation, bridges, spare_memory, compile, room } = options;
        let installation = match installation {
            Some(given) => given,
            None => find(None)?,
        };
        let gpu = kind == Kind::Gpu;
        let unsupported = |what: &str| mlxt_backend::Error::Unsupported { backend: "mlx", what: what.into() }.into();
        if arithmetic == Arithmetic::Tf32 {
            return Err(unsupported("arithmetic in tf32"));
        }
        if !gpu && compile == Some(true) {
            return Err(unsupported("compiled functions on the CPU"));
        }
        let bridges = bridges.unwrap_or_else(default_bridges);
        let library = ffi::library(&installation, &bridges)?;
        let kernels = kernels(&bridges, &installation)?;
        let spare_memory = spare_memory.unwrap_or(SPARE_MEMORY);
        let device = Device::new(&library, gpu, spare_memory, &kernels).map_err(|error| match error {
            mlxt_backend::Error::Device { message, .. } if message.contains("finds no GPU") => {
                let version = installation.version().unwrap_or_default();
                LoadError::CpuOnly { folder: installation.folder.clone(), version }
            }
            other => other.into(),
        })?;
        let compile = compile.unwrap_or(gpu);
        let room = room.unwrap_or(if compile { Room::Rounded } else { Room::Exact });
        let mut made = Self {
            device,
            functions: Functions::default(),
            kind,
            arithmetic,
            compile,
            room,
            info: DeviceInfo { device: String::new(), hardware: String::new(), detail: String::new(), arithmetic },
        };
        // Products are computed here, which makes what MLX makes at its first.
        let ours = made.multiplies_by_ours()?;
        ffi::rest_at_exit(gpu)?;
        made.info = made.describe(ours);
        Ok(made)
    }

    /// What MLX holds in memory, for all devices of this process.
    ///
    /// # Errors
    /// MLX's own.
    pub fn memory(&self) -> Result<Memory> {
        self.device.memory()
    }

    pub(crate) fn compiles(&self) -> bool {
        self.compile
    }

    fn describe(&self, ours: bool) -> DeviceInfo {
        let (version, arithmetic) = (self.device.version(), self.arithmetic);
        let compiled = if self.compile { ", compiled" } else { "" };
        if self.kind == Kind::Gpu {
            let (device, hardware) = ("mlx:gpu".into(), self.device.name().to_owned());
            let detail = format!("MLX {version}{compiled}");
            return DeviceInfo { device, hardware, detail, arithmetic };
        }
        let (hardware, kernels) = ffi::cpu_info().map(|info| (info.hardware, info.detail)).unwrap_or_default();
        let products = if ours { format!("mlxt-cpu ({kernels})") } else { "MLX's own BLAS".into() };
        let detail = format!("MLX {version}{compiled}, products by {products}");
        DeviceInfo { device: "mlx:cpu".into(), hardware, detail, arithmetic }
    }

    /// Whether matrices are multiplied by this project's kernels: seen by asking for a product.
    fn multiplies_by_ours(&self) -> Result<bool> {
        let (product, ones) = (Operation::MatMul, HostArray::f32(&[2, 2], vec![1.0; 4])?);
        let before = ffi::products();
        let x = Operations::upload(self, &product, 0, &ones)?;
        Operations::download(self, &Operations::run(self, &product, &[&x, &x])?)?;
        Ok(ffi::products() > before)
    }
}

/// The folder for a CUDA device's compiled kernels, which belong to one version of MLX.
fn kernels(bridges: &Path, installation: &Installation) -> Result<CString, LoadError> {
    let folder = bridges.join(format!("kernels-{}", installation.version().unwrap_or_default()));
    let failed = |message: String| LoadError::Cache { folder: folder.clone(), message };
    std::fs::create_dir_all(&folder).map_err(|error| failed(error.to_string()))?;
    CString::new(folder.as_os_str().as_encoded_bytes()).map_err(|error| failed(error.to_string()))
}

fn default_bridges() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home =
        || set("HOME").map(|home| home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }));
    let root = set("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir);
    root.join("mlx-transformers").join("bridge")
}

impl mlxt_lazy::Device for MlxDevice {
    type Buffer = Array;
    type Matrix = Matrix;
    type Norm = Norm;
    type Table = Array;
    type Relative = Relative;
    type Program = Program;

    fn info(&self) -> DeviceInfo {
        self.info.clone()
    }

    fn matrix(&self, source: MatrixSource) -> Result<Matrix> {
        weights::matrix(&self.device, &source, self.arithmetic.activations())
    }

    fn table(&self, tensor: HostTensor) -> Result<Array> {
        weights::table(&self.device, &tensor)
    }

    fn norm_weights(&self, source: NormSource) -> Result<Norm> {
        weights::norm(&self.device, &source)
    }

    fn relative(&self, source: RelativeSource<Held<Array>>) -> Result<Relative> {
        weights::relative(&self.device, &source)
    }

    fn room(&self, rows: usize) -> usize {
        self.room.rows(rows)
    }

    fn segments_room(&self, segments: &Segments) -> SegmentsRoom {
        self.room.segments(segments)
    }

    fn compile(&self, plan: Arc<Plan<Self>>) -> Result<Program> {
        Ok(Program::new(plan))
    }

    fn run(&self, program: &Program, inputs: &[Input<'_, Array>]) -> Result<Vec<Array>> {
        let activations = weights::element(self.arithmetic.activations());
        program.run(On { device: &self.device, activations, compiled: self.compile }, inputs)
    }

    fn read(&self, buffer: &Array, rows: usize, cols: usize) -> Result<Vec<f32>> {
        // Values of 16 bits come over as they are, half the bytes, and are made longer here.
        self.device.read(buffer, self.arithmetic.activations(), rows.saturating_mul(cols))
    }
}
