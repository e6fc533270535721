//! `finetuned worker`: one worker alone, beside a service that runs elsewhere or here.

use std::path::PathBuf;

use anyhow::Context;
use finetuned_outbound::{JudgeEndpoint, Judges, Outbound};
use finetuned_protocol::status::TaskKind;
use finetuned_worker::{DeviceSharing, JudgeOptions, ServingOptions, WorkerOptions, WorkerTimings};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{EngineArgs, OutboundArgs, ServingArgs, ServingChoice, WorkerArgs},
    host::Host,
    paths,
    process::Stopper,
};

pub async fn run(args: WorkerArgs) -> anyhow::Result<()> {
    let stopper = Stopper::install()?;
    check_serving(&args.serving)?;
    let engine = paths::engine(&args.engine)?;
    let judging = judging(&args.outbound)?;
    let host = Host::open(&args.store).await?;
    let stop = CancellationToken::new();
    stopper.forward(stop.clone());
    let options = options((&args.engine, &args.serving), (engine, judging), &host);
    let ended = finetuned_worker::run(host.store.clone(), options, stop).await;
    host.close().await;
    ended.context("the worker ended")
}

/// How the worker of this process runs.
pub fn options(
    (args, serving_args): (&EngineArgs, &ServingArgs),
    (engine, judging): (PathBuf, JudgeOptions),
    host: &Host,
) -> WorkerOptions {
    WorkerOptions {
        engine_program: engine,
        work_dir: host.work_dir.clone(),
        threads: paths::threads(args),
        device: args.device,
        dictionary: host.dictionary.clone(),
        encoder: host.encoder.clone(),
        judging,
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

/// Whom this process may have judge.
///
/// # Errors
/// A list that cannot be read, or a URL that is none.
pub fn judging(args: &OutboundArgs) -> anyhow::Result<JudgeOptions> {
    let first = args.judge_url.clone().map(|url| JudgeEndpoint {
        url,
        model: args.judge_model.clone(),
        api_key: args.judge_api_key.clone(),
    });
    let mut list: Vec<JudgeEndpoint> = first.into_iter().collect();
    if let Some(path) = &args.judges {
        let text = std::fs::read_to_string(path).with_context(|| format!("while reading {}", path.display()))?;
        list.extend(Judges::parse(&text).with_context(|| format!("while reading --judges {}", path.display()))?);
    }
    let judges = Judges::new(list).context("while reading the list of judges")?;
    Ok(JudgeOptions { judges, outbound: Outbound::new(args.allow_outbound.clone()) })
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
