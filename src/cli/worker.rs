//! `finetuned worker`: one worker alone, beside a service that runs elsewhere or here.

use std::path::PathBuf;

use anyhow::Context;
use finetuned_protocol::status::TaskKind;
use finetuned_worker::{DeviceSharing, ServingOptions, WorkerOptions, WorkerTimings};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{EngineArgs, ServingArgs, ServingChoice, WorkerArgs},
    host::Host,
    paths,
    process::Stopper,
};

pub async fn run(args: WorkerArgs) -> anyhow::Result<()> {
    let stopper = Stopper::install()?;
    check_serving(&args.serving)?;
    let engine = paths::engine(&args.engine)?;
    let host = Host::open(&args.store).await?;
    let stop = CancellationToken::new();
    stopper.forward(stop.clone());
    let ended =
        finetuned_worker::run(host.store.clone(), options((&args.engine, &args.serving), engine, &host), stop).await;
    host.close().await;
    ended.context("the worker ended")
}

/// How the worker of this process runs.
pub fn options((args, serving_args): (&EngineArgs, &ServingArgs), engine: PathBuf, host: &Host) -> WorkerOptions {
    WorkerOptions {
        engine_program: engine,
        work_dir: host.work_dir.clone(),
        threads: paths::threads(args),
        device: args.device,
        dictionary: host.dictionary.clone(),
        encoder: host.encoder.clone(),
        kinds: TaskKind::ALL.to_vec(),
        timings: WorkerTimings::default().scaled(host.time_scale),
        serving: serving(serving_args),
    }
}

/// How requests to models are answered, where they are.
fn serving(args: &ServingArgs) -> Option<ServingOptions> {
    let sharing = match args.serving {
        ServingChoice::Share => DeviceSharing::Shared,
        ServingChoice::TrainingFirst => DeviceSharing::TrainingFirst,
        ServingChoice::Off => return None,
    };
    Some(ServingOptions { listen: args.serving_listen, sharing })
}

/// Refuses an address that other hosts cannot use.
///
/// # Errors
/// It names no one interface.
pub fn check_serving(args: &ServingArgs) -> anyhow::Result<()> {
    let unspecified = args.serving_listen.ip().is_unspecified();
    anyhow::ensure!(
        !unspecified || args.serving == ServingChoice::Off,
        "--serving-listen {} is no address that an API node can call; name the one by which other hosts reach this one",
        args.serving_listen
    );
    Ok(())
}
