//! `finetuned gc`: makes room.

use std::time::Duration;

use clap::{Args, builder::FalseyValueParser};
use finetuned_store::{GcOptions, GcReport, Removed, Retention, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{args::StoreArgs, format, host::Host};

/// Between two collections of a running server.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct GcArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Leave alone what is younger than this many hours.
    #[arg(long, env = "FINETUNED_GC_MIN_AGE_HOURS", value_name = "HOURS", default_value_t = 24)]
    min_age_hours: u32,
    /// Remove jobs that failed or were cancelled so many days ago, with all that they left [default: keep them].
    #[arg(long, env = "FINETUNED_GC_FRUITLESS_JOBS_DAYS", value_name = "DAYS")]
    fruitless_jobs_days: Option<u32>,
    /// Remove the checkpoints of jobs that ended so many days ago; adapters stay [default: keep them].
    #[arg(long, env = "FINETUNED_GC_CHECKPOINTS_DAYS", value_name = "DAYS")]
    checkpoints_days: Option<u32>,
    /// Remove events, metrics and logs of jobs that ended so many days ago [default: keep them].
    #[arg(long, env = "FINETUNED_GC_EVENTS_DAYS", value_name = "DAYS")]
    events_days: Option<u32>,
    /// Only say what would be removed.
    #[arg(long, env = "FINETUNED_GC_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
}

pub async fn run(args: GcArgs) -> anyhow::Result<()> {
    let min_age = Duration::from_secs(u64::from(args.min_age_hours) * 3600);
    let host = Host::open(&args.store).await?;
    let done = collect(&host.store, &args, min_age).await;
    host.close().await;
    let (removed, report) = done?;
    if removed != Removed::default() {
        println!("{}", told_removed(removed, args.dry_run));
    }
    println!("{}", told(report, args.dry_run));
    Ok(())
}

/// Rows first: their bytes can then go with the same collection.
async fn collect(store: &Store, args: &GcArgs, min_age: Duration) -> Result<(Removed, GcReport), StoreError> {
    let days = |days: Option<u32>| days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
    let retention = Retention {
        fruitless_jobs: days(args.fruitless_jobs_days),
        checkpoints: days(args.checkpoints_days),
        events: days(args.events_days),
    };
    let removed = match args.dry_run {
        true => store.count_expired(&retention).await?,
        false => store.apply_retention(&retention).await?,
    };
    Ok((removed, store.collect_garbage(GcOptions { min_age, dry_run: args.dry_run }).await?))
}

fn told_removed(removed: Removed, dry_run: bool) -> String {
    let Removed { jobs, checkpoints, events } = removed;
    let verb = if dry_run { "would be removed" } else { "removed" };
    let (jobs, checkpoints) = (format::count(jobs, "job"), format::count(checkpoints, "checkpoint"));
    format!("{jobs}, {checkpoints} and {} {verb}", format::count(events, "event"))
}

/// Collects every hour until `stop`. Several servers may do so at once: each takes other blobs.
pub async fn sweep(store: Store, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        match store.collect_garbage(GcOptions::default()).await {
            Ok(report) if report == GcReport::default() => {}
            Ok(report) => tracing::info!("{}", told(report, false)),
            Err(error) => tracing::warn!(%error, "garbage could not be collected; the next hour tries again"),
        }
    }
}

fn told(report: GcReport, dry_run: bool) -> String {
    let GcReport { blobs, bytes, expired_files } = report;
    let verb = if dry_run { "would be removed" } else { "removed" };
    let (blobs, expired) = (format::count(blobs, "blob"), format::count(expired_files, "expired file"));
    format!("{blobs} with {} and {expired} {verb}", format::bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_that_it_removed_nothing() {
        let report = GcReport { blobs: 2, bytes: 1500, expired_files: 1 };
        assert_eq!(told(report, true), "2 blobs with 1.5 kB and 1 expired file would be removed");
        assert_eq!(told(report, false), "2 blobs with 1.5 kB and 1 expired file removed");
    }
}
