//! The bytes that a job was made from, which stay while it does.

use finetuned_protocol::ids::{JobId, TenantId};

use crate::{BlobId, Store, StoreError};

/// Where a job's rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobData {
    pub training: BlobId,
    pub validation: Option<BlobId>,
}

impl Store {
    /// The data of a job of the tenant, also where its files were deleted.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn job_data(&self, tenant: TenantId, job: JobId) -> Result<JobData, StoreError> {
        self.call("finding a job's data", async {
            let row = sqlx::query!(
                "select training_blob_id, validation_blob_id from jobs where id = $1 and tenant_id = $2",
                job.0,
                tenant.0,
            );
            let row = row.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "job" })?;
            Ok(JobData { training: BlobId(row.training_blob_id), validation: row.validation_blob_id.map(BlobId) })
        })
        .await
    }
}
