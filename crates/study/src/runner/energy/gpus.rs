//! NVIDIA GPUs, which count their energy themselves: through NVML, a part of the driver.

use std::env;
use std::time::Duration;

use nvml_wrapper::Nvml;

/// How often a GPU's counter goes on.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// The driver's view of them.
pub(super) struct Gpus {
    nvml: Nvml,
    /// `CUDA_VISIBLE_DEVICES`: the GPUs that engines see, in their order.
    visible: Option<Vec<String>>,
}

impl Gpus {
    pub(super) fn find() -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let visible = env::var("CUDA_VISIBLE_DEVICES").ok().filter(|list| !list.is_empty());
        let visible = visible.map(|list| list.split(',').map(|name| name.trim().to_owned()).collect());
        Some(Self { nvml, visible })
    }

    /// The joules that a GPU counted since its driver was loaded, by the number that engines know it by.
    pub(super) fn joules(&self, number: usize) -> Option<f64> {
        let name = match &self.visible {
            Some(visible) => visible.get(number)?.clone(),
            None => number.to_string(),
        };
        let device = match name.parse() {
            Ok(index) => self.nvml.device_by_index(index),
            Err(_) => self.nvml.device_by_uuid(name),
        };
        let millijoules = device.ok()?.total_energy_consumption().ok()?;
        Some(millijoules as f64 / 1e3)
    }
}
