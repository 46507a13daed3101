//! Loading libmlx and the bridge: once in a process and for good.

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};

#[cfg(unix)]
use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW, Symbol};
#[cfg(windows)]
use libloading::os::windows::{Library as Opened, Symbol};
use mlxt_backend::Error;

use super::table::{BRIDGE, Table};
use super::thread::Thread;
use super::{Library, blas, text};
use crate::error::OLDEST;
use crate::{Installation, LoadError, Variant, bridge};

/// `mlx::core::version()`, whose name is the same in every build.
const VERSION: &CStr = c"_ZN3mlx4core7versionEv";

/// The one that is loaded.
static LOADED: Mutex<Option<(PathBuf, Arc<Library>)>> = Mutex::new(None);

/// libmlx of that installation and the bridge to it; `cache` is where bridges are kept.
///
/// # Errors
/// As [`LoadError`].
pub(crate) fn library(installation: &Installation, cache: &Path) -> Result<Arc<Library>, LoadError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let path = installation.library();
    let same = path.canonicalize().unwrap_or(path);
    match &*loaded {
        Some((folder, library)) if *folder == same => return Ok(Arc::clone(library)),
        Some((folder, _)) => {
            return Err(LoadError::OtherLoaded { loaded: folder.clone(), asked: same });
        }
        None => {}
    }
    let library = Arc::new(open(installation, cache)?);
    *loaded = Some((same, Arc::clone(&library)));
    Ok(library)
}

/// Sees to it that MLX's thread rests before the process ends: what libmlx made by now is destroyed after that, in the order
/// in which it came, and an array freed meanwhile would be freed into nothing. To be called when a device has computed
/// something for the first time.
///
/// # Errors
/// The system takes no more functions to call at the end.
pub(crate) fn rest_at_exit(gpu: bool) -> Result<(), Error> {
    static REGISTERED: [Once; 2] = [Once::new(), Once::new()];
    let mut status = 0;
    // SAFETY: the function takes nothing and never unwinds.
    REGISTERED[usize::from(gpu)].call_once(|| status = unsafe { libc::atexit(rest) });
    let failed = || Error::Device { backend: "mlx", message: "the system takes no more functions for the end".into() };
    if status == 0 { Ok(()) } else { Err(failed()) }
}

extern "C" fn rest() {
    // Held elsewhere only while MLX is being loaded.
    if let Ok(loaded) = LOADED.try_lock()
        && let Some((_, library)) = &*loaded
    {
        library.thread.stop();
    }
}

fn open(installation: &Installation, cache: &Path) -> Result<Library, LoadError> {
    let path = installation.library();
    if installation.variant()? == Variant::Cuda {
        nvidia().map_err(|reason| LoadError::NoGpu { path: path.clone(), reason })?;
    }
    // Headers name the version before anything is loaded: what cannot work is not loaded at all.
    let named = installation.version().unwrap_or_default();
    new_enough(&path, &named)?;
    let file = bridge::bridge(installation, &named, cache)?;
    if cfg!(target_os = "linux") {
        // Before libmlx, which binds to what it finds first.
        let shim = opened(&bridge::blas(cache)?, Names::Global)?;
        // SAFETY: the function is this library's own, of this type.
        let choose: Symbol<unsafe extern "C" fn(blas::Sgemm)> = unsafe { symbol(&shim, c"mlxt_choose_sgemm")? };
        // SAFETY: it keeps the pointer, which is valid for good.
        unsafe { choose(blas::sgemm) };
        std::mem::forget(shim);
    }
    // Global, so that the bridge's open symbols are found in it.
    let mlx = opened(&path, Names::Global)?;
    // SAFETY: C++'s `const char *version()` is called as C's.
    let version: Symbol<unsafe extern "C" fn() -> *const c_char> = unsafe { symbol(&mlx, VERSION)? };
    // SAFETY: it takes nothing and gives a constant.
    let found = unsafe { text(version()) };
    std::mem::forget(mlx);
    new_enough(&path, &found)?;
    if found != named {
        return Err(LoadError::Version { built: named, found });
    }
    let bridge = opened(&file, Names::Own)?;
    // SAFETY: the bridge's only symbol, of this type.
    let getter: Symbol<unsafe extern "C" fn() -> *const Table> = unsafe { symbol(&bridge, c"mlxt_bridge")? };
    // SAFETY: it gives a constant of the library, which is never unloaded.
    let table: &'static Table = unsafe { &*getter() };
    std::mem::forget(bridge);
    // SAFETY: a constant text.
    let built = unsafe { text(table.built_for) };
    if table.bridge != BRIDGE || built != found {
        return Err(LoadError::Version { built, found });
    }
    Ok(Library { table, thread: Thread::start()? })
}

