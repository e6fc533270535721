//! Which task a worker runs next.
//!
//! Between tenants: fewest running tasks by weight first, then start-time fair queuing (Goyal, Vin & Cheng 1996), so
//! that with one worker, too, tenants take turns by their weights, and a tenant with one task behind another's ten
//! thousand starts next. Within a tenant: priority, then time.

use finetuned_protocol::{
    ids::{FileId, TaskId, TenantId},
    status::TaskKind,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Lease, LeaseKey, LeasedFile};
use crate::{
    BaseModel, BlobId, Store, StoreError, StoredBlob, WorkerFacts, checkpoints,
    convert::{big, count, small},
    jobs::fetch_jobs,
    migrate::SCHEMA_VERSION,
    models::BaseModelRow,
};

/// Candidates of each tenant: where another claim has locked the first, the next one serves.
const CANDIDATES: i64 = 4;
/// Checkpoints that a lease brings along.
const CHECKPOINTS: i64 = 3;

struct Claimed {
    task: Uuid,
    tenant: Uuid,
    job: Uuid,
    kind: TaskKind,
    epoch: i64,
    attempt: i32,
    crashes: i32,
}

impl Store {
    /// Leases the next task that this worker can run: fair between tenants first, then by priority, then by time.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] where this program is older than the database; [`StoreError::Unavailable`].
    pub async fn claim(&self, worker: &WorkerFacts, kinds: &[TaskKind]) -> Result<Option<Lease>, StoreError> {
        self.call("claiming a task", async {
            let mut tx = self.begin().await?;
            lock_host(&mut tx, &worker.host).await?;
            let Some(claimed) = claim_one(&mut tx, worker, kinds).await? else {
                return refuse_newer_schema(&mut tx).await.map(|()| None);
            };
            charge(&mut tx, claimed.tenant).await?;
            let lease = self.describe(&mut tx, claimed).await?;
            tx.commit().await?;
            Ok(Some(lease))
        })
        .await
    }

    async fn describe(&self, tx: &mut PgConnection, claimed: Claimed) -> Result<Lease, StoreError> {
        let tenant = TenantId(claimed.tenant);
        let jobs = fetch_jobs(tx, tenant, &[claimed.job], self.timings().expiry).await?;
        let job = jobs.into_iter().next().ok_or(StoreError::NotFound { what: "job" })?;
        let (training, validation) = datasets(tx, claimed.job).await?;
        Ok(Lease {
            key: LeaseKey { task: TaskId(claimed.task), epoch: claimed.epoch },
            kind: claimed.kind,
            attempt: small(claimed.attempt),
            crashes: small(claimed.crashes),
            base_model: base_model(tx, claimed.job).await?,
            checkpoints: checkpoints::fetch(tx, job.id, i32::MAX, CHECKPOINTS).await?,
            job,
            training,
            validation,
        })
    }
}

/// Says why there is nothing for a program that is older than the database, whatever waits there.
async fn refuse_newer_schema(tx: &mut PgConnection) -> Result<(), StoreError> {
    let found = sqlx::query_scalar!("select version from schema_marker").fetch_one(tx).await?;
    match found > SCHEMA_VERSION {
        true => Err(StoreError::NewerSchema { found: found.into(), known: SCHEMA_VERSION.into() }),
        false => Ok(()),
    }
}

/// Workers of one host claim one after the other, so that each sees what the others reserved on their common disks.
async fn lock_host(tx: &mut PgConnection, host: &str) -> Result<(), StoreError> {
    let lock = crate::fingerprint(&[b"claims of a host", host.as_bytes()]);
    let lock = i64::from_le_bytes(std::array::from_fn(|index| lock[index]));
    sqlx::query!("select pg_advisory_xact_lock($1)", lock).execute(tx).await?;
    Ok(())
}

