//! Compiles the shim and lets programs find libtorch.

#[path = "rpath.rs"]
mod rpath;

fn main() {
    rpath::main();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=rpath.rs");
    println!("cargo:rerun-if-changed=shim.cpp");
    let libtorch = std::path::PathBuf::from(std::env::var_os("LIBTORCH").unwrap_or_default());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        // libtorch's headers are not ours to mend.
        .warnings(false)
        .std("c++17")
        .opt_level(3)
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // A fused multiplication and addition rounds once where the reference rounds twice.
        .flag("-ffp-contract=off")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .file("shim.cpp");
    // libtorch's parallel loops are templates over OpenMP, and must use the runtime that libtorch itself uses.
    let is_gnu = build.get_compiler().is_like_gnu();
    if is_gnu {
        build.flag("-fopenmp");
    }
    build.compile("finetuned_shim");
    if is_gnu {
        println!("cargo:rustc-link-lib=gomp");
    }
}
