//! A request that comes twice makes one object.
//!
//! The object and the record of its request are written in one transaction, under an advisory lock on what makes two
//! requests the same. A retry in flight therefore waits for the first one's commit, and takes over at once when the
//! first dies. Nothing is held while a body is read.

use std::time::{Duration, Instant};

use finetuned_protocol::ids::{KeyId, TenantId};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{StoreError, convert::int};

/// For so long, a retry without a key is taken for the request that it repeats.
const WINDOW: Duration = Duration::from_secs(15 * 60);

/// What was made, or what an equal request made before.
#[derive(Debug, Clone, PartialEq)]
pub enum Created<T> {
    New(T),
    Existing(T),
}

impl<T> Created<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::New(object) | Self::Existing(object) => object,
        }
    }

    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }
}

/// How to know a request again.
///
/// With a `client_key` it is known by that key (another fingerprint under it is
/// [`StoreError::IdempotencyMismatch`]). Without one, a request whose `retry_count` is above zero is taken for the
/// newest request of equal caller, route and fingerprint of the last 15 minutes; and a first attempt gives way to a
/// retry of itself that overtook it.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The caller's API key.
    pub caller: Option<KeyId>,
    /// Such as `POST /v1/files`.
    pub route: &'static str,
    /// The `Idempotency-Key` header.
    pub client_key: Option<String>,
    /// The `x-stainless-retry-count` header; 0 where absent.
    pub retry_count: u32,
    /// [`fingerprint`] of the canonical fields and, for an upload, the sha256 of the file's bytes.
    pub fingerprint: [u8; 32],
    /// When the request's head arrived, before its body was read.
    pub received: Instant,
}

/// One hash of several parts; their borders count.
pub fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Idempotency {
    /// Makes equal requests wait for this transaction's end, then looks for what an earlier one made.
    pub(crate) async fn find(&self, tx: &mut PgConnection, tenant: TenantId) -> Result<Option<Uuid>, StoreError> {
        let caller = self.caller.map(|key| key.0.to_string()).unwrap_or_default();
        let same = self.client_key.as_deref().map_or(self.fingerprint.as_slice(), str::as_bytes);
        let kind: &[u8] = if self.client_key.is_some() { b"key" } else { b"fingerprint" };
        let lock = fingerprint(&[tenant.0.as_bytes(), self.route.as_bytes(), caller.as_bytes(), kind, same]);
        let lock = i64::from_le_bytes(std::array::from_fn(|index| lock[index]));
        sqlx::query!("select pg_advisory_xact_lock($1)", lock).execute(&mut *tx).await?;
        match &self.client_key {
            Some(client_key) => self.find_by_key(tx, tenant, client_key).await,
            None => self.find_by_fingerprint(tx, tenant).await,
        }
    }

    async fn find_by_key(
        &self,
        tx: &mut PgConnection,
        tenant: TenantId,
        client_key: &str,
    ) -> Result<Option<Uuid>, StoreError> {
        let row = sqlx::query!(
            "select object_id, fingerprint from idempotency
             where tenant_id = $1 and api_key_id is not distinct from $2 and route = $3 and client_key = $4",
            tenant.0,
            self.caller.map(|key| key.0),
            self.route,
            client_key,
        )
        .fetch_optional(tx)
        .await?;
        match row {
            Some(row) if row.fingerprint == self.fingerprint => Ok(Some(row.object_id)),
            Some(_) => Err(StoreError::IdempotencyMismatch),
            None => Ok(None),
        }
    }

    /// A retry takes any equal request of the window for its own. A first attempt only takes a retry that was recorded
    /// after the attempt had arrived: its client gave it up and asked again, and the second question was answered first.
    async fn find_by_fingerprint(&self, tx: &mut PgConnection, tenant: TenantId) -> Result<Option<Uuid>, StoreError> {
        let found = sqlx::query_scalar!(
            "select object_id from idempotency
             where tenant_id = $1 and api_key_id is not distinct from $2 and route = $3 and fingerprint = $4
               and client_key is null
               and created_at > clock_timestamp() - make_interval(secs => $5)
               and ($6 > 0 or (retry_count > 0 and created_at > clock_timestamp() - make_interval(secs => $7)))
             order by created_at desc
             limit 1",
            tenant.0,
            self.caller.map(|key| key.0),
            self.route,
            self.fingerprint.as_slice(),
            WINDOW.as_secs_f64(),
            int(self.retry_count),
            self.received.elapsed().as_secs_f64(),
        )
        .fetch_optional(tx)
        .await?;
        Ok(found)
    }

    /// Records what the request made.
    pub(crate) async fn record(&self, tx: &mut PgConnection, tenant: TenantId, object: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into idempotency
                 (id, tenant_id, api_key_id, route, client_key, retry_count, fingerprint, object_id, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp())",
            Uuid::now_v7(),
            tenant.0,
            self.caller.map(|key| key.0),
            self.route,
            self.client_key,
            int(self.retry_count),
            self.fingerprint.as_slice(),
            object,
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
