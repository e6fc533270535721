#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use finetuned_protocol::ids::TenantId;
use futures::TryStreamExt as _;
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    GcOptions, GcReport, Store, StoredFile,
    testing::{TestDatabase, fixtures},
};

async fn fresh() -> (TestDatabase, Store, TenantId) {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store.clone();
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    (database, store, tenant)
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

async fn state(store: &Store, id: BlobId) -> Option<String> {
    let query = sqlx::query_scalar("select state from blobs where id = $1").bind(id.0);
    query.fetch_optional(store.pool()).await.unwrap()
}

const NOW: GcOptions = GcOptions { min_age: Duration::ZERO, dry_run: false };

#[tokio::test]
async fn bytes_come_back_whole_and_in_ranges() {
    let (_database, store, tenant) = fresh().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|index| (index * 7 % 251) as u8).collect();
    let pieces = bytes.chunks(70_001).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let stored = store.put_stream(tenant, futures::stream::iter(pieces), None).await.unwrap();
    assert_eq!((stored.bytes, &stored.sha256), (3_000_000, &hex::encode(Sha256::digest(&bytes))));
    assert_eq!(&store.get_blob_bytes(stored.id).await.unwrap()[..], bytes);
    for range in [0..1, 999_999..2_000_001, 2_999_990..3_000_000, 5..5] {
        let pieces: Vec<Bytes> =
            store.get_blob(stored.id, Some(range.clone())).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(state(&store, stored.id).await.as_deref(), Some("pending"), "nothing refers to it yet");
}

#[tokio::test]
async fn empty_blobs_and_files_of_this_machine_are_stored_too() {
    let (database, store, tenant) = fresh().await;
    let empty = store.put_bytes(tenant, Bytes::new()).await.unwrap();
    assert_eq!((empty.bytes, store.get_blob_bytes(empty.id).await.unwrap().len()), (0, 0));
    let (from, to) = (database.blobs_dir.with_extension("from"), database.blobs_dir.with_extension("to"));
    std::fs::write(&from, b"weights").unwrap();
    let stored = store.put_file(tenant, &from).await.unwrap();
    store.fetch_blob(&stored, &to).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), b"weights");
    let other = StoredBlob { sha256: empty.sha256, ..stored };
    assert!(matches!(store.fetch_blob(&other, &to).await, Err(StoreError::Corrupt { .. })));
    let missing = BlobId(Uuid::new_v4());
    assert!(matches!(store.get_blob_bytes(missing).await, Err(StoreError::NotFound { what: "blob" })));
}

#[tokio::test]
async fn a_stream_that_is_too_long_or_breaks_leaves_nothing() {
    let (database, store, tenant) = fresh().await;
    let long = futures::stream::iter((0..10).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[1; 1000]))));
    let refused = store.put_stream(tenant, long, Some(9_999)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { limit_bytes: 9_999 })));
    let broken = futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("cut off"))]);
    let refused = store.put_stream(tenant, broken, None).await.unwrap_err();
    assert!(refused.to_string().contains("cut off"), "{refused}");
    let rows: i64 = sqlx::query_scalar("select count(*) from blobs").fetch_one(store.pool()).await.unwrap();
    assert_eq!((rows, files(&database.blobs_dir)), (0, 0));
}

#[tokio::test]
async fn only_what_nothing_refers_to_is_collected() {
    let (database, store, tenant) = fresh().await;
    let job = fixtures::job(&store, tenant).await.unwrap();
    let unused = store.put_bytes(tenant, Bytes::from_static(b"unused")).await.unwrap();
    let young = store.collect_garbage(GcOptions::default()).await.unwrap();
    assert_eq!(young, GcReport::default(), "too young");
    let counted = store.collect_garbage(GcOptions { dry_run: true, ..NOW }).await.unwrap();
    assert_eq!((counted.blobs, counted.bytes), (1, 6));
    assert!(state(&store, unused.id).await.is_some());
    assert_eq!(store.collect_garbage(NOW).await.unwrap(), counted);
    assert_eq!((state(&store, unused.id).await, files(&database.blobs_dir)), (None, 1));

    // The job keeps the bytes of a deleted file.
    let content = store.get_file(tenant, job.training_file).await.unwrap().content;
    store.delete_file(tenant, job.training_file).await.unwrap();
    assert_eq!(store.collect_garbage(NOW).await.unwrap().blobs, 0);
    assert!(store.get_blob_bytes(content.id).await.is_ok());
}

#[tokio::test]
async fn checkpoints_artifacts_and_findings_keep_their_bytes() {
    let (_database, store, tenant) = fresh().await;
    let worker = fixtures::worker(&store).await.unwrap();
    let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
    let content = store.put_bytes(tenant, Bytes::from_static(b"step 1")).await.unwrap();
    let files = vec![StoredFile { name: "weights".to_owned(), content: content.clone() }];
    let checkpoint = crate::NewCheckpoint { step: 1, metrics: serde_json::json!({}), files };
    store.publish_checkpoint(&lease.key, &checkpoint).await.unwrap();
    let trained = fixtures::trained(&store, tenant).await.unwrap();
    store.finish_training(&lease.key, &trained).await.unwrap();
    let findings = store.put_bytes(tenant, Bytes::from_static(b"{}\n")).await.unwrap();
    let file = fixtures::new_file(&store, tenant).await.unwrap();
    let file = crate::NewFile { findings: Some(findings.clone()), ..file };
    store.create_file(tenant, file, None).await.unwrap();
    assert_eq!(store.collect_garbage(NOW).await.unwrap(), GcReport::default());
    for blob in [content, trained.artifacts[0].content.clone(), trained.results, findings] {
        assert_eq!(state(&store, blob.id).await.as_deref(), Some("live"));
    }
}

#[tokio::test]
async fn collected_bytes_cannot_be_referred_to_and_an_interrupted_collection_goes_on() {
    let (database, store, tenant) = fresh().await;
    let file = fixtures::new_file(&store, tenant).await.unwrap();
    // The collector was killed between the mark and the removal.
    sqlx::query("update blobs set state = 'deleting'").execute(store.pool()).await.unwrap();
    assert!(matches!(store.create_file(tenant, file, None).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.collect_garbage(NOW).await.unwrap().blobs, 1);
    assert_eq!(files(&database.blobs_dir), 0);
}

#[tokio::test]
async fn a_write_that_was_cut_off_is_collected_with_its_staged_bytes() {
    let (database, store, tenant) = fresh().await;
    let mut writer = store.begin_blob(tenant).await.unwrap();
    writer.write(Bytes::from(vec![1; 3 << 20])).await.unwrap();
    assert_eq!(writer.bytes(), 3 << 20);
    // As after SIGKILL: nothing is dropped in order.
    std::mem::forget(writer);
    assert_eq!(files(&database.blobs_dir), 1);
    assert_eq!(store.collect_garbage(NOW).await.unwrap().blobs, 1);
    assert_eq!(files(&database.blobs_dir), 0);
}

#[tokio::test]
async fn a_reference_being_written_keeps_its_blob() {
    let (_database, store, tenant) = fresh().await;
    let content = store.put_bytes(tenant, Bytes::from_static(b"new")).await.unwrap();
    let mut tx = store.pool().begin().await.unwrap();
    make_live(&mut tx, tenant, [&content]).await.unwrap();
    assert_eq!(store.collect_garbage(NOW).await.unwrap().blobs, 0);
    tx.rollback().await.unwrap();
    assert_eq!(store.collect_garbage(NOW).await.unwrap().blobs, 1);
}
