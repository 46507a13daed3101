//! Devices by the names the command line gives them, which of them work here, and the choice between them.
//!
//! The only place that knows which backends this build has. Nothing is ever substituted: a device that was asked for
//! by name and does not work is an error.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mlxt_backend::operations::Operations;
use mlxt_backend::{Arithmetic, Backend, DeviceInfo, Reference};
use mlxt_cpu::{Cpu, CpuOptions};
use mlxt_cuda::{Cuda, CudaDevice, CudaOptions};
use mlxt_mlx::{Installation, Kind, LoadError, Mlx, MlxOptions};
use mlxt_models::{Config, Task, Weights};

use crate::bare::{Bare, OperationDevice};
use crate::session::{EngineSession, Session};
use crate::{Error, Hub, Info, Precision, Result};

/// Where a model runs. Reads and prints as the command line spells it.
///
/// ```
/// use mlx_transformers::Device;
/// assert_eq!("mlx:gpu".parse::<Device>()?, Device::MlxGpu);
/// assert_eq!(Device::Cuda(1).to_string(), "cuda:1");
/// # Ok::<(), mlx_transformers::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// `auto`: the fastest that works here; [`Info::why`] says which and why.
    #[default]
    Auto,
    /// `cpu`: this project's own kernels, always there.
    Cpu,
    /// `mlx`: MLX on its default device.
    Mlx,
    /// `mlx:cpu`
    MlxCpu,
    /// `mlx:gpu`
    MlxGpu,
    /// `cuda:N`; `cuda` is `cuda:0`.
    Cuda(u32),
    /// `reference`: plain loops with 64-bit sums, one thread, very slow. What the others are checked against.
    Reference,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Mlx => f.write_str("mlx"),
            Self::MlxCpu => f.write_str("mlx:cpu"),
            Self::MlxGpu => f.write_str("mlx:gpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Reference => f.write_str("reference"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "mlx" => Self::Mlx,
            "mlx:cpu" => Self::MlxCpu,
            "mlx:gpu" => Self::MlxGpu,
            "cuda" => Self::Cuda(0),
            "reference" => Self::Reference,
            _ => {
                let number = s.strip_prefix("cuda:").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
                let number = number.and_then(|n| n.parse().ok());
                number.map(Self::Cuda).ok_or_else(|| Error::UnknownDevice { found: s.to_owned() })?
            }
        })
    }
}

/// Why a device cannot be used here, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {advice}")]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

/// One device and whether it works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: Device,
    /// What it runs on, or why it does not.
    pub state: Result<DeviceInfo, Unavailable>,
}

/// Every device this project knows, each with what it is here or why it cannot be used. Fastest first among the usable.
#[must_use]
pub fn devices() -> Vec<DeviceReport> {
    let report = |device, state| DeviceReport { device, state };
    let found = installation();
    let mlx = |kind| found.clone().and_then(|found| mlx(&found, kind, Precision::F32)).map(|backend| backend.info());
    vec![
        report(Device::Cuda(0), cuda(0, Precision::F32).map(|backend| backend.info())),
        report(Device::MlxGpu, mlx(Kind::Gpu)),
        report(Device::Cpu, cpu(None, Precision::default()).map(|b| b.info()).map_err(|e| cpu_failed(&e))),
        report(Device::MlxCpu, mlx(Kind::Cpu)),
    ]
}

/// Loads an encoder on `device`, with the head of a task if there is one.
///
/// # Errors
/// [`Error::DeviceUnavailable`] if the device does not work here, what loading refuses otherwise.
pub(crate) fn open(
    device: Device,
    threads: Option<usize>,
    precision: Precision,
    config: &Config,
    weights: &Weights,
    task: Option<Task>,
) -> Result<Box<dyn Session>> {
    start(device, threads, precision, Encoding { config, weights, task })
}

/// A device for single operations.
///
/// # Errors
/// [`Error::DeviceUnavailable`] if the device does not work here.
pub(crate) fn open_operations(device: Device, threads: Option<usize>) -> Result<Box<dyn OperationDevice>> {
    start(device, threads, Precision::F32, Computing)
}

/// What a backend is wanted for, whichever it is.
trait Purpose {
    type Made;

    fn make<B: Backend + Operations + 'static>(self, backend: B, info: Info) -> Result<Self::Made>;
}

/// A session of a model.
struct Encoding<'a> {
    config: &'a Config,
    weights: &'a Weights,
    task: Option<Task>,
}

impl Purpose for Encoding<'_> {
    type Made = Box<dyn Session>;

    fn make<B: Backend + Operations + 'static>(self, backend: B, info: Info) -> Result<Self::Made> {
        Ok(Box::new(EngineSession::load(backend, self.config, self.weights, info, self.task)?))
    }
}

/// Single operations.
struct Computing;

impl Purpose for Computing {
    type Made = Box<dyn OperationDevice>;

    fn make<B: Backend + Operations + 'static>(self, backend: B, _: Info) -> Result<Self::Made> {
        Ok(Box::new(Bare::new(backend)))
    }
}

