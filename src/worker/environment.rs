//! What an engine may see of its worker's environment: an allow-list, so that no address or secret crosses.

use std::ffi::OsString;

/// Variables that an engine gets as the worker has them. `HOME` is for caches of the CUDA driver.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "TZ",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
];

/// Families of variables that an engine gets.
const PASSED_PREFIXES: &[&str] = &["NVIDIA_"];

/// The part of `all` that an engine may see.
pub fn allowed(all: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    all.into_iter().filter(|(name, _)| name.to_str().is_some_and(is_allowed)).collect()
}

fn is_allowed(name: &str) -> bool {
    PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn secrets_and_addresses_do_not_cross() {
        let given = [
            "PATH",
            "NVIDIA_VISIBLE_DEVICES",
            "CUDA_VISIBLE_DEVICES",
            "RUST_LOG",
            "FINETUNED_DATABASE_URL",
            "DATABASE_URL",
            "PGPASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "OPENAI_API_KEY",
            "LD_PRELOAD",
            "XNVIDIA_",
            "path",
        ];
        let kept = allowed(given.map(|name| (name.into(), "x".into())));
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "RUST_LOG"]);
    }
}
