//! The device, the threads, and the lock that keeps two engines off one card.

use std::{thread, time::Duration};

use finetuned_protocol::engine::{DeviceRequest, Phase};
use finetuned_torch::Device;

use crate::{
    device_lock::{DeviceLock, lock_folder, try_lock},
    error::EngineError,
    watch::Watch,
};

const LOCK_POLL: Duration = Duration::from_millis(250);

/// What computes.
#[derive(Debug)]
pub struct Machine {
    pub device: Device,
    pub threads: u32,
    pub instruction_set: &'static str,
    _lock: Option<DeviceLock>,
}

impl Machine {
    /// Sets the thread count, finds the device, and waits for its lock where it is a card.
    ///
    /// # Errors
    /// CUDA was asked for and is not there, or the wait was ended from outside.
    pub fn take(request: DeviceRequest, threads: u32, watch: &mut Watch) -> Result<Self, EngineError> {
        finetuned_torch::set_threads(threads as usize)?;
        let device = finetuned_torch::init(to_torch(request))?;
        let lock = match device {
            Device::Cuda(index) => Some(wait_for(index, watch)?),
            _ => None,
        };
        Ok(Self { device, threads, instruction_set: finetuned_torch::instruction_set(), _lock: lock })
    }

    /// `cpu` or `cuda`.
    pub fn kind(&self) -> &'static str {
        device_kind(self.device)
    }
}

/// `cpu` or `cuda`.
pub fn device_kind(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

pub fn to_torch(request: DeviceRequest) -> finetuned_torch::DeviceRequest {
    match request {
        DeviceRequest::Auto => finetuned_torch::DeviceRequest::Auto,
        DeviceRequest::Cpu => finetuned_torch::DeviceRequest::Cpu,
        DeviceRequest::Cuda => finetuned_torch::DeviceRequest::Cuda,
    }
}

/// Another engine may just be ending; it lets go within its grace. Until then this one waits and says so.
fn wait_for(index: usize, watch: &mut Watch) -> Result<DeviceLock, EngineError> {
    let folder = lock_folder();
    let mut told = false;
    loop {
        if let Some(lock) = try_lock(&folder, index)? {
            return Ok(lock);
        }
        if !told {
            watch.log.warn("device_busy", format!("another engine holds cuda:{index}; waiting for it"))?;
            told = true;
        }
        watch.tick(Phase::Loading, 0, 1)?;
        thread::sleep(LOCK_POLL);
    }
}
