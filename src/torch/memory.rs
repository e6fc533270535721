//! The allocator's settings and how much memory was used.

use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps freed memory in the process instead of giving it back and faulting it in again at the next step: by default
/// glibc maps every large tensor anew, which took a quarter of a training step. All threads share one arena, so that
/// what one thread frees another can use. Call it first in `main`.
pub fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only stores these numbers; all are documented parameters of glibc.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Largest resident memory of this process so far, in bytes; zero where the system does not say.
pub fn peak_memory_bytes() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what getrusage writes, and all its fields may be zero.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

/// Largest memory in use on the device at the times it was asked for, in bytes: the whole card's, seen by its driver.
/// `None` on the CPU.
pub fn peak_device_memory_bytes(device: tch::Device) -> Option<u64> {
    static PEAK: AtomicU64 = AtomicU64::new(0);
    match device {
        tch::Device::Cuda(_) => {
            let used = crate::cuda::used_memory_bytes()?;
            Some(PEAK.fetch_max(used, Ordering::Relaxed).max(used))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_peak_grows_with_what_is_touched() {
        tune_allocator();
        let before = peak_memory_bytes();
        assert!(before > 1 << 20);
        let block = std::hint::black_box(vec![1_u8; usize::try_from(before).unwrap() + (64 << 20)]);
        assert!(peak_memory_bytes() >= before + (32 << 20), "{} bytes were touched", block.len());
    }
}
