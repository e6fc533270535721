//! Tenants and their API keys. Secrets are kept as sha256, compared in constant time, shown once.

use std::time::Duration;

use finetuned_protocol::{
    access::Scope,
    ids::{KeyId, TenantId},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    convert::{named, small},
};

/// The tenant that the first migration makes.
const DEFAULT_TENANT: &str = "default";
const SECRET_PREFIX: &str = "ft-";
/// Hexadecimal digits that find a key's row; the rest of the secret is only ever compared as a hash.
const LOOKUP_DIGITS: usize = 12;

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The project for which the request acts.
    pub tenant: TenantId,
    /// What that project belongs to; the same where it is an organisation's first.
    pub organization: TenantId,
    pub tenant_name: String,
    /// `None` for the tenant `default` while there is no key at all.
    pub key: Option<KeyId>,
    pub scopes: Vec<Scope>,
    /// The tenant's limit, where the operator set one.
    pub requests_per_second: Option<u32>,
}

/// What a new key may do, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    pub scopes: Vec<Scope>,
    /// `None` for a key that works until it is revoked.
    pub expires_after: Option<Duration>,
}

impl Default for KeyGrant {
    fn default() -> Self {
        Self { scopes: Scope::ALL.to_vec(), expires_after: None }
    }
}

/// A key just made; the only time its secret is seen.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub id: KeyId,
    pub tenant: TenantId,
    pub secret: SecretString,
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub tenant: TenantId,
    pub tenant_name: String,
    pub name: String,
    /// First characters of the secret, enough to tell keys apart.
    pub hint: String,
    pub created_at: OffsetDateTime,
    pub scopes: Vec<Scope>,
    pub expires_at: Option<OffsetDateTime>,
    pub is_expired: bool,
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

fn lookup_of(secret: &str) -> Option<&str> {
    secret.strip_prefix(SECRET_PREFIX)?.get(..LOOKUP_DIGITS)
}

fn scopes(names: &[String]) -> Result<Vec<Scope>, StoreError> {
    names.iter().map(|name| named("a key's scope", name)).collect()
}

async fn insert(
    tx: &mut PgConnection,
    tenant: Uuid,
    name: &str,
    grant: &KeyGrant,
    rotated_from: Option<Uuid>,
) -> Result<NewKey, StoreError> {
    let secret = format!("{SECRET_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    let digest = Sha256::digest(secret.as_bytes()).to_vec();
    let scopes: Vec<String> = grant.scopes.iter().map(ToString::to_string).collect();
    let id = KeyId::generate();
    sqlx::query!(
        "insert into api_keys (id, tenant_id, name, lookup, secret_sha256, scopes, expires_at, rotated_from)
         values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7), $8)",
        id.0,
        tenant,
        name,
        lookup_of(&secret),
        digest,
        &scopes,
        grant.expires_after.map(|lifetime| lifetime.as_secs_f64()) as _,
        rotated_from,
    )
    .execute(tx)
    .await?;
    Ok(NewKey { id, tenant: TenantId(tenant), secret: SecretString::from(secret) })
}

impl Store {
    /// Makes a key for a tenant, and the tenant where it is new.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an empty name or a grant of nothing.
    pub async fn create_key(&self, tenant_name: &str, key_name: &str, grant: &KeyGrant) -> Result<NewKey, StoreError> {
        if tenant_name.trim().is_empty() || key_name.trim().is_empty() {
            return Err(StoreError::conflict("a tenant and a key each need a name"));
        }
        if grant.scopes.is_empty() {
            return Err(StoreError::conflict("a key needs at least one scope"));
        }
        self.call("making a key", async {
            let mut tx = self.begin().await?;
            let tenant = sqlx::query_scalar!(
                "insert into tenants (id, name) values ($1, $2)
                 on conflict (name) do update set name = excluded.name
                 returning id",
                Uuid::now_v7(),
                tenant_name,
            )
            .fetch_one(&mut *tx)
            .await?;
            let key = insert(&mut tx, tenant, key_name, grant, None).await?;
            tx.commit().await?;
            Ok(key)
        })
        .await
    }

