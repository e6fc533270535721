//! What a client reads of a job's course, numbered without gaps in commit order.

use std::collections::HashSet;

use finetuned_protocol::{
    ids::{EventId, JobId, TenantId},
    status::{EventLevel, EventType},
};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Page, Store, StoreError,
    convert::{big, count, named, storable, storable_text},
    jobs::require_job,
};

/// An event of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: EventId,
    /// Counted from 1 in each job, without gaps, in commit order; the id of server-sent events.
    pub sequence: u64,
    pub created_at: OffsetDateTime,
    pub level: EventLevel,
    pub kind: EventType,
    pub message: String,
    pub data: Option<Value>,
}

/// An event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Engine line it comes from; `None` for what the worker itself has to say.
    pub line: Option<u64>,
    pub level: EventLevel,
    pub kind: EventType,
    pub message: String,
    pub data: Option<Value>,
    /// An event whose key this job has already is dropped, such as `step:12` again after a resume.
    pub once: Option<String>,
}

impl NewEvent {
    /// A message of the worker's own.
    pub fn message(level: EventLevel, message: impl Into<String>) -> Self {
        Self { line: None, level, kind: EventType::Message, message: message.into(), data: None, once: None }
    }
}

impl Store {
    /// A page of events, newest first.
    ///
    /// # Errors
    /// `NotFound` with `what` one of `job`, `after`.
    pub async fn list_events(
        &self,
        tenant: TenantId,
        job: JobId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Page<Event>, StoreError> {
        self.call("listing events", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let before = match after {
                None => i64::MAX,
                Some(event) => {
                    let seq =
                        sqlx::query_scalar!("select seq from events where job_id = $1 and id = $2", job.0, event.0);
                    seq.fetch_optional(&mut *connection).await?.ok_or(StoreError::NotFound { what: "after" })?
                }
            };
            let rows = sqlx::query_as!(
                EventRow,
                "select id, seq, created_at, level, kind, message, data from events
                 where job_id = $1 and seq < $2 order by seq desc limit $3",
                job.0,
                before,
                i64::from(limit) + 1,
            );
            let rows = rows.fetch_all(&mut *connection).await?;
            let events = rows.into_iter().map(EventRow::read).collect::<Result<_, _>>()?;
            Ok(Page::cut(events, limit))
        })
        .await
    }

    /// Events after a sequence number, oldest first; for streams.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn events_since(
        &self,
        tenant: TenantId,
        job: JobId,
        sequence: u64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        self.call("reading events", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let rows = sqlx::query_as!(
                EventRow,
                "select id, seq, created_at, level, kind, message, data from events
                 where job_id = $1 and seq > $2 order by seq limit $3",
                job.0,
                big(sequence),
                i64::from(limit),
            );
            let rows = rows.fetch_all(&mut *connection).await?;
            rows.into_iter().map(EventRow::read).collect()
        })
        .await
    }
}

/// How far a job's events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHead {
    pub job: JobId,
    /// Number of its last event.
    pub last: u64,
    /// The job has ended: nothing comes after `last`.
    pub ended: bool,
}

impl Store {
    /// How far the events of these jobs go. Jobs that are gone are left out; whose they are is not asked.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn event_heads(&self, jobs: &[JobId]) -> Result<Vec<EventHead>, StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        self.call("asking for new events", async {
            let rows = sqlx::query!(
                r#"select l.job_id, l.event_seq, j.finished_at is not null as "ended!"
                   from job_live l join jobs j on j.id = l.job_id where l.job_id = any($1)"#,
                &ids,
            );
            let rows = rows.fetch_all(self.pool()).await?.into_iter();
            let head =
                rows.map(|row| EventHead { job: JobId(row.job_id), last: count(row.event_seq), ended: row.ended });
            Ok(head.collect())
        })
        .await
    }
}

/// Appends events to a job. The lock on the job's narrow row is held to the end of the transaction, so numbers follow
/// commits; an aborted transaction gives its numbers back.
pub(crate) async fn append(
    tx: &mut PgConnection,
    (tenant, job): (Uuid, Uuid),
    events: &[NewEvent],
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let last = sqlx::query_scalar!("select event_seq from job_live where job_id = $1 for update", job);
    let last = last.fetch_one(&mut *tx).await?;
    let fresh = only_fresh(tx, job, events).await?;
    let columns = Columns::of(last, &fresh);
    sqlx::query!(
        "insert into events (job_id, tenant_id, seq, id, level, kind, message, data, once)
         select $1, $2, e.*
         from unnest($3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[]) e",
        job,
        tenant,
        &columns.seq,
        &columns.id,
        &columns.level,
        &columns.kind,
        &columns.message,
        &columns.data as _,
        &columns.once as _,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update job_live set event_seq = event_seq + $2 where job_id = $1", job, big(fresh.len() as u64))
        .execute(tx)
        .await?;
    Ok(())
}

/// Leaves out events whose `once` this job has already.
async fn only_fresh<'a>(
    tx: &mut PgConnection,
    job: Uuid,
    events: &'a [NewEvent],
) -> Result<Vec<&'a NewEvent>, StoreError> {
    let keys: Vec<String> = events.iter().filter_map(|event| event.once.clone()).collect();
    if keys.is_empty() {
        return Ok(events.iter().collect());
    }
    let known =
        sqlx::query_scalar!(r#"select once as "once!" from events where job_id = $1 and once = any($2)"#, job, &keys);
    let mut known: HashSet<String> = known.fetch_all(tx).await?.into_iter().collect();
    Ok(events.iter().filter(|event| event.once.as_ref().is_none_or(|once| known.insert(once.clone()))).collect())
}

/// Events turned into columns, for one insert.
#[derive(Default)]
struct Columns {
    seq: Vec<i64>,
    id: Vec<Uuid>,
    level: Vec<String>,
    kind: Vec<String>,
    message: Vec<String>,
    data: Vec<Option<Value>>,
    once: Vec<Option<String>>,
}

impl Columns {
    fn of(last: i64, events: &[&NewEvent]) -> Self {
        let mut columns = Self::default();
        for (seq, event) in (last + 1..).zip(events) {
            let NewEvent { line: _, level, kind, message, data, once } = event;
            columns.seq.push(seq);
            columns.id.push(EventId::generate().0);
            columns.level.push(level.to_string());
            columns.kind.push(kind.to_string());
            columns.message.push(storable_text(message));
            columns.data.push(data.clone().map(storable));
            columns.once.push(once.clone());
        }
        columns
    }
}

struct EventRow {
    id: Uuid,
    seq: i64,
    created_at: OffsetDateTime,
    level: String,
    kind: String,
    message: String,
    data: Option<Value>,
}

impl EventRow {
    fn read(self) -> Result<Event, StoreError> {
        Ok(Event {
            id: EventId(self.id),
            sequence: count(self.seq),
            created_at: self.created_at,
            level: named("an event's level", &self.level)?,
            kind: named("an event's kind", &self.kind)?,
            message: self.message,
            data: self.data,
        })
    }
}
