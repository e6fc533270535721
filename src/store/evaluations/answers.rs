//! Answers of a task that is not done.

use finetuned_protocol::{
    engine::AnsweredRow,
    ids::{EvaluationRunId, JobId, TaskId, TenantId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    convert::{big, count, named, storable_text},
    jobs::require_job,
};

impl Store {
    /// What a task's attempts have answered so far, by line.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn answers_so_far(&self, task: TaskId) -> Result<Vec<AnsweredRow>, StoreError> {
        self.call("reading answers", async {
            let mut connection = self.pool().acquire().await?;
            fetch(&mut connection, task.0).await
        })
        .await
    }

    /// The answers of a job's training, or of one of its further evaluations, that no report has yet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the job.
    pub async fn answers_of_job(
        &self,
        tenant: TenantId,
        job: JobId,
        run: Option<EvaluationRunId>,
    ) -> Result<Vec<AnsweredRow>, StoreError> {
        self.call("reading answers", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let task = sqlx::query_scalar!(
                "select id from tasks
                 where job_id = $1 and (($2::uuid is null and kind = 'train') or (id = $2 and kind = 'evaluate'))",
                job.0,
                run.map(|run| run.0),
            );
            match task.fetch_optional(&mut *connection).await? {
                Some(task) => fetch(&mut connection, task).await,
                None => Ok(Vec::new()),
            }
        })
        .await
    }
}

async fn fetch(connection: &mut PgConnection, task: Uuid) -> Result<Vec<AnsweredRow>, StoreError> {
    let rows = sqlx::query!(
        "select line, answerer, prompt, reference, answer, ended from evaluation_answers
         where task_id = $1 order by line, answerer",
        task,
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        Ok(AnsweredRow {
            by: named("an answerer", &row.answerer)?,
            line: count(row.line),
            prompt: row.prompt,
            reference: row.reference,
            text: row.answer,
            ended: row.ended,
        })
    });
    rows.collect()
}

/// Keeps answers; one that was given again replaces the one before.
pub(crate) async fn record_answers(
    tx: &mut PgConnection,
    (tenant, task): (Uuid, Uuid),
    answers: &[AnsweredRow],
) -> Result<(), StoreError> {
    for row in answers {
        sqlx::query!(
            "insert into evaluation_answers (task_id, line, answerer, tenant_id, prompt, reference, answer, ended)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (task_id, line, answerer) do update set answer = excluded.answer, ended = excluded.ended",
            task,
            big(row.line),
            row.by.as_str(),
            tenant,
            storable_text(&row.prompt),
            storable_text(&row.reference),
            storable_text(&row.text),
            row.ended,
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// A report has them, or nobody will.
pub(crate) async fn drop_answers(tx: &mut PgConnection, task: Uuid) -> Result<(), StoreError> {
    sqlx::query!("delete from evaluation_answers where task_id = $1", task).execute(tx).await?;
    Ok(())
}
