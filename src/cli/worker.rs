//! `finetuned worker`: one worker alone, beside a service that runs elsewhere or here.

use std::path::PathBuf;

use anyhow::Context;
use finetuned_protocol::status::TaskKind;
use finetuned_worker::{WorkerOptions, WorkerTimings};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{EngineArgs, WorkerArgs},
    host::Host,
    paths,
    process::Stopper,
};

pub async fn run(args: WorkerArgs) -> anyhow::Result<()> {
    let stopper = Stopper::install()?;
    let engine = paths::engine(&args.engine)?;
    let host = Host::open(&args.store).await?;
    let stop = CancellationToken::new();
    stopper.forward(stop.clone());
    let ended = finetuned_worker::run(host.store.clone(), options(&args.engine, engine, &host), stop).await;
    host.close().await;
    ended.context("the worker ended")
}

/// How the worker of this process runs.
pub fn options(args: &EngineArgs, engine: PathBuf, host: &Host) -> WorkerOptions {
    WorkerOptions {
        engine_program: engine,
        work_dir: host.work_dir.clone(),
        threads: paths::threads(args),
        device: args.device,
        dictionary: host.dictionary.clone(),
        encoder: host.encoder.clone(),
        kinds: TaskKind::ALL.to_vec(),
        timings: WorkerTimings::default().scaled(host.time_scale),
    }
}