/// Ranks, locks, and takes one task. Ranking and locking stand apart, because `for update` is refused beside window
/// functions; a lease locked by somebody else is skipped, so a claim never waits.
async fn claim_one(
    tx: &mut PgConnection,
    worker: &WorkerFacts,
    kinds: &[TaskKind],
) -> Result<Option<Claimed>, StoreError> {
    let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    let row = sqlx::query!(
        r#"with reserved as (
               select coalesce(sum(work_bytes) filter (where host = $7), 0)::bigint as work_bytes,
                      coalesce(sum(stored_bytes), 0)::bigint as stored_bytes
               from disk_reservations
           ),
           running as (
               select tenant_id, count(*) as tasks from tasks where state = 'running' group by tenant_id
           ),
           clock as (
               select coalesce(max(start_tag), 0) as virtual_time from tenant_shares
           ),
           candidates as (
               select c.id, n.id as tenant_id, n.weight,
                      row_number() over (partition by n.id order by c.priority desc, c.queued_at, c.id) as place
               from tenants n
               left join tenant_quotas q on q.tenant_id = n.id
               cross join reserved v
               cross join lateral (
                   select t.id, t.priority, t.queued_at
                   from tasks t
                   where t.tenant_id = n.id and t.state = 'queued' and t.kind = any($1) and t.needs_model = any($2)
                     and coalesce(t.needs_memory_bytes, 0) <= $3
                     and has_room(t.needs_work_bytes, t.needs_stored_bytes, $8::bigint - v.work_bytes,
                                  $9::bigint - v.stored_bytes, $10)
                     and (q.running_jobs is null or t.kind <> 'train' or q.running_jobs > (
                         select count(*) from tasks r
                         where r.tenant_id = n.id and r.state = 'running' and r.kind = 'train'
                     ))
                   order by t.priority desc, t.queued_at, t.id
                   limit $4
               ) c
               where (select version from schema_marker) <= $5
           ),
           ranked as (
               select c.id,
                      row_number() over (
                          order by (coalesce(r.tasks, 0) + c.place - 1) / c.weight,
                                   greatest(clock.virtual_time, s.finish_tag), c.tenant_id, c.place
                      ) as rank
               from candidates c
               cross join clock
               left join running r on r.tenant_id = c.tenant_id
               left join tenant_shares s on s.tenant_id = c.tenant_id
           ),
           locked as (
               select l.task_id
               from ranked k
               join tasks t on t.id = k.id
               join task_lease l on l.task_id = k.id
               where t.state = 'queued'
               order by k.rank
               limit 1
               for update of l, t skip locked
           ),
           claimed as (
               update tasks t
               set state = 'running', attempt = t.attempt + 1, started_at = coalesce(t.started_at, now())
               from locked
               where t.id = locked.task_id and t.state = 'queued'
               returning t.id, t.tenant_id, t.job_id, t.kind, t.attempt, t.crashes
           )
           update task_lease l
           set epoch = l.epoch + 1, worker_id = $6, heartbeat_at = now(), last_line = 0
           from claimed c
           where l.task_id = c.id
           returning c.id, c.tenant_id, c.job_id, c.kind, c.attempt, c.crashes, l.epoch"#,
        &kinds,
        &worker.models,
        big(worker.free_memory_bytes),
        CANDIDATES,
        SCHEMA_VERSION,
        worker.id.0,
        worker.host,
        big(worker.disk.work_bytes),
        big(worker.disk.stored_bytes),
        worker.disk.is_shared,
    );
    let Some(row) = row.fetch_optional(tx).await? else { return Ok(None) };
    Ok(Some(Claimed {
        task: row.id,
        tenant: row.tenant_id,
        job: row.job_id,
        kind: crate::convert::named("a task's kind", &row.kind)?,
        epoch: row.epoch,
        attempt: row.attempt,
        crashes: row.crashes,
    }))
}

/// Puts the task on the tenant's account: its next one's turn comes `1 / weight` of virtual time later.
async fn charge(tx: &mut PgConnection, tenant: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into tenant_shares as s (tenant_id, start_tag, finish_tag)
         select n.id, clock.virtual_time, clock.virtual_time + 1 / n.weight
         from tenants n, (select coalesce(max(start_tag), 0) as virtual_time from tenant_shares) clock
         where n.id = $1
         on conflict (tenant_id) do update
             set start_tag = greatest(excluded.start_tag, s.finish_tag),
                 finish_tag = greatest(excluded.start_tag, s.finish_tag)
                     + (select 1 / weight from tenants where id = excluded.tenant_id)",
        tenant,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn base_model(tx: &mut PgConnection, job: Uuid) -> Result<BaseModel, StoreError> {
    let row = sqlx::query_as!(
        BaseModelRow,
        "select m.name, m.path, m.source, m.license, m.sha256, m.facts, m.created_at
         from jobs j join base_models m on m.id = j.base_model_id where j.id = $1",
        job,
    );
    row.fetch_optional(tx).await?.ok_or(StoreError::NotFound { what: "model" })?.read()
}

async fn datasets(tx: &mut PgConnection, job: Uuid) -> Result<(LeasedFile, Option<LeasedFile>), StoreError> {
    let row = sqlx::query!(
        r#"select j.training_file, j.training_blob_id, t.bytes as "training_bytes!", t.sha256 as "training_sha256!",
                  j.validation_file, j.validation_blob_id, v.bytes as "validation_bytes?",
                  v.sha256 as "validation_sha256?"
           from jobs j
           join blobs t on t.id = j.training_blob_id
           left join blobs v on v.id = j.validation_blob_id
           where j.id = $1"#,
        job,
    )
    .fetch_one(tx)
    .await?;
    let file = |id: Uuid, blob: Uuid, bytes: i64, sha256: &[u8]| LeasedFile {
        id: FileId(id),
        content: StoredBlob { id: BlobId(blob), bytes: count(bytes), sha256: hex::encode(sha256) },
    };
    let training = file(row.training_file, row.training_blob_id, row.training_bytes, &row.training_sha256);
    let validation = match (row.validation_file, row.validation_blob_id, row.validation_bytes, row.validation_sha256) {
        (Some(id), Some(blob), Some(bytes), Some(sha256)) => Some(file(id, blob, bytes, &sha256)),
        _ => None,
    };
    Ok((training, validation))
}
