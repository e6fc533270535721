//! What an operator no longer wants to keep: old jobs that came to nothing, checkpoints and events of jobs that ended.
//!
//! The adapter of a succeeded job, its evaluation and its files are never touched. Bytes go with the next collection of
//! garbage, once nothing refers to them.

use std::time::Duration;

use crate::{Store, StoreError, convert::count};

/// Jobs of one transaction; small, so that nobody waits long for their locks.
const BATCH: i64 = 50;

/// How long what is kept; `None` keeps it for ever. Each time counts from a job's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Jobs that failed or were cancelled, with all that they left.
    pub fruitless_jobs: Option<Duration>,
    /// Checkpoints.
    pub checkpoints: Option<Duration>,
    /// Events, metrics and engines' logs.
    pub events: Option<Duration>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub jobs: u64,
    pub checkpoints: u64,
    pub events: u64,
}

impl Store {
    /// Counts what [`Store::apply_retention`] would remove now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn count_expired(&self, retention: &Retention) -> Result<Removed, StoreError> {
        let [jobs, checkpoints, events] = seconds(retention);
        self.call("counting what is no longer kept", async {
            let row = sqlx::query!(
                r#"with ended as (
                       select id, status, extract(epoch from now() - finished_at)::float8 as age
                       from jobs where finished_at is not null
                   ),
                   fruitless as (
                       select id from ended where status in ('failed', 'cancelled') and age > $1
                   )
                   select (select count(*) from fruitless) as "jobs!",
                          (select count(*) from checkpoints c join ended e on e.id = c.job_id
                           where e.age > $2 and c.job_id not in (select id from fruitless)) as "checkpoints!",
                          (select count(*) from events v join ended e on e.id = v.job_id
                           where e.age > $3 and v.job_id not in (select id from fruitless)) as "events!""#,
                jobs,
                checkpoints,
                events,
            )
            .fetch_one(self.pool())
            .await?;
            Ok(Removed { jobs: count(row.jobs), checkpoints: count(row.checkpoints), events: count(row.events) })
        })
        .await
    }

    /// Removes what is no longer kept, in small batches.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; what was done until then stays done.
    pub async fn apply_retention(&self, retention: &Retention) -> Result<Removed, StoreError> {
        let [jobs, checkpoints, events] = seconds(retention);
        let mut removed = Removed::default();
        loop {
            let batch = self.call("removing old jobs", self.remove_jobs(jobs)).await?;
            removed.jobs += batch;
            if batch == 0 {
                break;
            }
        }
        loop {
            let batch = self.call("removing old checkpoints", self.remove_checkpoints(checkpoints)).await?;
            removed.checkpoints += batch;
            if batch == 0 {
                break;
            }
        }
        loop {
            let Some(batch) = self.call("removing old events", self.remove_events(events)).await? else { break };
            removed.events += batch;
        }
        Ok(removed)
    }

    async fn remove_jobs(&self, age: f64) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "delete from jobs where id in (
                 select id from jobs
                 where finished_at is not null and status in ('failed', 'cancelled')
                   and extract(epoch from now() - finished_at)::float8 > $1
                 limit $2
             )",
            age,
            BATCH,
        );
        Ok(done.execute(self.pool()).await?.rows_affected())
    }

    async fn remove_checkpoints(&self, age: f64) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "delete from checkpoints where id in (
                 select c.id from checkpoints c join jobs j on j.id = c.job_id
                 where j.finished_at is not null and extract(epoch from now() - j.finished_at)::float8 > $1
                 limit $2
             )",
            age,
            BATCH,
        );
        Ok(done.execute(self.pool()).await?.rows_affected())
    }

    /// Of one job at a time; gives how many events went, `None` once no job has any left.
    async fn remove_events(&self, age: f64) -> Result<Option<u64>, StoreError> {
        let mut tx = self.begin().await?;
        let job = sqlx::query_scalar!(
            "select j.id from jobs j
             where j.finished_at is not null and extract(epoch from now() - j.finished_at)::float8 > $1
               and (exists (select from events e where e.job_id = j.id)
                    or exists (select from metrics m where m.job_id = j.id)
                    or exists (select from attempt_logs l where l.job_id = j.id))
             limit 1",
            age,
        );
        let Some(job) = job.fetch_optional(&mut *tx).await? else { return Ok(None) };
        let events = sqlx::query!("delete from events where job_id = $1", job).execute(&mut *tx).await?;
        sqlx::query!("delete from metrics where job_id = $1", job).execute(&mut *tx).await?;
        sqlx::query!("delete from attempt_logs where job_id = $1", job).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Some(events.rows_affected()))
    }
}

