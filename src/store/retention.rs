//! What an operator no longer wants to keep: old jobs that came to nothing, uploaded files, checkpoints and events of jobs
//! that ended.
//!
//! The adapter of a succeeded job, its evaluation and its result files are never touched. Bytes go with the next
//! collection of garbage, once nothing refers to them.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Store, StoreError, convert::count};

/// Rows of one statement; few, so that nobody waits long for their locks.
const BATCH: i64 = 50;
/// Events or metrics of one statement.
const LINES: i64 = 5000;
/// Jobs looked at by one statement.
const JOBS: i64 = 500;

/// How long what is kept; `None` keeps it for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Jobs that failed or were cancelled, with all that they left, from their end.
    pub fruitless_jobs: Option<Duration>,
    /// Checkpoints, from their job's end.
    pub checkpoints: Option<Duration>,
    /// Events, metrics and engines' logs, from their job's end.
    pub events: Option<Duration>,
    /// Uploaded files that no open job uses, from their upload. Jobs keep the bytes that they were made from.
    pub files: Option<Duration>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub jobs: u64,
    pub checkpoints: u64,
    pub events: u64,
    pub files: u64,
}

impl Store {
    /// Counts what [`Store::apply_retention`] would remove now. Takes as long as it needs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn count_expired(&self, retention: &Retention) -> Result<Removed, StoreError> {
        let Retention { fruitless_jobs, checkpoints, events, files } = retention;
        // A connection of its own: the pool's have limits that large tables may exceed.
        let mut connection = PgConnection::connect_with(&self.inner.connect).await?;
        let row = sqlx::query!(
            r#"with fruitless as (
                   select id from jobs
                   where status in ('failed', 'cancelled') and finished_at < now() - make_interval(secs => $1)
               )
               select (select count(*) from fruitless) as "jobs!",
                      (select count(*) from checkpoints c join jobs j on j.id = c.job_id
                       where j.finished_at < now() - make_interval(secs => $2)
                         and c.job_id not in (select id from fruitless)) as "checkpoints!",
                      (select count(*) from events v join jobs j on j.id = v.job_id
                       where j.finished_at < now() - make_interval(secs => $3)
                         and v.job_id not in (select id from fruitless)) as "events!",
                      (select count(*) from files f
                       where f.created_at < now() - make_interval(secs => $4) and f.purpose <> 'fine-tune-results'
                         and not exists (select from jobs j where j.finished_at is null and j.tenant_id = f.tenant_id
                                           and f.id in (j.training_file, j.validation_file))) as "files!""#,
            seconds(fruitless_jobs) as _,
            seconds(checkpoints) as _,
            seconds(events) as _,
            seconds(files) as _,
        )
        .fetch_one(&mut connection)
        .await?;
        let _ = connection.close().await;
        Ok(Removed {
            jobs: count(row.jobs),
            checkpoints: count(row.checkpoints),
            events: count(row.events),
            files: count(row.files),
        })
    }

    /// Removes what is no longer kept, in small batches.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; what was done until then stays done.
    pub async fn apply_retention(&self, retention: &Retention) -> Result<Removed, StoreError> {
        Ok(Removed {
            jobs: self.remove_jobs(retention.fruitless_jobs).await?,
            checkpoints: self.remove_checkpoints(retention.checkpoints).await?,
            events: self.remove_events(retention.events).await?,
            files: self.remove_files(retention.files).await?,
        })
    }

    async fn remove_jobs(&self, age: Option<Duration>) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let jobs = self.call("looking for old jobs", async {
                let jobs = sqlx::query_scalar!(
                    "select id from jobs
                     where status in ('failed', 'cancelled') and finished_at < now() - make_interval(secs => $1)
                     limit $2",
                    seconds(&age) as _,
                    BATCH,
                );
                Ok(jobs.fetch_all(self.pool()).await?)
            });
            let jobs = jobs.await?;
            if jobs.is_empty() {
                return Ok(removed);
            }
            // First what there may be much of, so that no one statement has much to do.
            for job in &jobs {
                self.remove_lines(*job).await?;
            }
            let batch = self.call("removing old jobs", async {
                let done = sqlx::query!("delete from jobs where id = any($1)", &jobs).execute(self.pool()).await?;
                Ok(done.rows_affected())
            });
            removed += batch.await?;
        }
    }

    async fn remove_checkpoints(&self, age: Option<Duration>) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.call("removing old checkpoints", async {
                let done = sqlx::query!(
                    "delete from checkpoints where id in (
                         select c.id from checkpoints c join jobs j on j.id = c.job_id
                         where j.finished_at < now() - make_interval(secs => $1)
                         limit $2
                     )",
                    seconds(&age) as _,
                    BATCH,
                );
                Ok(done.execute(self.pool()).await?.rows_affected())
            });
            match batch.await? {
                0 => return Ok(removed),
                batch => removed += batch,
            }
        }
    }

    /// Of one job after the other, by the time of their ends.
    async fn remove_events(&self, age: Option<Duration>) -> Result<u64, StoreError> {
        let mut removed = 0;
        let mut after = (OffsetDateTime::UNIX_EPOCH, Uuid::nil());
        loop {
            let jobs = self.call("looking for old events", async {
                let jobs = sqlx::query!(
                    r#"select id, finished_at as "finished_at!",
                              (exists (select from events e where e.job_id = j.id)
                               or exists (select from metrics m where m.job_id = j.id)
                               or exists (select from attempt_logs l where l.job_id = j.id)) as "has_lines!"
                       from jobs j
                       where finished_at < now() - make_interval(secs => $1) and (finished_at, id) > ($2, $3)
                       order by finished_at, id
                       limit $4"#,
                    seconds(&age) as _,
                    after.0,
                    after.1,
                    JOBS,
                );
                Ok(jobs.fetch_all(self.pool()).await?)
            });
            let jobs = jobs.await?;
            let Some(last) = jobs.last() else { return Ok(removed) };
            after = (last.finished_at, last.id);
            for job in jobs.iter().filter(|job| job.has_lines) {
                removed += self.remove_lines(job.id).await?;
            }
        }
    }

    /// Removes events, metrics and logs of a job; gives how many events.
    async fn remove_lines(&self, job: Uuid) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.call("removing old events", async {
                let events = sqlx::query!(
                    "delete from events where job_id = $1 and seq in (
                         select seq from events where job_id = $1 order by seq limit $2
                     )",
                    job,
                    LINES,
                );
                let events = events.execute(self.pool()).await?.rows_affected();
                let metrics = sqlx::query!(
                    "delete from metrics where job_id = $1 and (name, step) in (
                         select name, step from metrics where job_id = $1 order by name, step limit $2
                     )",
                    job,
                    LINES,
                );
                Ok((events, metrics.execute(self.pool()).await?.rows_affected()))
            });
            let (events, metrics) = batch.await?;
            removed += events;
            if events + metrics == 0 {
                break;
            }
        }
        self.call("removing old logs", async {
            sqlx::query!("delete from attempt_logs where job_id = $1", job).execute(self.pool()).await?;
            Ok(removed)
        })
        .await
    }

    async fn remove_files(&self, age: Option<Duration>) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.call("removing old files", async {
                let done = sqlx::query!(
                    "delete from files where id in (
                         select f.id from files f
                         where f.created_at < now() - make_interval(secs => $1) and f.purpose <> 'fine-tune-results'
                           and not exists (select from jobs j where j.finished_at is null and j.tenant_id = f.tenant_id
                                             and f.id in (j.training_file, j.validation_file))
                         limit $2
                     )",
                    seconds(&age) as _,
                    BATCH,
                );
                Ok(done.execute(self.pool()).await?.rows_affected())
            });
            match batch.await? {
                0 => return Ok(removed),
                batch => removed += batch,
            }
        }
    }
}