    /// Makes a key that takes the place of another: same tenant, name, scopes and lifetime. The old one goes on working
    /// for `overlap`, so that its users can be told meanwhile.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where the old key is revoked or has expired.
    pub async fn rotate_key(&self, key: KeyId, overlap: Duration) -> Result<NewKey, StoreError> {
        self.call("rotating a key", async {
            let mut tx = self.begin().await?;
            let old = sqlx::query!(
                r#"select tenant_id, name, scopes, revoked_at is null and (expires_at is null or expires_at > now()) as "works!",
                          extract(epoch from expires_at - created_at)::float8 as lifetime
                   from api_keys where id = $1 for update"#,
                key.0,
            );
            let old = old.fetch_optional(&mut *tx).await?.ok_or(StoreError::NotFound { what: "key" })?;
            if !old.works {
                return Err(StoreError::conflict("the key no longer works, so there is nothing to go on from; create one"));
            }
            let grant = KeyGrant {
                scopes: scopes(&old.scopes)?,
                expires_after: old.lifetime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            };
            let new = insert(&mut tx, old.tenant_id, &old.name, &grant, Some(key.0)).await?;
            sqlx::query!(
                "update api_keys set expires_at = least(expires_at, now() + make_interval(secs => $2)) where id = $1",
                key.0,
                overlap.as_secs_f64(),
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(new)
        })
        .await
    }

    /// All keys of all tenants, oldest first, revoked ones too.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.call("listing keys", async {
            let rows = sqlx::query!(
                r#"select k.id, k.tenant_id, n.name as tenant_name, k.name, k.lookup, k.created_at, k.last_used_at,
                          k.revoked_at, k.scopes, k.expires_at,
                          coalesce(k.expires_at <= now(), false) as "is_expired!"
                   from api_keys k join tenants n on n.id = k.tenant_id
                   order by k.created_at, k.id"#
            )
            .fetch_all(self.pool())
            .await?;
            let keys = rows.into_iter().map(|row| {
                Ok(ApiKey {
                    id: KeyId(row.id),
                    tenant: TenantId(row.tenant_id),
                    tenant_name: row.tenant_name,
                    name: row.name,
                    hint: format!("{SECRET_PREFIX}{}", row.lookup),
                    created_at: row.created_at,
                    scopes: scopes(&row.scopes)?,
                    expires_at: row.expires_at,
                    is_expired: row.is_expired,
                    last_used_at: row.last_used_at,
                    revoked_at: row.revoked_at,
                })
            });
            keys.collect()
        })
        .await
    }

    /// Revokes a key for good; again is no error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_key(&self, key: KeyId) -> Result<ApiKey, StoreError> {
        self.call("revoking a key", async {
            sqlx::query!("update api_keys set revoked_at = coalesce(revoked_at, now()) where id = $1", key.0)
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await?;
        let keys = self.list_keys().await?;
        keys.into_iter().find(|found| found.id == key).ok_or(StoreError::NotFound { what: "key" })
    }

    /// Whether any key was ever made: a service whose last key was revoked must not fall open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn any_key_exists(&self) -> Result<bool, StoreError> {
        self.call("looking for keys", async {
            let found = sqlx::query_scalar!(r#"select exists(select from api_keys) as "found!""#);
            Ok(found.fetch_one(self.pool()).await?)
        })
        .await
    }

    /// Whose key a secret is; `None` where it is nobody's, revoked or expired. Notes the use, at most once a minute.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn authenticate(&self, secret: &SecretString) -> Result<Option<Caller>, StoreError> {
        let Some(lookup) = lookup_of(secret.expose_secret()) else { return Ok(None) };
        let digest = Sha256::digest(secret.expose_secret().as_bytes());
        self.call("checking a key", async {
            let row = sqlx::query!(
                r#"select k.id, k.tenant_id, n.name as tenant_name, k.secret_sha256, k.scopes, n.organization_id,
                          q.requests_per_second as "requests_per_second?",
                          k.last_used_at is null or k.last_used_at < now() - interval '1 minute' as "is_stale!"
                   from api_keys k
                   join tenants n on n.id = k.tenant_id
                   left join tenant_quotas q on q.tenant_id = k.tenant_id
                   where k.lookup = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())"#,
                lookup,
            )
            .fetch_optional(self.pool())
            .await?;
            let Some(row) = row else { return Ok(None) };
            if !bool::from(digest[..].ct_eq(&row.secret_sha256)) {
                return Ok(None);
            }
            if row.is_stale {
                sqlx::query!("update api_keys set last_used_at = now() where id = $1", row.id)
                    .execute(self.pool())
                    .await?;
            }
            Ok(Some(Caller {
                tenant: TenantId(row.tenant_id),
                organization: TenantId(row.organization_id.unwrap_or(row.tenant_id)),
                tenant_name: row.tenant_name,
                key: Some(KeyId(row.id)),
                scopes: scopes(&row.scopes)?,
                requests_per_second: row.requests_per_second.map(small),
            }))
        })
        .await
    }

    /// The tenant of a service without keys.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn default_caller(&self) -> Result<Caller, StoreError> {
        self.call("finding the tenant `default`", async {
            let found = sqlx::query!(
                r#"select n.id, q.requests_per_second as "requests_per_second?"
                   from tenants n left join tenant_quotas q on q.tenant_id = n.id
                   where n.name = $1"#,
                DEFAULT_TENANT,
            );
            let row = found.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "tenant" })?;
            let scopes = Scope::ALL.to_vec();
            Ok(Caller {
                tenant: TenantId(row.id),
                organization: TenantId(row.id),
                tenant_name: DEFAULT_TENANT.to_owned(),
                key: None,
                scopes,
                requests_per_second: row.requests_per_second.map(small),
            })
        })
        .await
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
