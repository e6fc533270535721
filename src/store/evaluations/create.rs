//! Making a further evaluation.

use finetuned_protocol::{
    evaluation_run::EvaluationRunSpec,
    ids::{EvaluationRunId, JobId, TaskId, TenantId},
    spec::DiskEstimate,
    status::{EventLevel, JobStatus, TaskKind},
};
use sqlx::PgConnection;

use super::EvaluationRun;
use crate::{
    Created, Idempotency, NewEvent, Store, StoreError, Wake,
    convert::{named, to_json},
    events,
    listen::wake,
    tasks::{NewTask, insert_task},
};

/// Evaluations of one job that may wait or run at once.
const MOST_OPEN: i64 = 4;
/// Evaluations that are kept of one job.
const MOST: i64 = 100;

impl Store {
    /// Queues a further evaluation of a succeeded job, or gives the one that an equal request made before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the job; [`StoreError::Conflict`] where it has not succeeded, has too many
    /// evaluations, or its base model is gone or another by now; [`StoreError::IdempotencyMismatch`].
    pub async fn create_evaluation_run(
        &self,
        tenant: TenantId,
        job: JobId,
        settings: &EvaluationRunSpec,
        idempotency: &Idempotency,
    ) -> Result<Created<EvaluationRun>, StoreError> {
        let (id, is_new) = self
            .call("making an evaluation", async {
                let mut tx = self.begin().await?;
                if let Some(found) = idempotency.find(&mut tx, tenant).await? {
                    return Ok((EvaluationRunId(found), false));
                }
                let model = evaluable(&mut tx, tenant, job).await?;
                let id = insert(&mut tx, (tenant, job), &model, (settings, false)).await?;
                idempotency.record(&mut tx, tenant, id.0).await?;
                wake(&mut tx, Wake::Everything).await?;
                tx.commit().await?;
                Ok((id, true))
            })
            .await?;
        let run = self.evaluation_run(tenant, job, id).await?;
        Ok(if is_new { Created::New(run) } else { Created::Existing(run) })
    }
}

/// Queues the evaluation that a job asks for itself, once it has succeeded.
pub(crate) async fn insert_of_job(
    tx: &mut PgConnection,
    scope: (TenantId, JobId),
    sha256: &str,
    settings: &EvaluationRunSpec,
) -> Result<EvaluationRunId, StoreError> {
    let model = Model { sha256: sha256.to_owned(), memory_bytes: None };
    insert(tx, scope, &model, (settings, true)).await
}

async fn insert(
    tx: &mut PgConnection,
    (tenant, job): (TenantId, JobId),
    model: &Model,
    (settings, is_of_job): (&EvaluationRunSpec, bool),
) -> Result<EvaluationRunId, StoreError> {
    let id = TaskId::generate();
    let task = NewTask {
        id,
        tenant: tenant.0,
        job: job.0,
        kind: TaskKind::Evaluate,
        needs_model: &model.sha256,
        needs_memory_bytes: model.memory_bytes,
        // Answers and judgements are rows of the database.
        disk: DiskEstimate::default(),
    };
    insert_task(tx, &task).await?;
    sqlx::query!(
        "insert into evaluation_runs (task_id, tenant_id, job_id, settings, is_of_job) values ($1, $2, $3, $4, $5)",
        id.0,
        tenant.0,
        job.0,
        to_json("an evaluation's settings", settings)?,
        is_of_job,
    )
    .execute(&mut *tx)
    .await?;
    let run = EvaluationRunId(id.0);
    let message = match is_of_job {
        true => format!("The answers go to the judge, by evaluation {run}"),
        false => format!("A further evaluation was asked for: {run}"),
    };
    events::append(tx, (tenant.0, job.0), &[NewEvent::message(EventLevel::Info, message)]).await?;
    Ok(run)
}

/// What the task needs of its worker.
struct Model {
    sha256: String,
    /// What the training was estimated to need, which is more than answering does.
    memory_bytes: Option<i64>,
}

/// That a job may be evaluated.
async fn evaluable(tx: &mut PgConnection, tenant: TenantId, job: JobId) -> Result<Model, StoreError> {
    let row = sqlx::query!(
        r#"select j.status, j.base_model, j.base_model_sha256, m.sha256 as "model_sha256?",
                  (j.estimate->>'peak_memory_bytes')::bigint as memory_bytes
           from jobs j left join base_models m on m.id = j.base_model_id
           where j.id = $1 and j.tenant_id = $2
           for update of j"#,
        job.0,
        tenant.0,
    );
    let row = row.fetch_optional(&mut *tx).await?.ok_or(StoreError::NotFound { what: "job" })?;
    let status: JobStatus = named("a job's status", &row.status)?;
    if status != JobStatus::Succeeded {
        return Err(StoreError::conflict(format!(
            "`{job}` is `{status}`; only a succeeded job can be evaluated again"
        )));
    }
    let model = &row.base_model;
    match row.model_sha256 {
        None => return Err(StoreError::conflict(format!("the base model `{model}` is gone; add it again"))),
        Some(now) if now != row.base_model_sha256 => {
            let message = format!("the base model `{model}` is another than the job was trained on");
            return Err(StoreError::conflict(message));
        }
        Some(_) => {}
    }
    let counts = sqlx::query!(
        r#"select count(*) as "all!", count(*) filter (where t.finished_at is null) as "open!"
           from evaluation_runs r join tasks t on t.id = r.task_id where r.job_id = $1"#,
        job.0,
    );
    let counts = counts.fetch_one(tx).await?;
    if counts.open >= MOST_OPEN {
        return Err(StoreError::conflict(format!("{MOST_OPEN} evaluations of `{job}` are not done yet; wait for one")));
    }
    if counts.all >= MOST {
        return Err(StoreError::conflict(format!("`{job}` has {MOST} evaluations, which is the most that are kept")));
    }
    Ok(Model { sha256: row.base_model_sha256, memory_bytes: row.memory_bytes })
}