fn new_enough(path: &Path, version: &str) -> Result<(), LoadError> {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    if found < OLDEST {
        return Err(LoadError::TooOld { path: path.to_owned(), found: version.to_owned() });
    }
    Ok(())
}

/// Who finds a library's names.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// All that are loaded later.
    Global,
    /// Whoever asks for them of it.
    Own,
}

fn opened(path: &Path, names: Names) -> Result<Opened, LoadError> {
    // SAFETY: libmlx, the bridge and the stand-in BLAS may be initialised on any thread; none is ever unloaded.
    let library = unsafe { open_as(path, names) };
    library.map_err(|error| LoadError::Library { path: path.to_owned(), message: error.to_string() })
}

#[cfg(unix)]
unsafe fn open_as(path: &Path, names: Names) -> Result<Opened, libloading::Error> {
    let visible = match names {
        Names::Global => RTLD_GLOBAL,
        Names::Own => RTLD_LOCAL,
    };
    // SAFETY: the caller's promise.
    unsafe { Opened::open(Some(path), RTLD_NOW | visible) }
}

/// There is no MLX for it, and names are found in the libraries that are named with them.
#[cfg(windows)]
unsafe fn open_as(path: &Path, _names: Names) -> Result<Opened, libloading::Error> {
    // SAFETY: the caller's promise.
    unsafe { Opened::new(path) }
}

/// # Safety
/// The symbol is a function of type `T`.
unsafe fn symbol<T>(library: &Opened, name: &CStr) -> Result<Symbol<T>, LoadError> {
    // SAFETY: as the caller says.
    let found = unsafe { library.get(name.to_bytes_with_nul()) };
    let failed = |error: libloading::Error| {
        let path = name.to_string_lossy().into_owned().into();
        LoadError::Library { path, message: error.to_string() }
    };
    found.map_err(failed)
}

/// Whether libmlx is a CUDA build: those name NVIDIA's libraries among what they need.
pub(crate) fn needs_nvidia(path: &Path) -> Result<bool, LoadError> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| LoadError::Library { path: path.to_owned(), message: error.to_string() };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (name, mut kept) = (b"libcublas", Vec::new());
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block).map_err(failed)?;
        if read == 0 {
            return Ok(false);
        }
        // A name may lie across the border of two blocks.
        kept.extend_from_slice(&block[..read]);
        if kept.windows(name.len()).any(|window| window == name) {
            return Ok(true);
        }
        kept.drain(..kept.len().saturating_sub(name.len() - 1));
    }
}

/// Whether NVIDIA's driver is there and has a device.
fn nvidia() -> Result<(), String> {
    // SAFETY: the driver's library is made to be loaded at run time, by its own name.
    let driver = unsafe { open_as(Path::new("libcuda.so.1"), Names::Own) };
    let driver = driver.map_err(|_| "no driver".to_owned())?;
    // SAFETY: declared in cuda.h as `CUresult cuInit(unsigned int)`.
    let init: Symbol<unsafe extern "C" fn(u32) -> c_int> =
        unsafe { driver.get(b"cuInit\0") }.map_err(|e| e.to_string())?;
    // SAFETY: declared in cuda.h as `CUresult cuDeviceGetCount(int *)`.
    let count: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
        unsafe { driver.get(b"cuDeviceGetCount\0") }.map_err(|e| e.to_string())?;
    let mut devices = 0;
    // SAFETY: 0 is the only flag there is, and there is room for the number.
    let status = unsafe { [init(0), count(&raw mut devices)] };
    std::mem::forget(driver);
    match (status, devices) {
        ([0, 0], 1..) => Ok(()),
        ([0, 0], _) => Err("the driver counts no device".into()),
        ([status, _], _) => Err(format!("the driver's error {status}")),
    }
}
