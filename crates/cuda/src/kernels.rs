//! The kernels, compiled for a device when it is opened: `sources.rs` says of what. Parts of the source are compiled side by
//! side, kept in the cache each by itself, and loaded together.

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use mlxt_backend::{Arithmetic, Result};

use crate::cache::{Cache, key};
use crate::ffi;
use crate::ffi::context::Context;
use crate::ffi::module::{Kernels, Module};
use crate::ffi::{libraries, nvrtc};
use crate::operand::Operand;
use crate::sources::{EIGHT_BITS, FORWARDS, File, Header, OPERATIONS, Sources};

/// The stack of a thread that compiles: as much as a program's first one has.
const STACK: usize = 8 << 20;

/// What the study's operations compute in.
const OPERATIONS_IN: (Arithmetic, Operand) = (Arithmetic::F32, Operand::Kept);

/// Source that becomes one piece of machine code.
#[derive(Debug)]
struct Part {
    headers: &'static [Header],
    file: &'static File,
    /// What the compiler is told.
    options: Vec<String>,
}

impl Part {
    /// All parts of some sources.
    fn all(sources: &Sources, (arithmetic, operand): (Arithmetic, Operand), capability: u32) -> Vec<Self> {
        let element = match arithmetic {
            Arithmetic::F32 | Arithmetic::Tf32 => 32,
            Arithmetic::F16 => 16,
            Arithmetic::Bf16 => 17,
        };
        // Instructions of Hopper and Blackwell that no later chip has need the name with an `a`.
        let own = if capability >= 90 { "a" } else { "" };
        let options = |part| {
            let numbers = operand.definition().map(str::to_owned);
            let all = [
                format!("--gpu-architecture=sm_{capability}{own}"),
                format!("-DELEMENT={element}"),
                format!("-DPART={part}"),
                "--std=c++17".to_owned(),
                // Lambdas are functions of the device.
                "--device-as-default-execution-space".to_owned(),
            ];
            all.into_iter().chain(numbers).collect()
        };
        let parts = |file: &'static File| {
            (0..file.parts).map(move |part| Self { headers: sources.headers, file, options: options(part) })
        };
        sources.files.iter().flat_map(parts).collect()
    }

    fn compile(&self) -> Result<Vec<u8>> {
        nvrtc::compile(self.file.name, self.file.text, self.headers, &self.options)
    }

    /// Its name in the cache: all that its code depends on.
    fn entry(&self, (major, minor): (u32, u32)) -> String {
        let compiler = format!("NVRTC {major}.{minor}");
        let mut parts = vec![&*compiler, self.file.text];
        parts.extend(self.options.iter().map(String::as_str));
        parts.extend(self.headers.iter().map(|(_, text)| *text));
        format!("{}.cubin", key(&parts))
    }
}

/// Machine code of the kernels for a compute capability (8.9 is 89), by the NVRTC in `folder` or wherever there is one.
///
/// # Errors
/// NVRTC is missing or refuses them.
pub fn compile(arithmetic: Arithmetic, capability: u32, folder: Option<&Path>) -> Result<Vec<Vec<u8>>> {
    libraries::nvrtc(folder)?;
    side_by_side(&Part::all(&FORWARDS, (arithmetic, Operand::Kept), capability), Part::compile)
}

/// As [`compile`], for the kernels that multiply weights of 8 bits in activations of [`Arithmetic::F16`]: `int8`, or else `fp8`.
///
/// # Errors
/// As [`compile`].
pub fn compile_8_bits(integers: bool, capability: u32, folder: Option<&Path>) -> Result<Vec<Vec<u8>>> {
    libraries::nvrtc(folder)?;
    let operand = if integers { Operand::Int8 } else { Operand::Fp8 };
    side_by_side(&Part::all(&EIGHT_BITS, (Arithmetic::F16, operand), capability), Part::compile)
}

