//! Reading jobs.

use std::time::Duration;

use finetuned_protocol::ids::{FileId, JobId, TenantId};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Job, JobPage, MetadataFilter, Page, line::find_places};
use crate::{
    Store, StoreError,
    convert::{count, from_json, maybe_json, named, small, to_json},
};

impl Store {
    /// A job of the tenant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_job(&self, tenant: TenantId, job: JobId) -> Result<Job, StoreError> {
        self.call("reading a job", async {
            let mut connection = self.pool().acquire().await?;
            let mut found = fetch_jobs(&mut connection, tenant, &[job.0], self.timings().expiry).await?;
            find_places(&mut connection, tenant, &mut found, self.timings().expiry).await?;
            found.into_iter().next().ok_or(StoreError::NotFound { what: "job" })
        })
        .await
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// `NotFound { what: "after" }` for an unknown `after`.
    pub async fn list_jobs(&self, tenant: TenantId, page: &JobPage) -> Result<Page<Job>, StoreError> {
        let wanted = match &page.metadata {
            MetadataFilter::Contains(pairs) => Some(to_json("metadata", pairs)?),
            MetadataFilter::Any | MetadataFilter::Absent => None,
        };
        self.call("listing jobs", async {
            let mut connection = self.pool().acquire().await?;
            if let Some(after) = page.after {
                require_job(&mut connection, tenant, after)
                    .await
                    .map_err(|_| StoreError::NotFound { what: "after" })?;
            }
            let ids = sqlx::query_scalar!(
                "select id from jobs
                 where tenant_id = $1 and id < $2 and ($3::jsonb is null or metadata @> $3)
                   and (not $4 or metadata is null)
                 order by id desc
                 limit $5",
                tenant.0,
                page.after.map_or(Uuid::max(), |job| job.0),
                wanted,
                page.metadata == MetadataFilter::Absent,
                i64::from(page.limit) + 1,
            );
            let ids = Page::cut(ids.fetch_all(&mut *connection).await?, page.limit);
            let mut data = fetch_jobs(&mut connection, tenant, &ids.data, self.timings().expiry).await?;
            find_places(&mut connection, tenant, &mut data, self.timings().expiry).await?;
            Ok(Page { data, has_more: ids.has_more })
        })
        .await
    }
}

/// That the job is one of the tenant's.
pub(crate) async fn require_job(connection: &mut PgConnection, tenant: TenantId, job: JobId) -> Result<(), StoreError> {
    let known = sqlx::query_scalar!(
        r#"select exists(select from jobs where id = $1 and tenant_id = $2) as "known!""#,
        job.0,
        tenant.0,
    );
    match known.fetch_one(connection).await? {
        true => Ok(()),
        false => Err(StoreError::NotFound { what: "job" }),
    }
}