/// Starts the backend of `device` for a purpose.
fn start<P: Purpose>(device: Device, threads: Option<usize>, precision: Precision, purpose: P) -> Result<P::Made> {
    let unavailable = |reason| Error::DeviceUnavailable { device, reason };
    let (asked, no_gpu) = ("asked for", "no GPU can be used");
    let on_cpu = |purpose: P, why| {
        let backend = cpu(threads, precision)?;
        let threads = backend.threads();
        make(purpose, backend, threads, precision, why)
    };
    match device {
        // On Linux MLX is not looked for: that takes longer than a short text on the CPU, and where it has a GPU our own
        // kernels have it too.
        Device::Auto if cfg!(target_os = "macos") => {
            match installation().and_then(|found| mlx(&found, Kind::Gpu, precision)) {
                Ok(backend) => make(purpose, backend, 1, precision, "Apple's GPU is the fastest device"),
                Err(_) => on_cpu(purpose, no_gpu),
            }
        }
        Device::Auto => match cuda(0, precision) {
            Ok(backend) => make(purpose, backend, 1, precision, "an NVIDIA GPU is the fastest device"),
            Err(_) => on_cpu(purpose, no_gpu),
        },
        Device::Cpu => on_cpu(purpose, asked),
        Device::Reference => make(purpose, Reference, 1, precision, asked),
        Device::MlxCpu | Device::MlxGpu => {
            let kind = if device == Device::MlxGpu { Kind::Gpu } else { Kind::Cpu };
            let backend = installation().and_then(|found| mlx(&found, kind, precision)).map_err(unavailable)?;
            make(purpose, backend, 1, precision, asked)
        }
        Device::Mlx => {
            let found = installation().map_err(unavailable)?;
            let gpu = mlx(&found, Kind::Gpu, precision);
            let why = if gpu.is_ok() { "MLX's default: its GPU" } else { "MLX's default without a GPU" };
            let backend = gpu.or_else(|_| mlx(&found, Kind::Cpu, precision)).map_err(unavailable)?;
            make(purpose, backend, 1, precision, why)
        }
        Device::Cuda(ordinal) => make(purpose, cuda(ordinal, precision).map_err(unavailable)?, 1, precision, asked),
    }
}

/// What a purpose makes of a backend that uses so many threads of the host.
fn make<P: Purpose, B: Backend + Operations + 'static>(
    purpose: P,
    backend: B,
    threads: usize,
    precision: Precision,
    why: &str,
) -> Result<P::Made> {
    let info = Info { device: backend.info(), precision, threads, why: why.to_owned() };
    purpose.make(backend, info)
}

fn cpu(threads: Option<usize>, precision: Precision) -> Result<Cpu> {
    let arithmetic = Cpu::arithmetic(precision);
    Ok(Cpu::new(CpuOptions { threads, arithmetic, ..CpuOptions::default() })?)
}

fn cpu_failed(error: &Error) -> Unavailable {
    Unavailable { reason: error.to_string(), advice: "report this with the machine's details".into() }
}

/// Where `mlxt setup mlx` puts MLX's package.
#[must_use]
pub fn mlx_folder() -> PathBuf {
    Hub::from_env().data.join("mlx")
}

/// The MLX to use. May start a `python3` to ask it for one.
fn installation() -> Result<Installation, Unavailable> {
    // The wheel's library and headers are in the package's folder, as they are for Python.
    Ok(mlxt_mlx::find(Some(&mlx_folder().join("mlx")))?)
}

fn mlx(installation: &Installation, kind: Kind, precision: Precision) -> Result<Mlx, Unavailable> {
    let arithmetic = match kind {
        // On the CPU MLX's products of 16 bits are plain loops.
        Kind::Cpu if precision != Precision::Tf32 => Arithmetic::F32,
        _ => arithmetic(precision),
    };
    let options = MlxOptions { kind, arithmetic, installation: Some(installation.clone()), ..MlxOptions::default() };
    Ok(mlxt_mlx::open(options)?)
}

impl From<LoadError> for Unavailable {
    fn from(error: LoadError) -> Self {
        Self { reason: error.to_string(), advice: error.advice().into() }
    }
}

fn cuda(ordinal: u32, precision: Precision) -> Result<Cuda, Unavailable> {
    let options = CudaOptions {
        ordinal: ordinal as usize,
        arithmetic: CudaDevice::arithmetic(precision),
        ..CudaOptions::default()
    };
    let device = CudaDevice::new(&options).map_err(|error| Unavailable {
        reason: error.to_string(),
        advice: "another device works meanwhile: --device cpu".into(),
    })?;
    Ok(Cuda::new(device))
}

/// What MLX computes in on a GPU where weights are of that precision.
fn arithmetic(precision: Precision) -> Arithmetic {
    match precision {
        Precision::Tf32 => Arithmetic::Tf32,
        Precision::F16 => Arithmetic::F16,
        Precision::Bf16 => Arithmetic::Bf16,
        Precision::F32 | Precision::Int8 | Precision::Q4 | Precision::Fp8 => Arithmetic::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_back_from_their_names() {
        use Device::{Auto, Cpu, Cuda, Mlx, MlxCpu, MlxGpu, Reference};
        for device in [Auto, Cpu, Mlx, MlxCpu, MlxGpu, Cuda(0), Cuda(7), Reference] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Cuda(0));
        for name in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:99999999999", "mlx:0", "cpu "] {
            assert!(matches!(name.parse::<Device>(), Err(Error::UnknownDevice { .. })), "{name:?}");
        }
    }

    #[test]
    fn every_device_is_reported_with_what_it_is_or_what_to_do() {
        let reports = devices();
        assert!(reports.iter().any(|r| r.device == Device::Cpu && r.state.is_ok()));
        for report in reports {
            match report.state {
                Ok(info) => assert_eq!(info.device, report.device.to_string()),
                Err(Unavailable { reason, advice }) => assert!(!reason.is_empty() && !advice.is_empty(), "{reason}"),
            }
        }
    }
}
