//! Brings the schema up to date.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
};

use crate::{Store, StoreError};

/// The version of the schema that this program writes and claims from; equals the newest migration's.
pub(crate) const SCHEMA_VERSION: i32 = 80;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Longest wait for a connection; a migration itself may take as long as it needs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Store {
    /// Applies the migrations that this program knows, under a lock, so that several processes may start at once.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] where a newer program was here; [`StoreError::Migration`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        // A connection of its own: the pool's have limits that a migration may exceed.
        let connect = PgConnection::connect_with(&self.inner.connect);
        let mut connection = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|error| StoreError::from(error).while_doing("connecting to migrate"))?,
            Err(_) => {
                let reason = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                return Err(StoreError::Unavailable { doing: "connecting to migrate", reason });
            }
        };
        let done = MIGRATIONS.run(&mut connection).await;
        let _ = connection.close().await;
        done.map_err(refusal)
    }
}

fn refusal(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(found) if found > i64::from(SCHEMA_VERSION) => {
            StoreError::NewerSchema { found, known: i64::from(SCHEMA_VERSION) }
        }
        MigrateError::Execute(error) => match StoreError::from(error) {
            StoreError::Database { source, .. } => StoreError::Migration(Box::new(MigrateError::Execute(source))),
            away => away.while_doing("migrating the schema"),
        },
        other => StoreError::Migration(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn the_marker_names_the_newest_migration_and_migrating_again_changes_nothing() {
        let database = TestDatabase::create().await.unwrap();
        database.store.migrate().await.unwrap();
        let marker: i32 =
            sqlx::query_scalar("select version from schema_marker").fetch_one(database.store.pool()).await.unwrap();
        assert_eq!(marker, SCHEMA_VERSION);
        assert_eq!(MIGRATIONS.iter().map(|migration| migration.version).max(), Some(i64::from(SCHEMA_VERSION)));
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let database = TestDatabase::create().await.unwrap();
        let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                     values (9999, 'from the future', true, '', 0)";
        sqlx::query(newer).execute(database.store.pool()).await.unwrap();
        let error = database.store.migrate().await.unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 9999, .. }), "{error}");
    }

    #[tokio::test]
    async fn several_processes_may_migrate_at_once() {
        let database = TestDatabase::empty().await.unwrap();
        let (a, b) = (database.store.clone(), database.store.clone());
        let (first, second) = tokio::join!(a.migrate(), b.migrate());
        first.unwrap();
        second.unwrap();
    }
}
