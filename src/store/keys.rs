//! Tenants and their API keys. Secrets are kept as sha256, compared in constant time, shown once.

use finetuned_protocol::ids::{KeyId, TenantId};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Store, StoreError};

/// The tenant that the first migration makes.
const DEFAULT_TENANT: &str = "default";
const SECRET_PREFIX: &str = "ft-";
/// Hexadecimal digits that find a key's row; the rest of the secret is only ever compared as a hash.
const LOOKUP_DIGITS: usize = 12;

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: TenantId,
    pub tenant_name: String,
    /// `None` for the tenant `default` while there is no key at all.
    pub key: Option<KeyId>,
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
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
    pub revoked_at: Option<OffsetDateTime>,
}

fn lookup_of(secret: &str) -> Option<&str> {
    secret.strip_prefix(SECRET_PREFIX)?.get(..LOOKUP_DIGITS)
}

impl Store {
    /// Makes a key for a tenant, and the tenant where it is new.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an empty name.
    pub async fn create_key(&self, tenant_name: &str, key_name: &str) -> Result<NewKey, StoreError> {
        if tenant_name.trim().is_empty() || key_name.trim().is_empty() {
            return Err(StoreError::conflict("a tenant and a key each need a name"));
        }
        let secret = format!("{SECRET_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
        let digest = Sha256::digest(secret.as_bytes()).to_vec();
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
            let id = KeyId::generate();
            sqlx::query!(
                "insert into api_keys (id, tenant_id, name, lookup, secret_sha256) values ($1, $2, $3, $4, $5)",
                id.0,
                tenant,
                key_name,
                lookup_of(&secret),
                digest,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(NewKey { id, tenant: TenantId(tenant), secret: SecretString::from(secret) })
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
                "select k.id, k.tenant_id, n.name as tenant_name, k.name, k.lookup, k.created_at, k.last_used_at,
                        k.revoked_at
                 from api_keys k join tenants n on n.id = k.tenant_id
                 order by k.created_at, k.id"
            )
            .fetch_all(self.pool())
            .await?;
            let keys = rows.into_iter().map(|row| ApiKey {
                id: KeyId(row.id),
                tenant: TenantId(row.tenant_id),
                tenant_name: row.tenant_name,
                name: row.name,
                hint: format!("{SECRET_PREFIX}{}", row.lookup),
                created_at: row.created_at,
                last_used_at: row.last_used_at,
                revoked_at: row.revoked_at,
            });
            Ok(keys.collect())
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

    /// Whose key a secret is; `None` where it is nobody's or revoked. Notes the use, at most once a minute.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn authenticate(&self, secret: &SecretString) -> Result<Option<Caller>, StoreError> {
        let Some(lookup) = lookup_of(secret.expose_secret()) else { return Ok(None) };
        let digest = Sha256::digest(secret.expose_secret().as_bytes());
        self.call("checking a key", async {
            let row = sqlx::query!(
                r#"select k.id, k.tenant_id, n.name as tenant_name, k.secret_sha256,
                          k.last_used_at is null or k.last_used_at < now() - interval '1 minute' as "is_stale!"
                   from api_keys k join tenants n on n.id = k.tenant_id
                   where k.lookup = $1 and k.revoked_at is null"#,
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
            let (tenant, key) = (TenantId(row.tenant_id), Some(KeyId(row.id)));
            Ok(Some(Caller { tenant, tenant_name: row.tenant_name, key }))
        })
        .await
    }

    /// The tenant of a service without keys.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn default_caller(&self) -> Result<Caller, StoreError> {
        self.call("finding the tenant `default`", async {
            let found = sqlx::query_scalar!("select id from tenants where name = $1", DEFAULT_TENANT);
            let id = found.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "tenant" })?;
            Ok(Caller { tenant: TenantId(id), tenant_name: DEFAULT_TENANT.to_owned(), key: None })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn keys_are_shown_once_known_again_and_revoked() {
        let store = TestDatabase::create().await.unwrap().store;
        assert!(!store.any_key_exists().await.unwrap());
        assert_eq!(store.default_caller().await.unwrap().tenant_name, "default");
        let key = store.create_key("acme", "ci").await.unwrap();
        let again = store.create_key("acme", "laptop").await.unwrap();
        assert_eq!(key.tenant, again.tenant, "one tenant, two keys");
        let caller = store.authenticate(&key.secret).await.unwrap().unwrap();
        assert_eq!((caller.tenant, caller.tenant_name.as_str(), caller.key), (key.tenant, "acme", Some(key.id)));
        let listed = store.list_keys().await.unwrap();
        assert_eq!(listed.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["ci", "laptop"]);
        assert!(listed[0].last_used_at.is_some() && listed[1].last_used_at.is_none());
        assert!(key.secret.expose_secret().starts_with(&listed[0].hint));

        assert!(store.revoke_key(key.id).await.unwrap().revoked_at.is_some());
        assert_eq!(store.authenticate(&key.secret).await.unwrap(), None);
        assert!(store.authenticate(&again.secret).await.unwrap().is_some());
        assert!(matches!(store.revoke_key(KeyId::generate()).await, Err(StoreError::NotFound { what: "key" })));
        store.revoke_key(again.id).await.unwrap();
        assert!(store.any_key_exists().await.unwrap(), "a service whose last key was revoked stays closed");
    }

    #[tokio::test]
    async fn what_is_no_key_is_nobodys() {
        let store = TestDatabase::create().await.unwrap().store;
        let key = store.create_key("acme", "ci").await.unwrap();
        let secret = key.secret.expose_secret();
        // The lookup part is right, the rest is not.
        let forged = format!("{}{}", &secret[..SECRET_PREFIX.len() + LOOKUP_DIGITS], "0".repeat(52));
        for wrong in ["", "ft-", "sk-1234", "ft-é1234567890", &secret[..secret.len() - 1], &forged] {
            assert_eq!(store.authenticate(&SecretString::from(wrong)).await.unwrap(), None, "{wrong}");
        }
        assert!(matches!(store.create_key(" ", "ci").await, Err(StoreError::Conflict { .. })));
        let stored: Vec<String> =
            sqlx::query_scalar("select api_keys::text from api_keys").fetch_all(store.pool()).await.unwrap();
        assert!(!stored[0].contains(&secret[SECRET_PREFIX.len() + LOOKUP_DIGITS..]), "secrets are not stored");
    }

    #[tokio::test]
    async fn use_is_noted_at_most_once_a_minute() {
        let store = TestDatabase::create().await.unwrap().store;
        let key = store.create_key("acme", "ci").await.unwrap();
        let used = async || {
            store.authenticate(&key.secret).await.unwrap();
            store.list_keys().await.unwrap()[0].last_used_at.unwrap()
        };
        let first = used().await;
        assert_eq!(used().await, first);
        let age = "update api_keys set last_used_at = last_used_at - interval '61 s'";
        sqlx::query(age).execute(store.pool()).await.unwrap();
        assert!(used().await > first - time::Duration::seconds(1));
    }
}
