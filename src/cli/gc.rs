//! `finetuned gc`: makes room.

use std::time::Duration;

use clap::{Args, builder::FalseyValueParser};
use finetuned_store::{GcOptions, GcReport, Removed, Retention, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{args::StoreArgs, format, host::Host};

/// Between two collections of a running server.
pub const SWEEP_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct GcArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Only say what would be removed.
    #[arg(long, env = "FINETUNED_GC_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
}

/// What is kept, and for how long; `finetuned serve` applies it every hour.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// Leave stored bytes alone that are younger than this many hours, since what refers to them may come yet.
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
    /// Remove files that were uploaded so many days ago and that no open job uses; results stay [default: keep them].
    #[arg(long, env = "FINETUNED_GC_FILES_DAYS", value_name = "DAYS")]
    files_days: Option<u32>,
}

impl PolicyArgs {
    fn retention(&self) -> Retention {
        let days = |days: Option<u32>| days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
        Retention {
            fruitless_jobs: days(self.fruitless_jobs_days),
            checkpoints: days(self.checkpoints_days),
            events: days(self.events_days),
            files: days(self.files_days),
        }
    }

    fn min_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.min_age_hours) * 3600)
    }
}

pub async fn run(args: GcArgs) -> anyhow::Result<()> {
    let host = Host::open(&args.store).await?;
    let done = collect(&host.store, &args.policy, args.dry_run).await;
    host.close().await;
    for line in told_all(done?, args.dry_run) {
        println!("{line}");
    }
    Ok(())
}

/// Rows first: their bytes can then go with the same collection.
async fn collect(store: &Store, policy: &PolicyArgs, dry_run: bool) -> Result<(Removed, GcReport), StoreError> {
    let retention = policy.retention();
    let removed = match dry_run {
        true => store.count_expired(&retention).await?,
        false => store.apply_retention(&retention).await?,
    };
    Ok((removed, store.collect_garbage(GcOptions { min_age: policy.min_age(), dry_run }).await?))
}

/// What was removed of rows, where any was, and then of bytes.
fn told_all((removed, report): (Removed, GcReport), dry_run: bool) -> Vec<String> {
    let rows = (removed != Removed::default()).then(|| told_removed(removed, dry_run));
    rows.into_iter().chain([told(report, dry_run)]).collect()
}

fn told_removed(removed: Removed, dry_run: bool) -> String {
    let Removed { jobs, checkpoints, events, files } = removed;
    let verb = if dry_run { "would be removed" } else { "removed" };
    let (jobs, checkpoints) = (format::count(jobs, "job"), format::count(checkpoints, "checkpoint"));
    let (events, files) = (format::count(events, "event"), format::count(files, "file"));
    format!("{jobs}, {checkpoints}, {events} and {files} {verb}")
}

/// Collects until `stop`, at first after a while. Several servers may do so at once: each takes other blobs.
pub async fn sweep(store: Store, policy: PolicyArgs, every: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        match collect(&store, &policy, false).await {
            Ok(done) if done == Default::default() => {}
            Ok(done) => told_all(done, false).iter().for_each(|line| tracing::info!("{line}")),
            Err(error) => tracing::warn!(%error, "garbage could not be collected; the next time tries again"),
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
    #![allow(clippy::unwrap_used)]

    use finetuned_store::testing::{TestDatabase, fixtures};

    use super::*;

    #[tokio::test]
    async fn a_running_service_collects_by_its_policy_and_leaves_what_is_referred_to() {
        let database = TestDatabase::create().await.unwrap();
        let store = &database.store;
        let tenant = fixtures::tenant(store, "acme").await.unwrap();
        let kept = fixtures::job(store, tenant).await.unwrap();
        let cancelled = fixtures::job(store, tenant).await.unwrap();
        store.cancel_job(tenant, cancelled.id).await.unwrap();
        let lost = store.put_bytes(tenant, bytes::Bytes::from_static(b"nobody's")).await.unwrap();
        let policy = PolicyArgs {
            min_age_hours: 0,
            fruitless_jobs_days: Some(0),
            checkpoints_days: None,
            events_days: None,
            files_days: None,
        };
        let stop = CancellationToken::new();
        let sweeping = tokio::spawn(sweep(store.clone(), policy, Duration::from_millis(50), stop.clone()));
        let start = std::time::Instant::now();
        while store.get_blob_bytes(lost.id).await.is_ok() || store.get_job(tenant, cancelled.id).await.is_ok() {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing was collected");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let file = store.get_file(tenant, kept.training_file).await.unwrap();
        store.get_blob_bytes(file.content.id).await.unwrap();
        stop.cancel();
        sweeping.await.unwrap();
    }

    #[test]
    fn a_dry_run_says_that_it_removed_nothing() {
        let report = GcReport { blobs: 2, bytes: 1500, expired_files: 1 };
        assert_eq!(told(report, true), "2 blobs with 1.5 kB and 1 expired file would be removed");
        assert_eq!(told(report, false), "2 blobs with 1.5 kB and 1 expired file removed");
    }
}
