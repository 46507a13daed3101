//! A device, its context and its streams: one that all work goes through, and one on which graphs are recorded.

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute};
use mlxt_backend::Result;

use super::{check, failure, libraries};

/// Where work is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Runs in the order it was put there.
    Work,
    /// Becomes part of the graph that is being recorded. A stream of its own, so that work and memory given back by other
    /// threads meanwhile do not end up in it.
    Record,
}

/// A device's primary context with streams of its own.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    streams: [sys::CUstream; 2],
    /// `8.0` is 80.
    pub(crate) capability: u32,
    /// Streaming multiprocessors.
    pub(crate) processors: usize,
    /// The CUDA version the driver has, `13.0` as 13000.
    pub(crate) driver: u32,
    /// The device's name.
    pub(crate) name: String,
    /// Bytes of memory.
    pub(crate) memory: usize,
}

// SAFETY: the driver's handles may be used from any thread on which the context is current (`bind`).
unsafe impl Send for Context {}
// SAFETY: as above; the driver orders concurrent calls itself.
unsafe impl Sync for Context {}

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    /// No driver, no such device, the driver's own.
    pub(crate) fn new(ordinal: usize) -> Result<Arc<Self>> {
        libraries::driver()?;
        // SAFETY: the driver is loaded and has these functions; all pointers are to locals of the right type.
        unsafe {
            if let Err(error) = check("cuInit", sys::cuInit(0)) {
                return Err(failure(format!("the NVIDIA driver shows no usable GPU: {error}")));
            }
            let (mut driver, mut count, mut device) = (0, 0, 0);
            check("cuDriverGetVersion", sys::cuDriverGetVersion(&raw mut driver))?;
            check("cuDeviceGetCount", sys::cuDeviceGetCount(&raw mut count))?;
            if ordinal >= count as usize {
                return Err(libraries::no_device(ordinal, count as usize));
            }
            check("cuDeviceGet", sys::cuDeviceGet(&raw mut device, ordinal as c_int))?;
            let attribute = |which: CUdevice_attribute| -> Result<u32> {
                let mut value = 0;
                check("cuDeviceGetAttribute", sys::cuDeviceGetAttribute(&raw mut value, which, device))?;
                Ok(value as u32)
            };
            let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let processors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
            let name = cudarc::driver::result::device::get_name(device).unwrap_or_default();
            let mut memory = 0;
            check("cuDeviceTotalMem", sys::cuDeviceTotalMem_v2(&raw mut memory, device))?;
            let mut handle = null_mut();
            check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&raw mut handle, device))?;
            let capability = 10 * major + minor;
            let (streams, driver) = ([null_mut(); 2], driver as u32);
            let mut this = Self { device, handle, streams, capability, processors, driver, name, memory };
            this.bind()?;
            let kind = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            for stream in &mut this.streams {
                check("cuStreamCreate", sys::cuStreamCreate(&raw mut *stream, kind))?;
            }
            this.keep_freed_memory()?;
            Ok(Arc::new(this))
        }
    }

    /// Memory given back stays with the process, so that nothing is asked of the system after the first batch of a size.
    fn keep_freed_memory(&self) -> Result<()> {
        let (mut pool, mut all) = (null_mut(), u64::MAX);
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is the device's own, the attribute is a u64.
        unsafe {
            check("cuDeviceGetDefaultMemPool", sys::cuDeviceGetDefaultMemPool(&raw mut pool, self.device))?;
            check("cuMemPoolSetAttribute", sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut all).cast()))
        }
    }

    /// Makes the context this thread's. Every entry from outside does so first.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained as long as this lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// The stream of a queue.
    pub(crate) fn stream(&self, queue: Queue) -> sys::CUstream {
        self.streams[queue as usize]
    }

    /// Waits for all work so far.
    pub(crate) fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream lives as long as this.
        check("waiting for the GPU", unsafe { sys::cuStreamSynchronize(self.stream(Queue::Work)) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created and retained in `new`, given back once. Nothing can be done about an error here.
        unsafe {
            if self.bind().is_ok() {
                for stream in self.streams.into_iter().filter(|stream| !stream.is_null()) {
                    let _ = sys::cuStreamDestroy_v2(stream);
                }
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// A moment in the stream.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<Context>,
    event: sys::CUevent,
}

// SAFETY: as for `Context`.
unsafe impl Send for Event {}
// SAFETY: as for `Context`.
unsafe impl Sync for Event {}

impl Event {
    /// An event that has not been recorded; waiting for it returns at once.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        Self::with(context, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// The same for one that only waits: it has no time for [`Event::since`], and recording it is cheaper.
    pub(crate) fn untimed(context: &Arc<Context>) -> Result<Self> {
        Self::with(context, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with(context: &Arc<Context>, flags: sys::CUevent_flags) -> Result<Self> {
        let mut event = null_mut();
        // SAFETY: the pointer is to a local.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut event, flags as u32) })?;
        Ok(Self { context: Arc::clone(context), event })
    }

    /// Marks the end of all work so far.
    pub(crate) fn record(&self) -> Result<()> {
        // SAFETY: event and stream are alive.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.event, self.context.stream(Queue::Work)) })
    }

    /// Waits for what was recorded.
    pub(crate) fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        check("waiting for the GPU", unsafe { sys::cuEventSynchronize(self.event) })
    }

    /// Milliseconds from one recorded event to this one.
    pub(crate) fn since(&self, start: &Self) -> Result<f32> {
        let mut milliseconds = 0.0;
        self.wait()?;
        // SAFETY: both events are alive and recorded, the pointer is to a local.
        let code = unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, start.event, self.event) };
        check("cuEventElapsedTime", code)?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: created in `new`, destroyed once.
            let _ = unsafe { sys::cuEventDestroy_v2(self.event) };
        }
    }
}