/// Ages in seconds; nothing is older than infinity.
fn seconds(retention: &Retention) -> [f64; 3] {
    let Retention { fruitless_jobs, checkpoints, events } = retention;
    [fruitless_jobs, checkpoints, events].map(|age| age.map_or(f64::INFINITY, |age| age.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::status::{JobStatus, TaskKind};
    use serde_json::json;

    use super::*;
    use crate::{
        GcOptions, NewCheckpoint, StoredFile,
        testing::{TestDatabase, fixtures},
    };

    #[tokio::test]
    async fn what_is_old_goes_and_what_a_success_made_stays() {
        let database = TestDatabase::create().await.unwrap();
        let store = &database.store;
        let tenant = fixtures::tenant(store, "acme").await.unwrap();
        let worker = fixtures::worker(store).await.unwrap();
        let lease = fixtures::training(store, tenant, &worker).await.unwrap();
        let content = store.put_bytes(tenant, bytes::Bytes::from_static(b"weights")).await.unwrap();
        let files = vec![StoredFile { name: "adapter.safetensors".to_owned(), content }];
        let checkpoint = NewCheckpoint { step: 1, metrics: json!({}), files };
        store.publish_checkpoint(&lease.key, &checkpoint).await.unwrap();
        let trained = fixtures::trained(store, tenant).await.unwrap();
        store.finish_training(&lease.key, &trained).await.unwrap();
        let cancelled = fixtures::job(store, tenant).await.unwrap();
        store.cancel_job(tenant, cancelled.id).await.unwrap();
        let waiting = fixtures::job(store, tenant).await.unwrap();
        let day = Duration::from_secs(24 * 3600);
        let all = Retention { fruitless_jobs: Some(day), checkpoints: Some(day), events: Some(day) };
        assert_eq!(store.count_expired(&all).await.unwrap(), Removed::default(), "all is young");
        sqlx::query("update jobs set finished_at = finished_at - interval '2 days'")
            .execute(store.pool())
            .await
            .unwrap();
        assert_eq!(store.apply_retention(&Retention::default()).await.unwrap(), Removed::default(), "no policy");

        let counted = store.count_expired(&all).await.unwrap();
        assert_eq!((counted.jobs, counted.checkpoints), (1, 1));
        assert_eq!(store.apply_retention(&all).await.unwrap(), counted, "a dry run says what is done");
        assert_eq!(store.apply_retention(&all).await.unwrap(), Removed::default(), "once");
        store.collect_garbage(GcOptions { min_age: Duration::ZERO, dry_run: false }).await.unwrap();
        let done = store.get_job(tenant, lease.job.id).await.unwrap();
        assert_eq!((done.status, done.evaluation.is_some()), (JobStatus::Succeeded, true));
        for artifact in store.artifacts(tenant, lease.job.id).await.unwrap() {
            store.get_blob_bytes(artifact.content.id).await.unwrap();
        }
        assert!(store.get_blob_bytes(checkpoint.files[0].content.id).await.is_err(), "the checkpoint's bytes are gone");
        assert!(store.get_job(tenant, cancelled.id).await.is_err());
        assert_eq!(store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap().job.id, waiting.id);
    }
}