/// The tenant's jobs of these ids, newest first. `expiry`: a worker silent for so long is not counted on.
pub(crate) async fn fetch_jobs(
    connection: &mut PgConnection,
    tenant: TenantId,
    ids: &[Uuid],
    expiry: Duration,
) -> Result<Vec<Job>, StoreError> {
    let rows = sqlx::query_as!(
        JobRow,
        r#"select j.id, j.tenant_id, n.name as tenant_name, j.status, j.paused, j.created_at, j.started_at,
                  j.finished_at, j.request, j.seed, j.priority, j.retry_of, j.base_model, j.base_model_sha256, j.training_file,
                  j.validation_file, j.effective, j.dataset, j.estimate, j.error, j.trained_tokens, j.fine_tuned_model,
                  j.result_files, j.evaluation, j.parity, l.progress,
                  coalesce(t.request = 'pause', false) as "pause_requested!",
                  case
                      when t.state is distinct from 'queued' then j.waiting_reason
                      when not exists (select from workers w where w.seen_at > now() - make_interval(secs => $3))
                          then 'no worker is running'
                      when not exists (
                          select from workers w
                          where w.seen_at > now() - make_interval(secs => $3)
                            and w.known_schema >= (select version from schema_marker)
                      ) then 'every running worker is older than the database; update them'
                      when not exists (
                          select from workers w
                          where w.seen_at > now() - make_interval(secs => $3) and t.needs_model = any(w.models)
                      ) then 'no running worker has the base model'
                      when not exists (
                          select from workers w
                          where w.seen_at > now() - make_interval(secs => $3) and t.needs_model = any(w.models)
                            and coalesce(t.needs_memory_bytes, 0) <= w.free_memory_bytes
                      ) then 'no running worker has the ' || t.needs_memory_bytes || ' bytes of memory that it is estimated to need'
                      when not exists (
                          select from workers w
                          left join disk_reservations d on d.host = w.host
                          where w.seen_at > now() - make_interval(secs => $3) and t.needs_model = any(w.models)
                            and coalesce(t.needs_memory_bytes, 0) <= w.free_memory_bytes
                            and has_room(t.needs_work_bytes, t.needs_stored_bytes,
                                         w.free_work_bytes - coalesce(d.work_bytes, 0),
                                         w.free_stored_bytes - (select coalesce(sum(stored_bytes), 0)::bigint
                                                                from disk_reservations), w.shares_disk)
                      ) then 'no running worker has the ' || t.needs_work_bytes + t.needs_stored_bytes
                          || ' bytes of disk space that it is estimated to need beside what other jobs reserved'
                  end as waiting_reason
           from jobs j
           join tenants n on n.id = j.tenant_id
           join job_live l on l.job_id = j.id
           left join lateral (
               select * from tasks where job_id = j.id and state in ('queued', 'held', 'running') and kind <> 'evaluate'
               order by created_at desc limit 1
           ) t on true
           where j.id = any($1) and j.tenant_id = $2
           order by j.id desc"#,
        ids,
        tenant.0,
        expiry.as_secs_f64(),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(JobRow::read).collect()
}

struct JobRow {
    id: Uuid,
    tenant_id: Uuid,
    tenant_name: String,
    status: String,
    paused: bool,
    created_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    request: Value,
    seed: i32,
    priority: i32,
    retry_of: Option<Uuid>,
    base_model: String,
    base_model_sha256: String,
    training_file: Uuid,
    validation_file: Option<Uuid>,
    effective: Option<Value>,
    dataset: Option<Value>,
    estimate: Option<Value>,
    error: Option<Value>,
    trained_tokens: Option<i64>,
    fine_tuned_model: Option<String>,
    result_files: Vec<Uuid>,
    evaluation: Option<Value>,
    parity: Option<Value>,
    progress: Option<Value>,
    pause_requested: bool,
    waiting_reason: Option<String>,
}

impl JobRow {
    fn read(self) -> Result<Job, StoreError> {
        Ok(Job {
            id: JobId(self.id),
            tenant: TenantId(self.tenant_id),
            tenant_name: self.tenant_name,
            status: named("a job's status", &self.status)?,
            paused: self.paused,
            pause_requested: self.pause_requested,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            request: from_json("a job's request", self.request)?,
            seed: small(self.seed),
            priority: self.priority,
            retry_of: self.retry_of.map(JobId),
            base_model: self.base_model,
            base_model_sha256: self.base_model_sha256,
            training_file: FileId(self.training_file),
            validation_file: self.validation_file.map(FileId),
            effective: maybe_json("a job's settings", self.effective)?,
            dataset: maybe_json("a job's dataset facts", self.dataset)?,
            estimate: maybe_json("a job's estimate", self.estimate)?,
            progress: maybe_json("a job's progress", self.progress)?,
            line: None,
            error: maybe_json("a job's error", self.error)?,
            waiting_reason: self.waiting_reason,
            trained_tokens: self.trained_tokens.map(count),
            fine_tuned_model: self.fine_tuned_model,
            result_files: self.result_files.into_iter().map(FileId).collect(),
            evaluation: maybe_json("a job's evaluation", self.evaluation)?,
            parity: maybe_json("a job's parity certificate", self.parity)?,
        })
    }
}
