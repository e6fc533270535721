//! Worker processes: what they can run, and whether they are alive.

use finetuned_protocol::ids::WorkerId;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    Store, StoreError,
    convert::{big, count, int, small},
    migrate::SCHEMA_VERSION,
};

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerFacts {
    pub id: WorkerId,
    pub host: String,
    /// Version of the program.
    pub version: String,
    /// Devices it computes on, in its own words.
    pub devices: Value,
    pub threads: u32,
    /// Such as `avx512`.
    pub instruction_set: String,
    /// Memory it may use for one task; tasks estimated to need more are not given to it.
    pub free_memory_bytes: u64,
    pub disk: DiskRoom,
    /// Hashes of the base models it has.
    pub models: Vec<String>,
}

/// Room on a worker's disks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// Where attempts have their folders: what is free, and what attempts of this host hold there.
    pub work_bytes: u64,
    /// Where the store's bytes lie: what is free.
    pub stored_bytes: u64,
    /// Whether both are one disk.
    pub is_shared: bool,
}

/// A worker as the database knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    pub facts: WorkerFacts,
    pub registered_at: OffsetDateTime,
    pub seen_at: OffsetDateTime,
    /// Seen within the last lease expiry.
    pub alive: bool,
}

impl Store {
    /// Registers a worker, or renews what it says of itself.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn register_worker(&self, facts: &WorkerFacts) -> Result<(), StoreError> {
        self.call("registering a worker", async {
            sqlx::query!(
                "insert into workers
                     (id, host, version, devices, threads, instruction_set, free_memory_bytes, models,
                      free_work_bytes, free_stored_bytes, shares_disk, known_schema)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                 on conflict (id) do update set
                     host = excluded.host, version = excluded.version, devices = excluded.devices,
                     threads = excluded.threads, instruction_set = excluded.instruction_set,
                     free_memory_bytes = excluded.free_memory_bytes, models = excluded.models, seen_at = now(),
                     free_work_bytes = excluded.free_work_bytes, free_stored_bytes = excluded.free_stored_bytes,
                     shares_disk = excluded.shares_disk, known_schema = excluded.known_schema",
                facts.id.0,
                facts.host,
                facts.version,
                facts.devices,
                int(facts.threads),
                facts.instruction_set,
                big(facts.free_memory_bytes),
                &facts.models,
                big(facts.disk.work_bytes),
                big(facts.disk.stored_bytes),
                facts.disk.is_shared,
                SCHEMA_VERSION,
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    /// Says that a worker is alive; to be called about once a heartbeat.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where it is not registered (any more): register again.
    pub async fn worker_seen(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.call("noting that a worker is alive", async {
            let seen = sqlx::query!("update workers set seen_at = now() where id = $1", worker.0);
            match seen.execute(self.pool()).await?.rows_affected() {
                0 => Err(StoreError::NotFound { what: "worker" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Says that a worker ends, so that what only it could run says so at once. Forgets workers silent for a week.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn worker_gone(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.call("noting that a worker ends", async {
            sqlx::query!("delete from workers where id = $1 or seen_at < now() - interval '7 days'", worker.0)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await
    }

    /// Workers seen in the last day, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_workers(&self) -> Result<Vec<Worker>, StoreError> {
        self.call("listing workers", async {
            let rows = sqlx::query!(
                r#"select id, host, version, devices, threads, instruction_set, free_memory_bytes, models,
                          free_work_bytes, free_stored_bytes, shares_disk, registered_at, seen_at, seen_at > now() - make_interval(secs => $1) as "alive!"
                   from workers
                   where seen_at > now() - interval '1 day'
                   order by registered_at desc, id desc"#,
                self.timings().expiry.as_secs_f64(),
            )
            .fetch_all(self.pool())
            .await?;
            let workers = rows.into_iter().map(|row| Worker {
                facts: WorkerFacts {
                    id: WorkerId(row.id),
                    host: row.host,
                    version: row.version,
                    devices: row.devices,
                    threads: small(row.threads),
                    instruction_set: row.instruction_set,
                    free_memory_bytes: count(row.free_memory_bytes),
                    disk: DiskRoom {
                        work_bytes: row.free_work_bytes.map_or(u64::MAX, count),
                        stored_bytes: row.free_stored_bytes.map_or(u64::MAX, count),
                        is_shared: row.shares_disk,
                    },
                    models: row.models,
                },
                registered_at: row.registered_at,
                seen_at: row.seen_at,
                alive: row.alive,
            });
            Ok(workers.collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use crate::testing::{TestDatabase, fixtures};

    #[tokio::test]
    async fn a_worker_is_alive_while_it_is_seen() {
        let store = TestDatabase::create().await.unwrap().store;
        let facts = fixtures::worker(&store).await.unwrap();
        let listed = async || store.list_workers().await.unwrap();
        assert_eq!((listed().await[0].facts.clone(), listed().await[0].alive), (facts.clone(), true));
        sqlx::query("update workers set seen_at = now() - interval '21 s'").execute(store.pool()).await.unwrap();
        assert!(!listed().await[0].alive);
        store.worker_seen(facts.id).await.unwrap();
        assert!(listed().await[0].alive);
        store.worker_gone(facts.id).await.unwrap();
        assert!(listed().await.is_empty());
    }
}
