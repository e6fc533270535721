//! libtorch made safe: the device and its facts, thread and allocator settings, bytes to tensors and back, and frozen
//! weights stored in few bits (`shim.cpp`, for what tch does not have).
//!
//! One build serves CPU and GPU. It links libtorch's CPU half; [`init`] loads the CUDA half where it is installed. All
//! tensors of a process belong to one thread.

mod cuda;
mod device;
mod error;
mod frozen;
mod host;
mod memory;
mod threads;

pub use device::{DeviceRequest, describe, init, instruction_set};
pub use error::TorchError;
pub use frozen::{FrozenFormat, FrozenMatrix};
pub use host::{bytes_of, tensor_from_bytes};
pub use memory::{peak_device_memory_bytes, peak_memory_bytes, tune_allocator};
pub use tch;
pub use tch::{Device, Kind, Tensor};
pub use threads::{restart_with_sleeping_threads, set_threads, threads};
