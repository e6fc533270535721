//! What a job's training rows show.

use finetuned_protocol::{
    ids::{JobId, TenantId},
    mend::TrainingRows,
};

use crate::{
    LeaseKey, Store, StoreError,
    convert::{from_json, to_json},
};

impl Store {
    /// Keeps what an attempt found of its job's training rows, in the place of what an earlier one did.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn record_training_rows(&self, lease: &LeaseKey, rows: &TrainingRows) -> Result<(), StoreError> {
        let found = to_json("what training rows show", rows)?;
        self.call("keeping what training rows show", async {
            let mut fenced = self.fence(lease).await?;
            sqlx::query!(
                "insert into job_training_rows (job_id, tenant_id, found) values ($1, $2, $3)
                 on conflict (job_id) do update set found = excluded.found",
                fenced.job,
                fenced.tenant,
                found,
            )
            .execute(&mut *fenced.tx)
            .await?;
            fenced.tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// What is known of a job's training rows.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where nothing is, or the job is another tenant's.
    pub async fn training_rows(&self, tenant: TenantId, job: JobId) -> Result<TrainingRows, StoreError> {
        self.call("reading what training rows show", async {
            let found = sqlx::query_scalar!(
                "select found from job_training_rows where job_id = $1 and tenant_id = $2",
                job.0,
                tenant.0,
            );
            let found =
                found.fetch_optional(self.pool()).await?.ok_or(StoreError::NotFound { what: "training rows" })?;
            from_json("what training rows show", found)
        })
        .await
    }
}
