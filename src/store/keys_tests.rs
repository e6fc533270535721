//! Keys: shown once, known again, limited in what they may do and for how long.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::testing::TestDatabase;

#[tokio::test]
async fn keys_are_shown_once_known_again_and_revoked() {
    let store = TestDatabase::create().await.unwrap().store;
    assert!(!store.any_key_exists().await.unwrap());
    assert_eq!(store.default_caller().await.unwrap().tenant_name, "default");
    let key = store.create_key("acme", "ci", &KeyGrant::default()).await.unwrap();
    let again = store.create_key("acme", "laptop", &KeyGrant::default()).await.unwrap();
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
    let key = store.create_key("acme", "ci", &KeyGrant::default()).await.unwrap();
    let secret = key.secret.expose_secret();
    // The lookup part is right, the rest is not.
    let forged = format!("{}{}", &secret[..SECRET_PREFIX.len() + LOOKUP_DIGITS], "0".repeat(52));
    for wrong in ["", "ft-", "sk-1234", "ft-é1234567890", &secret[..secret.len() - 1], &forged] {
        assert_eq!(store.authenticate(&SecretString::from(wrong)).await.unwrap(), None, "{wrong}");
    }
    assert!(matches!(store.create_key(" ", "ci", &KeyGrant::default()).await, Err(StoreError::Conflict { .. })));
    let stored: Vec<String> =
        sqlx::query_scalar("select api_keys::text from api_keys").fetch_all(store.pool()).await.unwrap();
    assert!(!stored[0].contains(&secret[SECRET_PREFIX.len() + LOOKUP_DIGITS..]), "secrets are not stored");
}

#[tokio::test]
async fn use_is_noted_at_most_once_a_minute() {
    let store = TestDatabase::create().await.unwrap().store;
    let key = store.create_key("acme", "ci", &KeyGrant::default()).await.unwrap();
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

#[tokio::test]
async fn a_key_may_do_what_it_was_made_for_until_it_expires() {
    let store = TestDatabase::create().await.unwrap().store;
    let grant = KeyGrant { scopes: vec![Scope::Read, Scope::Rate], expires_after: Some(Duration::from_secs(60)) };
    let key = store.create_key("acme", "rater", &grant).await.unwrap();
    let caller = store.authenticate(&key.secret).await.unwrap().unwrap();
    assert_eq!(caller.scopes, [Scope::Read, Scope::Rate]);
    sqlx::query("update api_keys set expires_at = now()").execute(store.pool()).await.unwrap();
    assert_eq!(store.authenticate(&key.secret).await.unwrap(), None);
    assert!(store.list_keys().await.unwrap()[0].is_expired);
    let nothing = KeyGrant { scopes: Vec::new(), expires_after: None };
    assert!(matches!(store.create_key("acme", "none", &nothing).await, Err(StoreError::Conflict { .. })));
}

#[tokio::test]
async fn a_rotated_key_works_beside_its_successor_for_the_overlap() {
    let store = TestDatabase::create().await.unwrap().store;
    let grant = KeyGrant { scopes: vec![Scope::Read], expires_after: Some(Duration::from_secs(86_400)) };
    let old = store.create_key("acme", "ci", &grant).await.unwrap();
    let new = store.rotate_key(old.id, Duration::from_secs(3600)).await.unwrap();
    for secret in [&old.secret, &new.secret] {
        assert_eq!(store.authenticate(secret).await.unwrap().unwrap().scopes, [Scope::Read]);
    }
    let listed = store.list_keys().await.unwrap();
    let lifetime = |key: &ApiKey| (key.expires_at.unwrap() - key.created_at).whole_seconds();
    assert_eq!(listed.iter().map(lifetime).collect::<Vec<_>>(), [3600, 86_400], "the new one lives as long anew");
    assert_eq!(listed[1].name, "ci");

    sqlx::query("update api_keys set expires_at = now() where id = $1")
        .bind(old.id.0)
        .execute(store.pool())
        .await
        .unwrap();
    assert_eq!(store.authenticate(&old.secret).await.unwrap(), None);
    let again = store.rotate_key(old.id, Duration::ZERO).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })), "an expired key has no successor");
    let unknown = store.rotate_key(KeyId::generate(), Duration::ZERO).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { what: "key" })));
    let at_once = store.rotate_key(new.id, Duration::ZERO).await.unwrap();
    assert_eq!(store.authenticate(&new.secret).await.unwrap(), None, "without an overlap the old key ends at once");
    assert!(store.authenticate(&at_once.secret).await.unwrap().is_some());
}
