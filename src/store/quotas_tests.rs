#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use finetuned_protocol::status::TaskKind;

use super::*;
use crate::{
    NewFile,
    testing::{TestDatabase, fixtures},
};

async fn acme() -> (Store, TenantId) {
    let store = TestDatabase::create().await.unwrap().store;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    (store, tenant)
}

async fn used(store: &Store, tenant: TenantId) -> TenantUse {
    store.tenants(Some(tenant)).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_tenant_has_no_more_open_jobs_than_it_may() {
    let (store, tenant) = acme().await;
    let other = fixtures::tenant(&store, "globex").await.unwrap();
    store.set_quotas("acme", Quotas { open_jobs: Some(2), ..Quotas::default() }).await.unwrap();
    let first = fixtures::job(&store, tenant).await.unwrap();
    let new = fixtures::new_job(fixtures::file(&store, tenant).await.unwrap()).unwrap();
    // Four at once for one place.
    let attempts = futures::future::join_all((0..4).map(|_| store.create_job(tenant, new.clone(), None))).await;
    assert_eq!(attempts.iter().filter(|made| made.is_ok()).count(), 1);
    for refused in attempts.into_iter().filter_map(Result::err) {
        assert!(
            matches!(refused, StoreError::QuotaExceeded { quota: Quota::OpenJobs, limit: 2, used: 2 }),
            "{refused}"
        );
    }
    fixtures::job(&store, other).await.unwrap();
    store.cancel_job(tenant, first.id).await.unwrap();
    store.create_job(tenant, new, None).await.unwrap();
    let acme = used(&store, tenant).await;
    assert_eq!((acme.open_jobs, acme.quotas.open_jobs), (2, Some(2)));
    let unknown = store.set_quotas("nobody", Quotas::default()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { what: "tenant" })));
}

#[tokio::test]
async fn a_tenant_trains_no_more_at_once_than_it_may() {
    let (store, tenant) = acme().await;
    let worker = fixtures::worker(&store).await.unwrap();
    store.set_quotas("acme", Quotas { running_jobs: Some(1), ..Quotas::default() }).await.unwrap();
    let first = fixtures::training(&store, tenant, &worker).await.unwrap();
    let second = fixtures::job(&store, tenant).await.unwrap();
    // Validated meanwhile, so that its owner knows of bad rows.
    let lease = store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap();
    store.finish_validation(&lease.key, &fixtures::validated(&second).unwrap()).await.unwrap();
    assert!(store.claim(&worker, TaskKind::ALL).await.unwrap().is_none());
    assert_eq!(used(&store, tenant).await.running_jobs, 1);
    store.finish_training(&first.key, &fixtures::trained(&store, tenant).await.unwrap()).await.unwrap();
    assert_eq!(store.claim(&worker, TaskKind::ALL).await.unwrap().unwrap().job.id, second.id);
}

#[tokio::test]
async fn a_months_tokens_end_at_their_limit_and_begin_again() {
    let (store, tenant) = acme().await;
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let trained = fixtures::trained(&store, tenant).await.unwrap();
    store.finish_training(&lease.key, &trained).await.unwrap();
    assert_eq!(used(&store, tenant).await.trained_tokens_this_month, trained.trained_tokens);
    let limit = |tokens| Quotas { trained_tokens_a_month: Some(tokens), ..Quotas::default() };
    store.set_quotas("acme", limit(trained.trained_tokens + 1)).await.unwrap();
    fixtures::job(&store, tenant).await.unwrap();
    store.set_quotas("acme", limit(trained.trained_tokens)).await.unwrap();
    let refused = fixtures::job(&store, tenant).await.unwrap_err();
    let StoreError::QuotaExceeded { quota: Quota::TrainedTokens { resets_in }, .. } = refused else {
        panic!("{refused}")
    };
    assert!(resets_in <= Duration::from_secs(31 * 24 * 3600) && resets_in > Duration::ZERO);
    sqlx::query("update jobs set finished_at = finished_at - interval '32 days' where finished_at is not null")
        .execute(store.pool())
        .await
        .unwrap();
    fixtures::job(&store, tenant).await.unwrap();
}

#[tokio::test]
async fn a_tenant_stores_no_more_than_it_may_and_equal_bytes_once() {
    let (store, tenant) = acme().await;
    let upload = async |content: &'static str| {
        let content = store.put_bytes(tenant, Bytes::from_static(content.as_bytes())).await.unwrap();
        let file = NewFile { content, ..fixtures::new_file(&store, tenant).await.unwrap() };
        store.create_file(tenant, file, None).await.map(|made| made.into_inner().id)
    };
    store.set_quotas("acme", Quotas { stored_bytes: Some(20), ..Quotas::default() }).await.unwrap();
    let first = upload("0123456789").await.unwrap();
    store.check_stored_bytes(tenant).await.unwrap();
    upload("0123456789").await.unwrap();
    upload("9876543210").await.unwrap();
    assert_eq!(used(&store, tenant).await.stored_bytes, 20);
    let full = upload("x").await.unwrap_err();
    assert!(matches!(full, StoreError::QuotaExceeded { quota: Quota::StoredBytes, limit: 20, used: 20 }), "{full}");
    assert!(store.check_stored_bytes(tenant).await.is_err());
    upload("9876543210").await.unwrap();
    store.delete_file(tenant, first).await.unwrap();
    let options = crate::GcOptions { min_age: Duration::ZERO, dry_run: false };
    store.collect_garbage(options).await.unwrap();
    assert!(store.check_stored_bytes(tenant).await.is_err(), "another file has the same bytes");
}
