//! The run-time compiler.

use std::ffi::CString;
use std::ptr::null_mut;

use cudarc::nvrtc::{result, sys};
use mlxt_backend::Result;

use super::{failure, libraries};
use crate::sources::Header;

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

/// Machine code of CUDA C++ source, a file by its name and text, and of the headers that it may include.
///
/// # Errors
/// [`mlxt_backend::Error::Device`] with the compiler's log.
pub(crate) fn compile(name: &str, text: &str, headers: &[Header], options: &[String]) -> Result<Vec<u8>> {
    libraries::nvrtc(None)?;
    let failed = |e: result::NvrtcError| failure(format!("NVRTC: {e}"));
    let string = |text: &str| CString::new(text).map_err(|e| failure(e.to_string()));
    let (file, text) = (string(name)?, string(text)?);
    let included = headers.iter().map(|(name, text)| Ok((string(name)?, string(text)?))).collect::<Result<Vec<_>>>()?;
    let (names, texts): (Vec<_>, Vec<_>) = included.iter().map(|(name, text)| (name.as_ptr(), text.as_ptr())).unzip();
    let mut program = null_mut();
    // SAFETY: strings and the program are alive until the end of this function; lists are as long as is said; buffers have
    // the size the compiler asked for.
    unsafe {
        let (count, texts, names) = (headers.len() as i32, texts.as_ptr(), names.as_ptr());
        let created =
            sys::nvrtcCreateProgram(&raw mut program, text.as_ptr(), file.as_ptr(), count, texts, names).result();
        created.map_err(failed)?;
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
            Err(failure(format!("NVRTC could not compile {name}:\n{}", String::from_utf8_lossy(&log))))
        };
        let _ = result::destroy_program(program);
        code
    }
}
