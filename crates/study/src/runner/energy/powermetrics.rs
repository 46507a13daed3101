//! A Mac with Apple silicon: CPU, GPU and neural engine together, as its `powermetrics` says several times a second. That
//! needs root, or `sudo` without a password.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How often it says something.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// How long to wait for what it says first.
const PATIENCE: Duration = Duration::from_secs(3);

/// The running program.
pub(super) struct PowerMetrics {
    child: Child,
    samples: Receiver<Sample>,
    /// Of all samples so far.
    joules: f64,
    /// The power of the last one, and when it ended.
    last: (f64, Instant),
}

/// Power over a time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    watts: f64,
    seconds: f64,
}

impl PowerMetrics {
    /// Starts it, where there is one that runs.
    pub(super) fn find() -> Option<Self> {
        if !cfg!(target_os = "macos") {
            return None;
        }
        let step = STEP.as_millis().to_string();
        let arguments = ["powermetrics", "--samplers", "cpu_power", "-i", step.as_str()];
        Self::start(Command::new(arguments[0]).args(&arguments[1..]))
            .or_else(|| Self::start(Command::new("sudo").arg("-n").args(arguments)))
    }

    fn start(command: &mut Command) -> Option<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let said = child.stdout.take()?;
        let (sender, samples) = mpsc::channel();
        // Dropping it ends what does not say anything.
        let mut found = Self { child, samples, joules: 0.0, last: (0.0, Instant::now()) };
        thread::Builder::new().spawn(move || read(said, |sample| sender.send(sample).is_ok())).ok()?;
        found.last = (found.samples.recv_timeout(PATIENCE).ok()?.watts, Instant::now());
        Some(found)
    }

    /// Joules since it was found; the time since its last sample is counted at that one's power.
    pub(super) fn joules(&mut self) -> f64 {
        for Sample { watts, seconds } in self.samples.try_iter() {
            self.joules += watts * seconds;
            self.last = (watts, Instant::now());
        }
        let (watts, at) = self.last;
        self.joules + watts * at.elapsed().min(2 * STEP).as_secs_f64()
    }
}

impl Drop for PowerMetrics {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes samples on as they come, until that fails or there are no more.
fn read(said: impl Read, mut pass: impl FnMut(Sample) -> bool) {
    let mut seconds = 0.0;
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        if let Some(elapsed) = line.strip_suffix("ms elapsed) ***").and_then(|line| line.rsplit('(').next()) {
            seconds = elapsed.parse().map_or(0.0, |milliseconds: f64| milliseconds / 1e3);
        } else if let Some(power) = line.strip_prefix("Combined Power (CPU + GPU + ANE):") {
            let watts = power.trim().strip_suffix("mW").and_then(|power| power.trim().parse().ok());
            let Some(watts) = watts.map(|milliwatts: f64| milliwatts / 1e3) else { continue };
            if !pass(Sample { watts, seconds }) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Machine model: Mac14,2\n\n\
        *** Sampled system activity (Sun Nov 22 10:00:00 2026 +0000) (104.50ms elapsed) ***\n\n\
        CPU Power: 900 mW\nGPU Power: 100 mW\nANE Power: 0 mW\nCombined Power (CPU + GPU + ANE): 1000 mW\n\n\
        *** Sampled system activity (Sun Nov 22 10:00:00 2026 +0000) (100.00ms elapsed) ***\n\n\
        Combined Power (CPU + GPU + ANE): none\nCombined Power (CPU + GPU + ANE): 5500 mW\n";

    #[test]
    fn samples_are_read_as_they_are_said() {
        let mut found = Vec::new();
        read(SAID.as_bytes(), |sample| {
            found.push(sample);
            true
        });
        assert_eq!(found, [Sample { watts: 1.0, seconds: 0.1045 }, Sample { watts: 5.5, seconds: 0.1 }]);
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_says_nothing_is_no_meter() {
        assert!(PowerMetrics::start(&mut Command::new("/nonexistent")).is_none());
        assert!(PowerMetrics::start(&mut Command::new("false")).is_none());
        let mut meter = PowerMetrics::start(Command::new("printf").arg(SAID)).unwrap();
        // The second sample may not have come yet at the first call.
        let end = Instant::now() + PATIENCE;
        while meter.joules < 0.55 && Instant::now() < end {
            meter.joules();
        }
        assert!((meter.joules - 0.55).abs() < 1e-9);
    }
}
