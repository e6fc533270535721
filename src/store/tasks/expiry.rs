//! Taking back the tasks of workers that went silent.

use std::{sync::Mutex, time::Instant};

use finetuned_protocol::status::{EventLevel, TaskKind};
use uuid::Uuid;

use super::{fence::end_lease, queue::requeue};
use crate::{NewEvent, Store, StoreError, Wake, convert::named, events, listen::wake};

/// Tasks taken back by one scan; the next one goes on.
const BATCH: u64 = 1000;

/// What a process remembers between its scans.
#[derive(Debug, Default)]
pub(crate) struct ScanMemory {
    state: Mutex<ScanState>,
}

#[derive(Debug, Clone, Copy, Default)]
enum ScanState {
    #[default]
    Trusting,
    /// The last scan failed: while we could not reach the database, workers may not have been able to either.
    Troubled,
    /// Reachable again since then; workers have until one expiry later to renew their leases.
    Recovering(Instant),
}

impl ScanMemory {
    fn get(&self) -> ScanState {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, state: ScanState) {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
    }
}

impl Store {
    /// Takes expired leases back; gives how many. To be called every [`crate::Timings::scan`] by every process.
    ///
    /// Nothing is taken back until one expiry after Postgres started, or after this process's first success following
    /// an error: silence then says nothing about the workers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn scan_expired(&self) -> Result<u64, StoreError> {
        let memory = &self.inner.scan;
        let result = self.call("scanning for expired leases", self.scan(memory)).await;
        if result.is_err() {
            memory.set(ScanState::Troubled);
        }
        result
    }

    async fn scan(&self, memory: &ScanMemory) -> Result<u64, StoreError> {
        match memory.get() {
            ScanState::Trusting => {}
            ScanState::Troubled => {
                self.ping().await?;
                memory.set(ScanState::Recovering(Instant::now()));
                return Ok(0);
            }
            ScanState::Recovering(since) if since.elapsed() < self.timings().expiry => {
                self.ping().await?;
                return Ok(0);
            }
            ScanState::Recovering(_) => memory.set(ScanState::Trusting),
        }
        for taken in 0..BATCH {
            if !self.take_one_back().await? {
                return Ok(taken);
            }
        }
        Ok(BATCH)
    }

    /// Takes the longest expired lease back. A lease whose holder is writing at this moment is locked and skipped.
    async fn take_one_back(&self) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query!(
            "select l.task_id, l.tenant_id, t.job_id, t.kind
             from tasks t join task_lease l on l.task_id = t.id
             where t.state = 'running' and l.heartbeat_at < now() - make_interval(secs => $1)
               and pg_postmaster_start_time() < now() - make_interval(secs => $1)
             order by l.heartbeat_at
             limit 1
             for update of l skip locked",
            self.timings().expiry.as_secs_f64(),
        );
        let Some(row) = found.fetch_optional(&mut *tx).await? else { return Ok(false) };
        end_lease(&mut tx, row.task_id).await?;
        sqlx::query!("update tasks set take_backs = take_backs + 1 where id = $1", row.task_id)
            .execute(&mut *tx)
            .await?;
        requeue(&mut tx, row.task_id).await?;
        let message = match named("a task's kind", &row.kind)? {
            TaskKind::Evaluate => "The worker went silent; the evaluation is queued again and asks what is left",
            _ => "The worker went silent; its task is queued again and goes on from the newest checkpoint",
        };
        let scope: (Uuid, Uuid) = (row.tenant_id, row.job_id);
        events::append(&mut tx, scope, &[NewEvent::message(EventLevel::Warn, message)]).await?;
        wake(&mut tx, Wake::Everything).await?;
        tx.commit().await?;
        tracing::warn!(task = %row.task_id, "lease.taken_back");
        Ok(true)
    }
}
