//! Content hashes.

use std::{fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};

use crate::error::WeightsError;

const BUFFER_BYTES: usize = 1 << 20;

/// Lower-case hexadecimal SHA-256 of a file's bytes, read as a stream.
pub(crate) fn file(path: &Path) -> Result<String, WeightsError> {
    let doing = "hashing";
    let mut file = File::open(path).map_err(WeightsError::io(doing, path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer).map_err(WeightsError::io(doing, path))? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// SHA-256 over `name, NUL, hash, newline` of the named files that are there, sorted by name: independent of where the
/// folder lies and of files beside the model's own.
pub(crate) fn folder(path: &Path, names: &[&str]) -> Result<String, WeightsError> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let mut hasher = Sha256::new();
    for name in names.into_iter().filter(|name| path.join(name).is_file()) {
        hasher.update(format!("{name}\0{}\n", file(&path.join(name))?));
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_folder_is_its_files_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a", "abc");
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file(&dir.path().join("a")).unwrap(), abc);
        let one = folder(dir.path(), &["a", "b"]).unwrap();
        assert_eq!(one, hex::encode(Sha256::digest(format!("a\0{abc}\n"))));
        write("unrelated", "x");
        assert_eq!(folder(dir.path(), &["b", "a", "a"]).unwrap(), one);
        write("b", "abc");
        assert_ne!(folder(dir.path(), &["a", "b"]).unwrap(), one);
        assert!(file(&dir.path().join("none")).unwrap_err().to_string().contains("hashing"));
    }
}
