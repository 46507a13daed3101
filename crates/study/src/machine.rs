//! What the machine says of itself, for the head of a record. Nothing that tells whose it is: no host name, user or path.

use std::fs;
use std::process::Command;

use crate::record::Machine;

/// This machine. What the system does not tell is left out.
pub fn machine() -> Machine {
    let cpu = cpu().unwrap_or_else(|| std::env::consts::ARCH.into());
    let gpus = gpus();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let name = std::iter::once(cpu.clone()).chain(gpus.iter().cloned());
    Machine {
        name: name.collect::<Vec<_>>().join("; "),
        system: system(),
        cpu,
        threads,
        memory: memory(),
        gpus,
        governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load: load(),
    }
}

/// Bytes of memory that could be used now, where the system tells.
pub fn available_memory() -> Option<u64> {
    meminfo("MemAvailable:")
}

/// Seconds since 1970 as `2026-11-22T20:15:00Z`.
pub fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that the leap day is a year's last.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn cpu() -> Option<String> {
    if cfg!(target_os = "macos") {
        return said("/usr/sbin/sysctl", &["-n", "machdep.cpu.brand_string"]);
    }
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, name) = fields.find(|(key, _)| matches!(key.trim(), "model name" | "Model"))?;
    Some(name.trim().into())
}

fn system() -> String {
    let name = std::env::consts::OS;
    let version = if cfg!(target_os = "macos") {
        said("/usr/bin/sw_vers", &["-productVersion"])
    } else {
        first_line("/proc/sys/kernel/osrelease")
    };
    [Some(name.to_owned()), version, Some(std::env::consts::ARCH.into())]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

fn memory() -> Option<u64> {
    if cfg!(target_os = "macos") {
        return said("/usr/sbin/sysctl", &["-n", "hw.memsize"])?.parse().ok();
    }
    meminfo("MemTotal:")
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn load() -> Option<f64> {
    first_line("/proc/loadavg")?.split_whitespace().next()?.parse().ok()
}

fn gpus() -> Vec<String> {
    let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
    let lines = said("nvidia-smi", &query).unwrap_or_default();
    lines.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @N`
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), date);
        }
    }

    #[test]
    fn the_machine_tells_what_it_is_and_not_whose() {
        let machine = machine();
        assert!(machine.threads > 0 && !machine.cpu.is_empty() && !machine.system.is_empty());
        let text = format!("{machine:?}");
        for secret in [std::env::var("HOME"), std::env::var("USER"), std::env::var("HOSTNAME")].into_iter().flatten() {
            assert!(secret.len() < 4 || !text.contains(&secret), "{text}");
        }
    }
}
