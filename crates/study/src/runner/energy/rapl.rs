//! Processor packages on Linux: the counters (RAPL) that Intel's and AMD's have, which need leave to be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the counters go on.
pub(super) const STEP: Duration = Duration::from_millis(1);

/// The counters of all packages.
#[derive(Debug)]
pub(super) struct Rapl {
    counters: Vec<Counter>,
    /// Microjoules so far.
    total: u64,
}

#[derive(Debug)]
struct Counter {
    file: PathBuf,
    /// Microjoules after which it begins again.
    range: u64,
    /// What it showed last.
    last: u64,
}

impl Rapl {
    /// The counters of this machine that can be read.
    pub(super) fn find() -> Option<Self> {
        Self::find_in(Path::new("/sys/class/powercap"))
    }

    fn find_in(folder: &Path) -> Option<Self> {
        let mut counters = Vec::new();
        for entry in fs::read_dir(folder).ok()?.flatten() {
            // `intel-rapl:0` is a package, also AMD's; `intel-rapl:0:1` a part of it.
            let name = entry.file_name();
            let package = name.to_str().and_then(|n| n.strip_prefix("intel-rapl:")).is_some_and(|n| !n.contains(':'));
            let file = entry.path().join("energy_uj");
            if let Some(last) = number(&file).filter(|_| package) {
                counters.push(Counter { range: number(&entry.path().join("max_energy_range_uj"))?, file, last });
            }
        }
        (!counters.is_empty()).then_some(Self { counters, total: 0 })
    }

    /// Joules since it was found. Between two calls a counter may begin again once, which takes it minutes.
    pub(super) fn joules(&mut self) -> Option<f64> {
        for counter in &mut self.counters {
            let now = number(&counter.file)?;
            let before = std::mem::replace(&mut counter.last, now);
            self.total += if now >= before { now - before } else { now + counter.range.saturating_sub(before) };
        }
        Some(self.total as f64 / 1e6)
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_once_and_through_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let show = |name: &str, energy: u64| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
            fs::write(path.join("max_energy_range_uj"), "1000\n").unwrap();
        };
        for (name, energy) in [("intel-rapl:0", 900), ("intel-rapl:1", 10), ("intel-rapl:0:0", 5), ("dtpm", 7)] {
            show(name, energy);
        }
        let mut rapl = Rapl::find_in(folder.path()).unwrap();
        assert_eq!(rapl.joules(), Some(0.0));
        show("intel-rapl:0", 100);
        show("intel-rapl:1", 30);
        assert!((rapl.joules().unwrap() - 220e-6).abs() < 1e-12);
        assert!(Rapl::find_in(&folder.path().join("none")).is_none());
    }
}
