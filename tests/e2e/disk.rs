//! A full disk pauses a job with a reason, and its last good checkpoint stays whole.

use std::{
    ffi::CString,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use finetuned_tests::{Service, ServiceOptions, rows, service};
use serde_json::json;

const JOB: Duration = Duration::from_secs(120);
/// Room for the attempt's folder and a few checkpoints of the tiny model.
const SIZE: &str = "size=8m";

/// A small file system of its own, unmounted when the test is over.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Result<Self> {
        let (kind, target, size) =
            (CString::new("tmpfs")?, CString::new(path.to_string_lossy().as_bytes())?, CString::new(SIZE)?);
        // SAFETY: all pointers are to strings that end in NUL and outlive the call.
        let code = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, size.as_ptr().cast()) };
        ensure!(code == 0, "mounting a tmpfs: {}", std::io::Error::last_os_error());
        Ok(Self(path.to_owned()))
    }

    /// Writes until nothing more fits; the path of what was written.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = File::create(&path)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.0.to_string_lossy().as_bytes()) {
            // SAFETY: the pointer is to a string that ends in NUL and outlives the call.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_the_job_with_its_last_checkpoint_whole() -> Result<()> {
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("not run: only root may mount the small file system that this test fills");
        return Ok(());
    }
    let folder = service::new_folder()?;
    let work = folder.path().join("data/work");
    std::fs::create_dir_all(&work)?;
    let disk = SmallDisk::mount(&work)?;
    let service = Service::start_with(ServiceOptions { folder: Some(folder), ..Default::default() }).await?;
    service.add_tiny_model()?;
    let settings = json!({"max_steps": 1500, "checkpoint_every": 500, "evaluate_every": 1500, "answers": {"rows": 0}});
    let id = service.tiny_job(&rows::alpaca(40), settings).await?;
    service.client.wait_for(&id, JOB, |job| job["progress"]["step"].as_u64() > Some(550)).await?;
    let filler = disk.fill()?;

    let paused = service.client.wait_for(&id, JOB, |job| job["paused"] == true).await?;
    assert_eq!(paused["status"], "queued");
    let reason = paused["waiting_reason"].as_str().context("no reason is given")?;
    assert!(reason.contains("space"), "{reason}");
    let checkpoints = service.client.get(&format!("/v1/fine_tuning/jobs/{id}/checkpoints")).await?.success()?;
    let last = checkpoints["data"][0]["step_number"].as_u64().unwrap();
    assert!(last >= 500 && last % 500 == 0, "{checkpoints:#}");

    std::fs::remove_file(filler)?;
    service.client.control(&format!("/v1/fine_tuning/jobs/{id}/resume")).await?.success()?;
    service.client.wait_for_success(&id, JOB).await?;
    drop(service);
    Ok(())
}
