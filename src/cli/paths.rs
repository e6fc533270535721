//! Where things lie on this machine, and what to do where they do not.

use std::{
    fs::DirBuilder,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::args::{EngineArgs, StoreArgs};

/// The folder of the runtime's parts in a checkout.
const RUNTIME: &str = ".runtime";
/// The bundled base model within the runtime folder.
pub const BUNDLED_MODEL: &str = "models/smollm2-135m-instruct.gguf";
const DICTIONARIES: &str = "dictionaries";
const ENCODER: &str = "models/all-minilm-l6-v2";
const ENGINE: &str = "finetuned-engine";

/// The data folder, made where it is missing: private, but for root with a way through for the user whom it lends
/// Postgres, so that the cluster can lie in it. What is in it is private by itself.
///
/// # Errors
/// No home to put it in, or a place that cannot be written.
pub fn data_dir(args: &StoreArgs) -> anyhow::Result<PathBuf> {
    let chosen = match &args.data_dir {
        Some(folder) => folder.clone(),
        None => default_data_dir(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))?,
    };
    let folder = std::path::absolute(&chosen).with_context(|| format!("while looking for {}", chosen.display()))?;
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(&folder).with_context(|| {
        format!("while making the data folder {}; choose another with --data-dir", folder.display())
    })?;
    Ok(folder)
}

/// A folder within the data folder that nobody else may enter.
///
/// # Errors
/// A place that cannot be written.
pub fn private_dir(data_dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = data_dir.join(name);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("while making {}", folder.display()))?;
    Ok(folder)
}

fn default_data_dir(
    data_home: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> anyhow::Result<PathBuf> {
    let given = |value: Option<std::ffi::OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = given(data_home).or_else(|| given(home).map(|home| home.join(".local/share")));
    base.map(|base| base.join("finetuned")).context("HOME is not set; name the data folder with --data-dir")
}

/// The runtime folder: as named, or the nearest `.runtime` above this program, then above the current folder.
///
/// # Errors
/// None was found.
pub fn runtime_dir(chosen: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = chosen {
        if !folder.is_dir() {
            bail!("there is no folder {}; `python3 scripts/runtime.py --dir {0}` fills it", folder.display());
        }
        return std::path::absolute(folder).with_context(|| format!("while looking for {}", folder.display()));
    }
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let starts = [program, std::env::current_dir().ok()];
    let found = starts.iter().flatten().find_map(|start| nearest_runtime(start));
    found.context("no .runtime folder was found; run `python3 scripts/runtime.py`, or name one with --runtime-dir")
}

/// The folder of the spelling dictionary within the runtime folder, where it is there.
pub fn dictionary(chosen: Option<&Path>) -> Option<PathBuf> {
    runtime_dir(chosen).ok().map(|folder| folder.join(DICTIONARIES)).filter(|folder| folder.is_dir())
}

/// The folder of the text encoder within the runtime folder, where it is there.
pub fn encoder(chosen: Option<&Path>) -> Option<PathBuf> {
    runtime_dir(chosen).ok().map(|folder| folder.join(ENCODER)).filter(|folder| folder.is_dir())
}

fn nearest_runtime(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(RUNTIME)).find(|folder| folder.is_dir())
}

/// The training program.
///
/// # Errors
/// There is none, or it cannot be run.
pub fn engine(args: &EngineArgs) -> anyhow::Result<PathBuf> {
    let path = match &args.engine {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("while looking for this program")?.with_file_name(ENGINE),
    };
    let path = std::path::absolute(&path).with_context(|| format!("while looking for {}", path.display()))?;
    let runnable = path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    if !runnable {
        bail!(
            "there is no program {}, which does the training; build it with `cargo build --bins`, name it with --engine, \
             or serve without training by --no-worker",
            path.display()
        );
    }
    Ok(path)
}

/// Threads to train with: as asked, or one a core that this process may use.
pub fn threads(args: &EngineArgs) -> u32 {
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    args.threads.unwrap_or_else(cores)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use finetuned_protocol::engine::DeviceRequest;

    #[test]
    fn data_lies_where_the_desktop_standard_says() {
        let path = |data_home: Option<&str>, home: Option<&str>| {
            default_data_dir(data_home.map(Into::into), home.map(Into::into)).ok()
        };
        assert_eq!(path(None, Some("/home/a")), Some("/home/a/.local/share/finetuned".into()));
        assert_eq!(path(Some("/data"), Some("/home/a")), Some("/data/finetuned".into()));
        assert_eq!(path(Some("relative"), Some("/home/a")), Some("/home/a/.local/share/finetuned".into()));
        assert_eq!(path(None, None), None);
    }

    #[test]
    fn what_is_in_the_data_folder_is_private() {
        let root = tempfile::tempdir().unwrap();
        let args = StoreArgs {
            data_dir: Some(root.path().join("a/data")),
            runtime_dir: None,
            database_url: None,
            time_scale: 1.0,
        };
        let data = data_dir(&args).unwrap();
        let blobs = private_dir(&data, "blobs").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let expected = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        assert_eq!((mode(&data), mode(&blobs)), (expected, 0o700));
    }

    #[test]
    fn the_nearest_runtime_above_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b/c");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir_all(root.path().join("a/.runtime")).unwrap();
        assert_eq!(nearest_runtime(&inner), Some(root.path().join("a/.runtime")));
        assert!(runtime_dir(Some(&root.path().join("none"))).unwrap_err().to_string().contains("scripts/runtime.py"));
    }

    #[test]
    fn an_engine_that_cannot_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("finetuned-engine");
        let args = EngineArgs { engine: Some(path.clone()), threads: Some(3), device: DeviceRequest::Cpu };
        std::fs::write(&path, "").unwrap();
        let error = engine(&args).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("--no-worker"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(engine(&args).unwrap(), path);
        assert_eq!(threads(&args), 3);
    }
}
