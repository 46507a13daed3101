//! Compiled kernels, and how they are started.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::{from_ref, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;
use mlxt_backend::Result;

use super::context::{Context, Queue};
use super::{check, failure};

/// Machine code on a device.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: as for `Context`.
unsafe impl Send for Module {}
// SAFETY: as for `Context`.
unsafe impl Sync for Module {}

/// Kernels by their names, whichever module they are in.
#[derive(Debug, Default)]
pub(crate) struct Kernels {
    modules: Vec<Module>,
    /// In which module each is.
    places: HashMap<String, usize>,
    /// See [`Kernels::in_a_row`].
    in_a_row: bool,
    /// Those that have been asked for.
    functions: Mutex<HashMap<&'static str, Function>>,
}

/// A kernel. It belongs to [`Kernels`], which live as long as the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Function(sys::CUfunction);

#[cfg(test)]
impl Function {
    /// One that cannot be started.
    pub(crate) fn none() -> Self {
        Self(null_mut())
    }
}

// SAFETY: a handle that is only passed to the driver.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// How a kernel is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Blocks in x, y and z.
    pub(crate) grid: [usize; 3],
    /// Threads of a block.
    pub(crate) threads: usize,
    /// Bytes of shared memory beyond what the kernel has by itself.
    pub(crate) shared: usize,
}

impl Module {
    /// Loads machine code.
    ///
    /// # Errors
    /// What the driver refuses: code for another device, damaged code.
    pub(crate) fn new(context: &Arc<Context>, code: &[u8]) -> Result<Self> {
        let mut handle = null_mut();
        // SAFETY: the driver checks the image, and copies it.
        check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut handle, code.as_ptr().cast()) })?;
        Ok(Self { context: Arc::clone(context), handle })
    }
}

impl Kernels {
    /// Adds a module that has kernels of these names.
    pub(crate) fn add(&mut self, module: Module, names: Vec<String>) {
        self.places.extend(names.into_iter().map(|name| (name, self.modules.len())));
        self.modules.push(module);
    }

    /// For kernels that run one behind the other. A processor divides its memory between cache and blocks anew only when it
    /// is empty: with one division for all of them the next one's blocks begin beside those that are there, which is 4 % of
    /// a forward at 224 rows. Kernels that run alone are better off with what the driver takes for each.
    pub(crate) fn in_a_row(mut self) -> Self {
        self.in_a_row = true;
        self
    }

    /// A kernel by its name; `shared` is the most shared memory it will be given.
    ///
    /// # Errors
    /// No kernel of that name, more shared memory than the device has.
    pub(crate) fn function(&self, name: &'static str, shared: usize) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(*function);
        }
        let module = self.places.get(name).and_then(|&place| self.modules.get(place));
        let module = module.ok_or_else(|| failure(format!("this device has no kernel {name}")))?;
        let mut function = null_mut();
        let symbol = CString::new(name).map_err(|e| failure(e.to_string()))?;
        // SAFETY: the module is loaded; pointers are to locals.
        unsafe {
            check(name, sys::cuModuleGetFunction(&raw mut function, module.handle, symbol.as_ptr()))?;
            if self.in_a_row {
                let share = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
                check(name, sys::cuFuncSetAttribute(function, share, 100))?;
            }
            if shared > 0 {
                let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                check(name, sys::cuFuncSetAttribute(function, most, shared as i32))?;
            }
        }
        functions.insert(name, Function(function));
        Ok(Function(function))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: loaded in `new`, unloaded once; nothing runs of it, since whoever holds functions holds this.
            let _ = unsafe { sys::cuModuleUnload(self.handle) };
        }
    }
}

/// Starts a kernel with one operand, a structure as the kernel declares it. Where the device can, it begins while the
/// kernel in front still runs: see `wait_for_previous` in `common.cuh`.
///
/// # Errors
/// The driver's own.
///
/// # Safety
/// `operands` is what the kernel takes, and every address in it is valid for what the kernel does with it.
pub(crate) unsafe fn launch<P: Copy>(
    to: (&Context, Queue),
    function: Function,
    shape: Shape,
    operands: &P,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { launch_in_clusters(to, function, shape, 1, operands) }
}

/// As [`launch`], with so many neighbours in z as one cluster: blocks that run at the same time and share their memory. One
/// is none; more are Hopper's and newer.
///
/// # Errors
/// The driver's own: a grid that clusters do not divide among them.
///
/// # Safety
/// As for [`launch`].
pub(crate) unsafe fn launch_in_clusters<P: Copy>(
    (context, queue): (&Context, Queue),
    function: Function,
    shape: Shape,
    cluster: usize,
    operands: &P,
) -> Result<()> {
    let mut attributes = [
        sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        },
        sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: 1, y: 1, z: cluster as u32 },
            },
        },
    ];
    let [x, y, z] = shape.grid.map(|n| n as u32);
    let config = sys::CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: shape.threads as u32,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shape.shared as u32,
        hStream: context.stream(queue),
        attrs: attributes.as_mut_ptr(),
        numAttrs: u32::from(context.capability >= 90) + u32::from(cluster > 1),
    };
    let mut pointers: [*mut c_void; 1] = [from_ref(operands).cast_mut().cast()];
    // SAFETY: the caller's promise; the operands are copied before this returns.
    let code = unsafe { sys::cuLaunchKernelEx(&raw const config, function.0, pointers.as_mut_ptr(), null_mut()) };
    check("cuLaunchKernelEx", code)
}
