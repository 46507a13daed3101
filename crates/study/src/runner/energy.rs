//! The energy the processors took, where Linux tells (Intel's and AMD's RAPL counters, which need leave to be read).

use std::fs;
use std::path::{Path, PathBuf};

/// The counters of all packages.
#[derive(Debug)]
pub(super) struct Meter {
    counters: Vec<Counter>,
}

#[derive(Debug)]
struct Counter {
    file: PathBuf,
    /// Microjoules after which it begins again.
    range: u64,
}

impl Meter {
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
            if package && number(&file).is_some() {
                counters.push(Counter { file, range: number(&entry.path().join("max_energy_range_uj"))? });
            }
        }
        (!counters.is_empty()).then_some(Self { counters })
    }

    /// What the counters show now, in microjoules.
    pub(super) fn read(&self) -> Option<Vec<u64>> {
        self.counters.iter().map(|counter| number(&counter.file)).collect()
    }

    /// Joules between two readings, at most one round of a counter apart.
    pub(super) fn between(&self, before: Vec<u64>, after: Vec<u64>) -> f64 {
        let ranges = self.counters.iter().map(|counter| counter.range);
        let each = before.into_iter().zip(after).zip(ranges);
        let micro: u64 = each.map(|((b, a), range)| if a >= b { a - b } else { a + range.saturating_sub(b) }).sum();
        micro as f64 / 1e6
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
        for (name, energy) in [("intel-rapl:0", 900), ("intel-rapl:1", 10), ("intel-rapl:0:0", 5), ("dtpm", 7)] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
            fs::write(path.join("max_energy_range_uj"), "1000\n").unwrap();
        }
        let meter = Meter::find_in(folder.path()).unwrap();
        let mut read = meter.read().unwrap();
        read.sort_unstable();
        assert_eq!(read, [10, 900]);
        assert!((meter.between(vec![900, 10], vec![100, 30]) - 220e-6).abs() < 1e-12);
        assert!(Meter::find_in(&folder.path().join("none")).is_none());
    }
}
