//! How many threads compute. Equal counts give equal bytes; the pools must not change them by themselves.

use std::{
    ffi::c_int,
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::error::TorchError;

/// OpenMP's variable for what a thread does that waits for the others.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";
/// GNU OpenMP's variable for how long it spins before it sleeps, and a count that takes some microseconds: on a quiet
/// machine training kept 97 % of the speed of endless spinning (without any spinning 73 %), and beside one other busy
/// process on two cores it lost about a fifth against hardly spinning.
const SPIN_COUNT: (&str, &str) = ("GOMP_SPINCOUNT", "10000");

/// Starts this program anew, in the same process, with threads that soon sleep while they wait for each other, unless the
/// environment has a policy already; then it returns. By default they spin, and on a machine that is busy with other
/// work the spinning keeps the very threads they wait for from running: a training step took three times as long.
/// OpenMP reads the variable while the program is being loaded, hence the new start. Call it first in `main`.
///
/// # Errors
/// The program cannot be started; nothing has changed.
pub fn restart_with_sleeping_threads() -> io::Result<()> {
    if std::env::var_os(WAIT_POLICY).is_some() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(WAIT_POLICY, "passive").env(SPIN_COUNT.0, SPIN_COUNT.1).stdin(Stdio::inherit());
    Err(command.exec())
}

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
    // SAFETY: the name is a C string; `omp_set_dynamic` takes an int and returns nothing (OpenMP 5.0, section 3.2.7),
    // and the library that holds it stays loaded because libtorch links it.
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    const IS_CHILD: &str = "FINETUNED_TEST_RESTART";

    #[test]
    fn a_program_restarts_itself_once_with_the_policy_set() {
        if std::env::var_os(IS_CHILD).is_some() {
            restart_with_sleeping_threads().unwrap();
            println!("policy: {:?}", std::env::var(WAIT_POLICY));
            return;
        }
        let name = "threads::tests::a_program_restarts_itself_once_with_the_policy_set";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(IS_CHILD, "1").env_remove(WAIT_POLICY);
        let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
        assert!(output.contains(r#"policy: Ok("passive")"#), "{output}");
    }

    #[test]
    fn a_count_is_kept_and_nonsense_refused() {
        assert!(set_threads(2).is_ok());
        assert_eq!(threads(), 2);
        assert!(set_threads(0).is_err());
        assert!(set_threads(5000).is_err());
        assert_eq!(threads(), 2);
    }
}