/// An age for `make_interval`; null, before which nothing ever was, where all is kept.
fn seconds(age: &Option<Duration>) -> Option<f64> {
    age.map(|age| age.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::status::{JobStatus, TaskKind};
    use serde_json::json;

    use super::*;
    use crate::{
        GcOptions, MetricQuery, NewCheckpoint, NewMetric, Report, StoredFile,
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
        // More than one statement takes.
        let metric = |step| NewMetric { name: "train_loss".to_owned(), step, value: 1.0 };
        let metrics = (0..LINES as u32 + 10).map(metric).collect();
        store.report(&lease.key, &Report { metrics, ..Report::default() }).await.unwrap();
        let trained = fixtures::trained(store, tenant).await.unwrap();
        store.finish_training(&lease.key, &trained).await.unwrap();
        let cancelled = fixtures::job(store, tenant).await.unwrap();
        store.cancel_job(tenant, cancelled.id).await.unwrap();
        let waiting = fixtures::job(store, tenant).await.unwrap();
        let day = Duration::from_secs(24 * 3600);
        let all = Retention { fruitless_jobs: Some(day), checkpoints: Some(day), events: Some(day), files: Some(day) };
        assert_eq!(store.count_expired(&all).await.unwrap(), Removed::default(), "all is young");
        sqlx::query("update jobs set finished_at = finished_at - interval '2 days'")
            .execute(store.pool())
            .await
            .unwrap();
        sqlx::query("update files set created_at = created_at - interval '2 days'")
            .execute(store.pool())
            .await
            .unwrap();
        assert_eq!(store.apply_retention(&Retention::default()).await.unwrap(), Removed::default(), "no policy");

        let counted = store.count_expired(&all).await.unwrap();
        // The files of both jobs that ended; that of the third is in use.
        assert_eq!((counted.jobs, counted.checkpoints, counted.files), (1, 1, 2));
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
        store.get_file(tenant, done.result_files[0]).await.unwrap();
        store.get_file(tenant, waiting.training_file).await.unwrap();
        assert!(store.get_file(tenant, done.training_file).await.is_err());
        assert!(store.events_since(tenant, done.id, 0, 10).await.unwrap().is_empty());
        assert!(store.metrics(tenant, done.id, MetricQuery::ALL).await.unwrap().is_empty());
        assert_eq!(store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap().job.id, waiting.id);
    }
}
