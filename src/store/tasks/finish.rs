//! The good ends of a task. Each may be sent again when its answer was lost.

use finetuned_protocol::{
    ids::{TaskId, TenantId},
    status::{EventLevel, FileStatus, TaskKind, TaskState},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{LeaseKey, NewTask, Trained, Validated, fence::Fenced, insert_task, queue::hold};
use crate::{
    NewEvent, NewFile, Store, StoreError, Wake, checkpoints,
    convert::{big, to_json},
    evaluations::{drop_answers, insert_of_job},
    events, files,
    jobs::fetch_jobs,
    listen::wake,
};

/// Purpose of the table of a job's metrics.
const RESULTS_PURPOSE: &str = "fine-tune-results";

impl Store {
    /// Ends `validate`: the job is `queued` with its effective settings, and its `train` task waits for a worker.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] for another kind of task.
    pub async fn finish_validation(&self, lease: &LeaseKey, validated: &Validated) -> Result<(), StoreError> {
        self.call("finishing a validation", async {
            let Some(mut fenced) = self.fence_or_ended(lease).await? else { return Ok(()) };
            fenced.require(TaskKind::Validate)?;
            let pause = fenced.end_task(TaskState::Done).await?;
            let model = fenced.record_settings(validated).await?;
            let task = NewTask {
                id: TaskId::generate(),
                tenant: fenced.tenant,
                job: fenced.job,
                kind: TaskKind::Train,
                needs_model: &model,
                needs_memory_bytes: Some(big(validated.estimate.peak_memory_bytes)),
                disk: validated.estimate.disk,
            };
            insert_task(&mut fenced.tx, &task).await?;
            let mut events = validated.events.clone();
            events.push(NewEvent::message(EventLevel::Info, "Files validated, moving job to queued state"));
            if !fenced.starts_by_itself().await? {
                await_start(&mut fenced.tx, fenced.job, task.id).await?;
                let message = "The job waits to be started (`auto_start` is false): POST .../start lets it run";
                events.push(NewEvent::message(EventLevel::Info, message));
            } else if pause {
                hold(&mut fenced.tx, task.id.0).await?;
                events.push(NewEvent::message(EventLevel::Info, "The job is paused"));
            }
            fenced.publish(&events).await
        })
        .await
    }

    /// Ends `train`: the job is `succeeded`, its artifacts and its tuned model are published.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] for another kind of task, or where bytes are not stored
    /// whole.
    pub async fn finish_training(&self, lease: &LeaseKey, trained: &Trained) -> Result<(), StoreError> {
        self.call("finishing a training", async {
            let Some(mut fenced) = self.fence_or_ended(lease).await? else { return Ok(()) };
            fenced.require(TaskKind::Train)?;
            fenced.end_task(TaskState::Done).await?;
            let tenant = TenantId(fenced.tenant);
            let jobs = fetch_jobs(&mut fenced.tx, tenant, &[fenced.job], self.timings().expiry).await?;
            let job = jobs.into_iter().next().ok_or(StoreError::NotFound { what: "job" })?;
            let name = job.tuned_model_name();
            let scope = fenced.scope();
            checkpoints::insert_artifacts(&mut fenced.tx, scope, &trained.artifacts).await?;
            let results = files::insert(&mut fenced.tx, tenant, &results_file(&job.id.to_string(), trained)).await?;
            sqlx::query!(
                "insert into tuned_models (tenant_id, name, base_model, job_id) values ($1, $2, $3, $4)",
                fenced.tenant,
                name,
                job.base_model,
                fenced.job,
            )
            .execute(&mut *fenced.tx)
            .await?;
            fenced.record_success(trained, &name, results.0).await?;
            drop_answers(&mut fenced.tx, lease.task.0).await?;
            let created = NewEvent::message(EventLevel::Info, format!("New fine-tuned model created: {name}"));
            let done = NewEvent::message(EventLevel::Info, "The job has successfully completed");
            if let Some(judging) = &trained.judging {
                insert_of_job(&mut fenced.tx, (tenant, job.id), &job.base_model_sha256, judging).await?;
            }
            fenced.publish(&[created, done]).await
        })
        .await
    }
}

/// Holds a job's new task as a pause would.
async fn await_start(tx: &mut PgConnection, job: Uuid, task: TaskId) -> Result<(), StoreError> {
    sqlx::query!("update tasks set state = 'held' where id = $1", task.0).execute(&mut *tx).await?;
    sqlx::query!("update jobs set paused = true, waiting_reason = 'auto_start is false' where id = $1", job)
        .execute(tx)
        .await?;
    Ok(())
}

fn results_file(job: &str, trained: &Trained) -> NewFile {
    NewFile {
        filename: format!("{job}-results.csv"),
        purpose: RESULTS_PURPOSE.to_owned(),
        expires_after: None,
        status: FileStatus::Processed,
        status_details: None,
        content: trained.results.clone(),
        lint: None,
        reading: Default::default(),
        findings: None,
    }
}

impl Fenced {
    /// That the task is of a kind.
    pub(crate) fn require(&self, kind: TaskKind) -> Result<(), StoreError> {
        if self.kind == kind {
            return Ok(());
        }
        Err(StoreError::conflict(format!("the task is a `{}`, not a `{kind}`", self.kind)))
    }

    /// Whether the job goes on once it is validated; false where its request says so.
    async fn starts_by_itself(&mut self) -> Result<bool, StoreError> {
        let starts = sqlx::query_scalar!(
            r#"select coalesce((request->>'auto_start')::boolean, true) as "starts!" from jobs where id = $1"#,
            self.job,
        );
        Ok(starts.fetch_one(&mut *self.tx).await?)
    }

    /// Writes what the validation settled; gives the hash of the base model.
    async fn record_settings(&mut self, validated: &Validated) -> Result<String, StoreError> {
        let model = sqlx::query_scalar!(
            "update jobs set status = 'queued', effective = $2, dataset = $3, estimate = $4, waiting_reason = null
             where id = $1 and finished_at is null
             returning base_model_sha256",
            self.job,
            to_json("a job's settings", &validated.spec)?,
            to_json("a job's dataset facts", &validated.dataset)?,
            to_json("a job's estimate", &validated.estimate)?,
        );
        // A job that ended took its tasks' leases with it, so the fence has seen to this.
        model.fetch_optional(&mut *self.tx).await?.ok_or(StoreError::LeaseLost)
    }

    async fn record_success(&mut self, trained: &Trained, model: &str, results: Uuid) -> Result<(), StoreError> {
        let updated = sqlx::query!(
            "update jobs set status = 'succeeded', finished_at = now(), started_at = coalesce(started_at, now()),
                             paused = false, waiting_reason = null, error = null, fine_tuned_model = $2,
                             result_files = array[$3::uuid], trained_tokens = $4, evaluation = $5, parity = $6
             where id = $1 and finished_at is null",
            self.job,
            model,
            results,
            big(trained.trained_tokens),
            to_json("a job's evaluation", &trained.evaluation)?,
            to_json("a job's parity certificate", &trained.parity)?,
        )
        .execute(&mut *self.tx)
        .await?;
        if updated.rows_affected() == 1 { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    /// Tells what happened, and commits.
    pub(crate) async fn publish(mut self, events: &[NewEvent]) -> Result<(), StoreError> {
        let scope = self.scope();
        events::append(&mut self.tx, scope, events).await?;
        wake(&mut self.tx, Wake::Everything).await?;
        self.tx.commit().await?;
        Ok(())
    }
}
