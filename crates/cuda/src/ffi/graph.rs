//! Work recorded once and started as a whole.

use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys;
use mlxt_backend::Result;

use super::check;
use super::context::{Context, Queue};

/// A recorded sequence of kernels and copies.
#[derive(Debug)]
pub(crate) struct Graph {
    context: Arc<Context>,
    executable: sys::CUgraphExec,
}

// SAFETY: as for `Context`; launches are ordered by whoever holds the program.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl Graph {
    /// Records what `work` puts into [`Queue::Record`]; nothing of it runs yet. One at a time: the caller sees to that.
    ///
    /// # Errors
    /// Those of `work`; the driver's own.
    pub(crate) fn record(context: &Arc<Context>, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let (mut graph, mut executable) = (null_mut(), null_mut());
        // SAFETY: the stream is alive, pointers are to locals; a graph that was made is destroyed once.
        unsafe {
            check("cuStreamBeginCapture", sys::cuStreamBeginCapture_v2(context.stream(Queue::Record), mode))?;
            let done = work();
            let ended =
                check("cuStreamEndCapture", sys::cuStreamEndCapture(context.stream(Queue::Record), &raw mut graph));
            let made = done.and(ended).and_then(|()| {
                check("cuGraphInstantiate", sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0))
            });
            if !graph.is_null() {
                let _ = sys::cuGraphDestroy(graph);
            }
            made?;
            let this = Self { context: Arc::clone(context), executable };
            check("cuGraphUpload", sys::cuGraphUpload(executable, context.stream(Queue::Work)))?;
            Ok(this)
        }
    }

    /// Starts all of it.
    ///
    /// # Safety
    /// Everything it was recorded with is still there.
    pub(crate) unsafe fn launch(&self) -> Result<()> {
        // SAFETY: the graph is alive; the rest is the caller's promise.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.executable, self.context.stream(Queue::Work)) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: instantiated in `record`, destroyed once; the driver keeps it while it runs.
            let _ = unsafe { sys::cuGraphExecDestroy(self.executable) };
        }
    }
}
