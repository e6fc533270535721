//! What a worker knows of its host without libtorch.

use std::{fs, path::Path};

/// Name of this host.
pub fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// Memory that a new process could take, in bytes: what the kernel calls available, within this control group's limit.
pub fn free_memory_bytes() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let available = available_bytes(&read("/proc/meminfo"));
    let limit = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
    let used = read("/sys/fs/cgroup/memory.current").trim().parse::<u64>().unwrap_or(0);
    limit.map_or(available, |limit| available.min(limit.saturating_sub(used)))
}

fn available_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The widest vector instructions, by the names that libtorch uses: results are comparable within one.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        if wide && is_x86_feature_detected!("fma") {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    "default"
}

/// CUDA devices that the driver shows, such as `cuda:0`.
pub fn cuda_devices() -> Vec<String> {
    let shown = |index: &u32| Path::new(&format!("/dev/nvidia{index}")).exists();
    (0..64).filter(shown).map(|index| format!("cuda:{index}")).collect()
}

/// How often the kernel has killed a process for memory since the host started.
pub fn memory_kills() -> u64 {
    kills_in(&fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

fn kills_in(vmstat: &str) -> u64 {
    let line = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_understood() {
        assert_eq!(available_bytes("MemTotal:  100 kB\nMemAvailable:     20 kB\n"), 20 * 1024);
        assert_eq!(available_bytes(""), 0);
        assert_eq!(kills_in("pgfault 7\noom_kill 3\ndrop_pagecache 0\n"), 3);
    }

    #[test]
    fn this_host_has_a_name_and_memory() {
        assert!(!name().is_empty());
        assert!(free_memory_bytes() > 0);
        assert!(["avx512", "avx2", "default"].contains(&instruction_set()));
    }
}