/// As [`compile`], for the kernels of the study's operations.
///
/// # Errors
/// As [`compile`].
pub fn compile_operations(capability: u32, folder: Option<&Path>) -> Result<Vec<Vec<u8>>> {
    libraries::nvrtc(folder)?;
    side_by_side(&Part::all(&OPERATIONS, OPERATIONS_IN, capability), Part::compile)
}

/// The kernels in machine code: the code of each is a section of its own, called `.text.` and its name.
#[must_use]
pub fn names(code: &[u8]) -> Vec<String> {
    const SECTION: &[u8] = b".text.";
    let mut names = Vec::new();
    for (at, _) in code.windows(SECTION.len()).enumerate().filter(|(_, bytes)| *bytes == SECTION) {
        let name = code[at + SECTION.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        // Sections of what belongs to the code are called after it.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What stands for the kernels of forwards as they are written and compiled: another where any of that is another.
///
/// # Errors
/// NVRTC is missing.
pub(crate) fn fingerprint() -> Result<String> {
    let (major, minor) = nvrtc::version()?;
    let compiler = format!("NVRTC {major}.{minor}");
    let files = [&FORWARDS, &EIGHT_BITS].into_iter().flat_map(|sources| sources.files).map(|file| file.text);
    let headers = FORWARDS.headers.iter().map(|(_, text)| *text);
    Ok(key(&[&*compiler].into_iter().chain(headers).chain(files).collect::<Vec<_>>()))
}

/// The kernels of forwards on a device, from the cache where they are in it: all, or where numbers of 8 bits are multiplied those
/// that differ.
///
/// # Errors
/// NVRTC is missing, or newer than the driver.
pub(crate) fn load(context: &Arc<Context>, numbers: (Arithmetic, Operand), cache: &Cache) -> Result<Kernels> {
    let sources = if numbers.1 == Operand::Kept { &FORWARDS } else { &EIGHT_BITS };
    Ok(load_sources(context, sources, numbers, cache)?.in_a_row())
}

/// As [`load`], those of the study's operations.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_operations(context: &Arc<Context>, cache: &Cache) -> Result<Kernels> {
    load_sources(context, &OPERATIONS, OPERATIONS_IN, cache)
}

fn load_sources(
    context: &Arc<Context>,
    sources: &Sources,
    numbers: (Arithmetic, Operand),
    cache: &Cache,
) -> Result<Kernels> {
    let version = nvrtc::version()?;
    let (major, minor) = version;
    let driver = context.driver;
    if major > driver / 1000 {
        return Err(ffi::failure(format!(
            "NVRTC {major}.{minor} is newer than the driver, which knows CUDA {}.{}: update the driver, or install NVRTC {}",
            driver / 1000,
            driver % 1000 / 10,
            driver / 1000
        )));
    }
    let parts = Part::all(sources, numbers, context.capability);
    let get = |part: &Part| cache.get(&part.entry(version), || part.compile());
    let codes = side_by_side(&parts, get)?;
    let mut kernels = Kernels::default();
    for (part, code) in parts.iter().zip(codes) {
        let names = names(&code);
        if names.is_empty() {
            continue;
        }
        let module = Module::new(context, &code).or_else(|_| {
            cache.forget(&part.entry(version));
            Module::new(context, &get(part)?)
        });
        kernels.add(module?, names);
    }
    Ok(kernels)
}

/// The code of each part, by as many threads as the machine has for them.
fn side_by_side(parts: &[Part], code: impl Fn(&Part) -> Result<Vec<u8>> + Sync) -> Result<Vec<Vec<u8>>> {
    let (next, codes) = (AtomicUsize::new(0), parts.iter().map(|_| OnceLock::new()).collect::<Vec<_>>());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(part), Some(place)) = (parts.get(at), codes.get(at)) else { return };
            place.get_or_init(|| code(part));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(parts.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where there can be no thread, the others do its work.
            let _ = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        }
        work();
    });
    let missing = || Err(ffi::failure("kernels were not compiled".to_owned()));
    codes.into_iter().map(|code| code.into_inner().unwrap_or_else(missing)).collect()
}
