//! The CUDA half of libtorch, found at run time, and what its driver says of the card.

use std::ffi::{CStr, c_char, c_int};

/// Loads libtorch's CUDA half. Must come before the first CUDA query: libtorch remembers the answer.
///
/// # Errors
/// The loader's own words.
pub(crate) fn load() -> Result<(), String> {
    // SAFETY: the name is a C string; the library's initialisers are libtorch's own and expect to be run this way. It
    // is never unloaded.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() { Err(last_loader_error()) } else { Ok(()) }
}

fn last_loader_error() -> String {
    // SAFETY: dlerror gives null or a C string that lives until this thread's next call of the loader.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "libtorch_cuda.so cannot be loaded".to_owned()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// Name of the first card, such as `NVIDIA H200`.
pub(crate) fn device_name() -> Option<String> {
    let mut name: [c_char; 128] = [0; 128];
    // SAFETY: signatures of CUDA's driver interface: cuDeviceGet(CUdevice *, int), cuDeviceGetName(char *, int,
    // CUdevice), where CUdevice is an int; the buffer is as long as is said, and the driver ends the name with a zero.
    unsafe {
        let get = symbol(c"cuDeviceGet")?;
        let get = std::mem::transmute::<*mut libc::c_void, extern "C" fn(*mut c_int, c_int) -> c_int>(get);
        let get_name = symbol(c"cuDeviceGetName")?;
        let get_name =
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(get_name);
        let mut device = 0;
        if get(&raw mut device, 0) != 0 || get_name(name.as_mut_ptr(), 127, device) != 0 {
            return None;
        }
        Some(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
    }
}

/// Memory in use on the current card, in bytes.
pub(crate) fn used_memory_bytes() -> Option<u64> {
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: signature of CUDA's driver interface: cuMemGetInfo_v2(size_t *free, size_t *total).
    unsafe {
        let get = symbol(c"cuMemGetInfo_v2")?;
        let get = std::mem::transmute::<*mut libc::c_void, extern "C" fn(*mut usize, *mut usize) -> c_int>(get);
        if get(&raw mut free, &raw mut total) != 0 {
            return None;
        }
    }
    Some(total.saturating_sub(free) as u64)
}

/// A function of the driver, which is loaded once libtorch has found a card.
fn symbol(name: &CStr) -> Option<*mut libc::c_void> {
    // SAFETY: both names are C strings; RTLD_NOLOAD only looks up what is there already, and the handle is not closed,
    // so the function stays.
    unsafe {
        let driver = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if driver.is_null() {
            return None;
        }
        let symbol = libc::dlsym(driver, name.as_ptr());
        (!symbol.is_null()).then_some(symbol)
    }
}
