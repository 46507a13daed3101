//! The energy that a run took, where the machine tells: processor packages on Linux (`rapl.rs`), NVIDIA GPUs
//! (`gpus.rs`), a Mac as a whole (`powermetrics.rs`).

mod gpus;
mod powermetrics;
mod rapl;

use std::time::Duration;

use self::gpus::Gpus;
use self::powermetrics::PowerMetrics;
use self::rapl::Rapl;

/// A meter goes on in steps: a run has to last so many of them to be measured.
const STEPS: u32 = 5;

/// The meters of this machine.
pub(super) struct Meters {
    rapl: Option<Rapl>,
    mac: Option<PowerMetrics>,
    gpus: Option<Gpus>,
}

/// What a meter showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Joules since some moment.
    joules: f64,
    /// How often the meter goes on.
    step: Duration,
}

impl Meters {
    /// Those that can be read.
    pub(super) fn find() -> Self {
        Self { rapl: Rapl::find(), mac: PowerMetrics::find(), gpus: Gpus::find() }
    }

    /// What the meter shows that counts what runs on `device`: the GPU's own for an NVIDIA GPU, else the processors'.
    pub(super) fn read(&mut self, device: &str) -> Option<Reading> {
        let (joules, step) = match (gpu(device), &mut self.gpus, &mut self.rapl, &mut self.mac) {
            (Some(number), Some(gpus), ..) => (gpus.joules(number)?, gpus::STEP),
            // Packages do not count a GPU beside them.
            (None, _, Some(rapl), _) => (rapl.joules()?, rapl::STEP),
            (_, _, _, Some(mac)) => (mac.joules(), powermetrics::STEP),
            _ => return None,
        };
        Some(Reading { joules, step })
    }
}

impl Reading {
    /// Joules until `later`, if that was long enough to tell.
    pub(super) fn until(self, later: Self, took: Duration) -> Option<f64> {
        (took >= later.step * STEPS).then_some(later.joules - self.joules)
    }
}

/// The number of the GPU that a device's name stands for.
fn gpu(device: &str) -> Option<usize> {
    match device.split_once(':') {
        Some(("cuda", number)) => number.parse().ok(),
        None if device == "cuda" => Some(0),
        Some((_, "gpu")) => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        let devices = ["cpu", "mlx:cpu", "cuda", "cuda:2", "mlx:gpu", "mps", "reference", "cuda:x"];
        let found = devices.map(gpu);
        assert_eq!(found, [None, None, Some(0), Some(2), Some(0), None, None, None]);
    }

    #[test]
    fn runs_shorter_than_a_meters_step_have_no_energy() {
        let at = |joules| Reading { joules, step: Duration::from_millis(100) };
        assert_eq!(at(3.0).until(at(7.5), Duration::from_millis(500)), Some(4.5));
        assert_eq!(at(3.0).until(at(3.0), Duration::from_millis(499)), None);
    }
}
