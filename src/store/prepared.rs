//! Files that are made of other files, with the record of how.

use finetuned_protocol::{
    ids::{FileId, TenantId},
    preparation::Manifest,
};
use sqlx::PgConnection;

use crate::{
    Created, File, Idempotency, NewFile, Store, StoreError,
    convert::{maybe_json, to_json},
    files::{fetch, insert_shared_as},
};

/// A prepared dataset whose bytes are stored. The manifest names its files.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPrepared {
    pub training: NewFile,
    pub held_out: Option<NewFile>,
    pub manifest: Manifest,
}

/// A prepared dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    pub training: File,
    pub held_out: Option<File>,
    pub manifest: Manifest,
}

impl Store {
    /// Records the files of a preparation together, under the ids that the manifest gives them. With `idempotency`, the
    /// same preparation again gives the first one's files.
    ///
    /// # Errors
    /// As [`Store::create_file`]; [`StoreError::NotFound`] where one of the first one's files was deleted.
    pub async fn create_prepared(
        &self,
        tenant: TenantId,
        prepared: &NewPrepared,
        idempotency: &Idempotency,
    ) -> Result<Created<Prepared>, StoreError> {
        let recorded = self.call("recording a prepared dataset", async {
            let mut tx = self.begin().await?;
            if let Some(found) = idempotency.find(&mut tx, tenant).await? {
                return Ok(Created::Existing(fetch_prepared(&mut tx, tenant, FileId(found)).await?));
            }
            insert_prepared(&mut tx, tenant, prepared).await?;
            let id = prepared.manifest.training.file_id;
            idempotency.record(&mut tx, tenant, id.0).await?;
            let made = fetch_prepared(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(Created::New(made))
        });
        let recorded = recorded.await?;
        for file in std::iter::once(&prepared.training).chain(&prepared.held_out) {
            self.drop_unused(&file.content).await;
        }
        Ok(recorded)
    }

    /// How a file was made; `None` of one that was uploaded.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_manifest(&self, tenant: TenantId, file: FileId) -> Result<Option<Manifest>, StoreError> {
        self.call("reading a file's manifest", async {
            let mut connection = self.pool().acquire().await?;
            manifest_of(&mut connection, tenant, file).await
        })
        .await
    }
}

/// Inserts the files of a preparation and makes their bytes visible.
pub(crate) async fn insert_prepared(
    tx: &mut PgConnection,
    tenant: TenantId,
    NewPrepared { training, held_out, manifest }: &NewPrepared,
) -> Result<(), StoreError> {
    let text = to_json("a manifest", manifest)?;
    let ids = [Some(manifest.training.file_id), manifest.held_out.as_ref().map(|record| record.file_id)];
    for (id, file) in ids.into_iter().flatten().zip(std::iter::once(training).chain(held_out)) {
        insert_shared_as(tx, tenant, id, file).await?;
        sqlx::query!("update files set manifest = $3 where id = $1 and tenant_id = $2", id.0, tenant.0, text)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

async fn fetch_prepared(tx: &mut PgConnection, tenant: TenantId, id: FileId) -> Result<Prepared, StoreError> {
    let manifest = manifest_of(tx, tenant, id).await?.ok_or(StoreError::NotFound { what: "file" })?;
    let held_out = match &manifest.held_out {
        Some(record) => Some(fetch(tx, tenant, record.file_id).await?),
        None => None,
    };
    Ok(Prepared { training: fetch(tx, tenant, id).await?, held_out, manifest })
}

async fn manifest_of(
    connection: &mut PgConnection,
    tenant: TenantId,
    file: FileId,
) -> Result<Option<Manifest>, StoreError> {
    let found = sqlx::query_scalar!(
        "select manifest from files where id = $1 and tenant_id = $2 and (expires_at is null or expires_at > now())",
        file.0,
        tenant.0,
    );
    let manifest = found.fetch_optional(connection).await?.ok_or(StoreError::NotFound { what: "file" })?;
    maybe_json("a file's manifest", manifest)
}
