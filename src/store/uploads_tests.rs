#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Instant;

use bytes::Bytes;
use finetuned_protocol::status::FileStatus;

use super::*;
use crate::{
    GcOptions, fingerprint,
    testing::{TestDatabase, fixtures},
};

const NOW: GcOptions = GcOptions { min_age: Duration::ZERO, dry_run: false };

fn first_time(what: &[u8]) -> Idempotency {
    let fingerprint = fingerprint(&[what]);
    Idempotency { caller: None, route: "test", client_key: None, retry_count: 0, fingerprint, received: Instant::now() }
}

async fn begun() -> (Store, TenantId, UploadId) {
    let store = TestDatabase::create().await.unwrap().store;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let new = NewUpload {
        filename: "rows".to_owned(),
        purpose: "batch".to_owned(),
        mime_type: "text/plain".to_owned(),
        bytes: 4,
        reading: ReadingSpec::default(),
        file_expires_after: Some(Duration::from_secs(3600)),
    };
    let upload = store.create_upload(tenant, &new, &first_time(b"upload")).await.unwrap().into_inner();
    assert_eq!(upload.file_expires_after, new.file_expires_after);
    (store, tenant, upload.id)
}

async fn content(store: &Store, tenant: TenantId) -> StoredBlob {
    store.put_bytes(tenant, Bytes::from_static(b"rows")).await.unwrap()
}

fn file(content: StoredBlob) -> NewFile {
    NewFile {
        filename: "rows".to_owned(),
        purpose: "batch".to_owned(),
        expires_after: None,
        status: FileStatus::Processed,
        status_details: None,
        content,
        lint: None,
        reading: ReadingSpec::default(),
        findings: None,
    }
}

#[tokio::test]
async fn an_upload_that_was_not_completed_in_time_is_let_go() {
    let (store, tenant, upload) = begun().await;
    let part = content(&store, tenant).await;
    store.add_part(tenant, upload, &part, &first_time(b"part")).await.unwrap();
    store.collect_garbage(NOW).await.unwrap();
    assert_eq!(store.get_blob_bytes(part.id).await.unwrap(), "rows", "parts of a pending upload are kept");
    let age = |interval: &'static str| {
        let store = store.clone();
        async move { sqlx::query(interval).execute(store.pool()).await.unwrap() }
    };
    age("update uploads set expires_at = now() - interval '1 second'").await;
    assert_eq!(store.get_upload(tenant, upload).await.unwrap().status, UploadStatus::Expired);
    let late = store.complete_upload(tenant, upload, &[PartId::generate()], file(part.clone())).await.unwrap_err();
    assert!(late.to_string().contains("expired"), "{late}");
    assert!(store.cancel_upload(tenant, upload).await.unwrap_err().to_string().contains("expired"));
    store.collect_garbage(NOW).await.unwrap();
    assert!(store.get_blob_bytes(part.id).await.is_err(), "its bytes are gone");
    age("update uploads set expires_at = now() - interval '31 days'").await;
    store.collect_garbage(NOW).await.unwrap();
    assert!(matches!(store.get_upload(tenant, upload).await, Err(StoreError::NotFound { what: "upload" })));
}

#[tokio::test]
async fn two_completions_at_once_make_one_file() {
    let (store, tenant, upload) = begun().await;
    let part = store.add_part(tenant, upload, &content(&store, tenant).await, &first_time(b"part")).await.unwrap();
    let parts = [part.into_inner().id];
    let complete = async || {
        let whole = content(&store, tenant).await;
        store.complete_upload(tenant, upload, &parts, file(whole)).await.unwrap()
    };
    let (one, other) = tokio::join!(complete(), complete());
    assert_ne!(one.is_new(), other.is_new());
    let (one, other) = (one.into_inner(), other.into_inner());
    assert_eq!((one.file.is_some(), &one), (true, &other));
    store.collect_garbage(NOW).await.unwrap();
    let blobs = sqlx::query_scalar::<_, i64>("select count(*) from blobs").fetch_one(store.pool()).await.unwrap();
    assert_eq!(blobs, 1, "neither the part nor the second copy is kept");
}

#[tokio::test]
async fn equal_files_at_once_share_their_bytes_but_not_between_tenants() {
    let (store, tenant, _) = begun().await;
    let other = fixtures::tenant(&store, "globex").await.unwrap();
    let make = async |tenant| {
        let new = file(content(&store, tenant).await);
        store.create_file(tenant, new, None).await.unwrap().into_inner()
    };
    let (one, two, theirs) = tokio::join!(make(tenant), make(tenant), make(other));
    assert_eq!(one.content, two.content);
    assert_ne!((one.id, one.content.id), (two.id, theirs.content.id));
    store.delete_file(tenant, one.id).await.unwrap();
    store.collect_garbage(NOW).await.unwrap();
    assert_eq!(store.get_blob_bytes(two.content.id).await.unwrap(), "rows");
}
