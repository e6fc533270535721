//! Build script of the crates that link libtorch: lets their programs and tests find it at run time.
use std::path::Path;

pub fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else {
        panic!("LIBTORCH is not set: run `python3 scripts/runtime.py` and build inside the repository");
    };
    let lib = Path::new(&libtorch).join("lib");
    let lib = lib.canonicalize().unwrap_or_else(|error| {
        panic!("{} is missing ({error}): run `python3 scripts/runtime.py` first", lib.display())
    });
    // An installed program finds libtorch beside itself; one run from the build folder finds the one it was built with.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../libtorch/lib:{}", lib.display());
}
