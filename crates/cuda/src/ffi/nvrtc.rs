//! The run-time compiler.

use std::ffi::CString;

use cudarc::nvrtc::{result, sys};
use mlxt_backend::Result;

use super::{failure, libraries};

/// Its version, major and minor.
///
/// # Errors
/// It is not there.
pub(crate) fn version() -> Result<(u32, u32)> {
    libraries::nvrtc(None)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is loaded; pointers are to locals.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().map_err(|e| failure(e.to_string()))?;
    Ok((major as u32, minor as u32))
}

/// Machine code of CUDA C++ source.
///
/// # Errors
/// [`mlxt_backend::Error::Device`] with the compiler's log.
pub(crate) fn compile(source: &str, options: &[String]) -> Result<Vec<u8>> {
    libraries::nvrtc(None)?;
    let failed = |e: result::NvrtcError| failure(format!("NVRTC: {e}"));
    let source = CString::new(source).map_err(|e| failure(e.to_string()))?;
    let program = result::create_program(&source, Some(c"kernels.cu")).map_err(failed)?;
    // SAFETY: the program is alive until the end of this function; buffers have the size the compiler asked for.
    unsafe {
        let compiled = result::compile_program(program, options);
        let code = if compiled.is_ok() {
            let mut bytes = 0;
            let asked = sys::nvrtcGetCUBINSize(program, &raw mut bytes).result();
            let mut code = vec![0_u8; bytes];
            asked
                .and_then(|()| sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result())
                .map_err(failed)
                .map(|()| code)
        } else {
            let log = result::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
            Err(failure(format!("NVRTC could not compile the kernels:\n{}", String::from_utf8_lossy(&log))))
        };
        let _ = result::destroy_program(program);
        code
    }
}
