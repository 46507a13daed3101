//! What the machine says of its CPU.

use std::thread;

use crate::MOST_THREADS;

/// How many threads the process may run at once, as far as they can be used.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
}

/// The CPU's own name, or its architecture where the system does not tell.
pub(crate) fn name() -> String {
    marketing_name().unwrap_or_else(|| std::env::consts::ARCH.into())
}

#[cfg(target_os = "linux")]
fn marketing_name() -> Option<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, name) = cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| {
        let key = key.trim();
        key == "model name" || key == "Model"
    })?;
    Some(name.trim().into())
}

#[cfg(target_os = "macos")]
fn marketing_name() -> Option<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "machdep.cpu.brand_string"]).output();
    let name = String::from_utf8(output.ok()?.stdout).ok()?;
    Some(name.trim().into()).filter(|name: &String| !name.is_empty())
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn marketing_name() -> Option<String> {
    None
}
