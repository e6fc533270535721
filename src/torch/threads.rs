//! How many threads compute. Equal counts give equal bytes; the pools must not change them by themselves.

use std::ffi::c_int;

use crate::error::TorchError;

/// Sets the threads that compute, for this process, and forbids OpenMP and MKL to use fewer when the machine is busy
/// (libtorch forbids MKL itself when its count is set). Call it before the first tensor: pools that have started keep
/// their size. `OMP_NUM_THREADS` and the like are then without effect.
///
/// # Errors
/// A count below 1 or above 1024.
pub fn set_threads(threads: usize) -> Result<(), TorchError> {
    if !(1..=1024).contains(&threads) {
        return Err(TorchError::Threads { threads });
    }
    forbid_dynamic_teams();
    tch::set_num_threads(threads as i32);
    Ok(())
}

/// Threads that compute.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// `OMP_DYNAMIC=false`, said at run time: the variable itself is read while the program is being loaded.
fn forbid_dynamic_teams() {
    // SAFETY: the name is a C string; `omp_set_dynamic` takes an int and returns nothing (OpenMP 5.0, section 3.2.7), and
    // the library that holds it stays loaded because libtorch links it.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"omp_set_dynamic".as_ptr());
        if !symbol.is_null() {
            let omp_set_dynamic = std::mem::transmute::<*mut libc::c_void, extern "C" fn(c_int)>(symbol);
            omp_set_dynamic(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_kept_and_nonsense_refused() {
        assert!(set_threads(2).is_ok());
        assert_eq!(threads(), 2);
        assert!(set_threads(0).is_err());
        assert!(set_threads(5000).is_err());
        assert_eq!(threads(), 2);
    }
}
