//! Which device computes.

use tch::{Cuda, Device};

use crate::{cuda, error::TorchError};

/// What the caller wants to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceRequest {
    /// The first CUDA device where one can be used, the CPU otherwise.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

/// Picks the device, and loads libtorch's CUDA half where it is wanted and installed. Call it before any tensor is
/// made.
///
/// # Errors
/// CUDA was asked for by name and cannot be used.
pub fn init(request: DeviceRequest) -> Result<Device, TorchError> {
    if request == DeviceRequest::Cpu {
        return Ok(Device::Cpu);
    }
    match find_cuda() {
        Ok(device) => Ok(device),
        Err(reason) if request == DeviceRequest::Auto => {
            tracing::info!(reason, "no CUDA device: computing on the CPU");
            Ok(Device::Cpu)
        }
        Err(reason) => Err(TorchError::NoCuda { reason }),
    }
}

fn find_cuda() -> Result<Device, String> {
    cuda::load()?;
    match Cuda::device_count() {
        count if count > 0 => Ok(Device::Cuda(0)),
        _ => Err("libtorch sees no CUDA device".to_owned()),
    }
}

/// The device in words: `cpu`, or `cuda:0 (NVIDIA H200)`.
pub fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => match cuda::device_name() {
            Some(name) => format!("cuda:{index} ({name})"),
            None => format!("cuda:{index}"),
        },
        _ => "cpu".to_owned(),
    }
}

/// Name of the widest vector instructions that libtorch finds here; bytes can only be compared within one.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match has_avx512 {
            true => "avx512",
            false if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => "avx2",
            false => "sse2",
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        "neon"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "scalar"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_cuda_is_refused_clearly_where_it_is_not() {
        assert_eq!(init(DeviceRequest::Cpu).unwrap(), Device::Cpu);
        assert_eq!(describe(Device::Cpu), "cpu");
        match init(DeviceRequest::Cuda) {
            Ok(device) => assert_eq!(init(DeviceRequest::Auto).unwrap(), device),
            Err(error) => {
                assert!(error.to_string().contains("or ask for `cpu`"), "{error}");
                assert_eq!(init(DeviceRequest::Auto).unwrap(), Device::Cpu);
            }
        }
    }

    #[test]
    fn the_instruction_set_has_a_name() {
        assert!(["avx512", "avx2", "sse2", "neon", "scalar"].contains(&instruction_set()));
    }
}
