//! Making, reading and deleting rating tasks.

use finetuned_protocol::ids::{JobId, RatingItemId, RatingTaskId, TenantId};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{NewRatingItem, NewRatingTask, RatingTask};
use crate::{
    Created, Idempotency, Page, Store, StoreError,
    convert::{big, count, int, named, small, storable, storable_text},
    jobs::require_job,
};

impl Store {
    /// Makes a task, or gives the one that an equal request made before.
    ///
    /// # Errors
    /// `NotFound` of a job; [`StoreError::IdempotencyMismatch`].
    pub async fn create_rating_task(
        &self,
        tenant: TenantId,
        task: &NewRatingTask,
        idempotency: &Idempotency,
    ) -> Result<Created<RatingTask>, StoreError> {
        let NewRatingTask { kind, job, with, instructions, show_reference, ratings_per_row, equal_rows, items } = task;
        self.call("making a rating task", async {
            let mut tx = self.begin().await?;
            if let Some(found) = idempotency.find(&mut tx, tenant).await? {
                return Ok(Created::Existing(fetch(&mut tx, tenant, RatingTaskId(found)).await?));
            }
            for job in [Some(job), with.as_ref()].into_iter().flatten() {
                require_job(&mut tx, tenant, *job).await?;
            }
            let id = RatingTaskId::generate();
            sqlx::query!(
                "insert into rating_tasks
                     (id, tenant_id, kind, job_id, with_job_id, instructions, show_reference, ratings_per_row, equal_rows)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                id.0,
                tenant.0,
                kind.as_str(),
                job.0,
                with.map(|job| job.0),
                instructions.as_deref().map(storable_text),
                show_reference,
                int(*ratings_per_row),
                i32::try_from(*equal_rows).unwrap_or(i32::MAX),
            )
            .execute(&mut *tx)
            .await?;
            insert_items(&mut tx, tenant, id, items).await?;
            idempotency.record(&mut tx, tenant, id.0).await?;
            let made = fetch(&mut tx, tenant, id).await?;
            tx.commit().await?;
            Ok(Created::New(made))
        })
        .await
    }

    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_rating_task(&self, tenant: TenantId, task: RatingTaskId) -> Result<RatingTask, StoreError> {
        self.call("reading a rating task", async {
            let mut connection = self.pool().acquire().await?;
            fetch(&mut connection, tenant, task).await
        })
        .await
    }

    /// A page of tasks, newest first; of one job where it is named.
    ///
    /// # Errors
    /// `NotFound { what: "after" }` for an unknown `after`.
    pub async fn list_rating_tasks(
        &self,
        tenant: TenantId,
        job: Option<JobId>,
        after: Option<RatingTaskId>,
        limit: u32,
    ) -> Result<Page<RatingTask>, StoreError> {
        self.call("listing rating tasks", async {
            let mut connection = self.pool().acquire().await?;
            if let Some(after) = after {
                require_task(&mut connection, tenant, after)
                    .await
                    .map_err(|_| StoreError::NotFound { what: "after" })?;
            }
            let ids = sqlx::query_scalar!(
                "select id from rating_tasks
                 where tenant_id = $1 and id < $2 and ($3::uuid is null or job_id = $3 or with_job_id = $3)
                 order by id desc
                 limit $4",
                tenant.0,
                after.map_or(Uuid::max(), |task| task.0),
                job.map(|job| job.0),
                i64::from(limit) + 1,
            );
            let ids = Page::cut(ids.fetch_all(&mut *connection).await?, limit);
            let mut data = Vec::with_capacity(ids.data.len());
            for id in &ids.data {
                data.push(fetch(&mut connection, tenant, RatingTaskId(*id)).await?);
            }
            Ok(Page { data, has_more: ids.has_more })
        })
        .await
    }

    /// Deletes a task with all its ratings.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_rating_task(&self, tenant: TenantId, task: RatingTaskId) -> Result<(), StoreError> {
        self.call("deleting a rating task", async {
            let mut tx = self.begin().await?;
            let gone = sqlx::query!("delete from rating_tasks where id = $1 and tenant_id = $2", task.0, tenant.0);
            if gone.execute(&mut *tx).await?.rows_affected() == 0 {
                return Err(StoreError::NotFound { what: "rating task" });
            }
            // The same request again makes a new task then, not the deleted one.
            sqlx::query!("delete from idempotency where object_id = $1 and tenant_id = $2", task.0, tenant.0)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

async fn insert_items(
    tx: &mut PgConnection,
    tenant: TenantId,
    task: RatingTaskId,
    items: &[NewRatingItem],
) -> Result<(), StoreError> {
    let texts = |of: fn(&NewRatingItem) -> &str| items.iter().map(|item| storable_text(of(item))).collect::<Vec<_>>();
    let second = |item: &NewRatingItem| item.second.as_ref().map(|second| second.source.as_str().to_owned());
    let second_sources: Vec<Option<String>> = items.iter().map(second).collect();
    let second = |item: &NewRatingItem| item.second.as_ref().map(|second| storable_text(&second.answer));
    let second_answers: Vec<Option<String>> = items.iter().map(second).collect();
    let inputs: Vec<Value> = items.iter().map(|item| storable(item.input.clone())).collect();
    sqlx::query!(
        r#"insert into rating_items
               (id, task_id, tenant_id, place, line, prompt, reference, input, first_source, first_answer, second_source,
                second_answer)
           select i.id, $1, $2, i.place - 1, i.line, i.prompt, i.reference, i.input, i.first_source, i.first_answer,
                  i.second_source, i.second_answer
           from unnest($3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::text[],
                       $10::text[], $11::text[])
                with ordinality
                as i (id, line, prompt, reference, input, first_source, first_answer, second_source, second_answer,
                      place)"#,
        task.0,
        tenant.0,
        &items.iter().map(|_| RatingItemId::generate().0).collect::<Vec<_>>(),
        &items.iter().map(|item| big(item.line)).collect::<Vec<_>>(),
        &texts(|item| &item.prompt),
        &texts(|item| &item.reference),
        &inputs,
        &texts(|item| item.first.source.as_str()),
        &texts(|item| &item.first.answer),
        &second_sources as &[Option<String>],
        &second_answers as &[Option<String>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// That the task is one of the tenant's.
pub(super) async fn require_task(
    connection: &mut PgConnection,
    tenant: TenantId,
    task: RatingTaskId,
) -> Result<(), StoreError> {
    let known = sqlx::query_scalar!("select id from rating_tasks where id = $1 and tenant_id = $2", task.0, tenant.0);
    known.fetch_optional(connection).await?.map(drop).ok_or(StoreError::NotFound { what: "rating task" })
}

pub(super) async fn fetch(
    connection: &mut PgConnection,
    tenant: TenantId,
    task: RatingTaskId,
) -> Result<RatingTask, StoreError> {
    let row = sqlx::query_as!(
        TaskRow,
        r#"select t.id, t.tenant_id, t.kind, t.job_id, t.with_job_id, t.instructions, t.show_reference, t.ratings_per_row,
                  t.equal_rows, t.created_at,
                  (select count(*) from rating_items i where i.task_id = t.id) as "items!",
                  (select count(*) from rating_items i
                   where i.task_id = t.id
                     and (select count(*) from ratings r
                          where r.item_id = i.id and r.rated_at is not null and not r.skipped) >= t.ratings_per_row)
                      as "rated_items!",
                  (select count(*) from ratings r where r.task_id = t.id and r.rated_at is not null and not r.skipped)
                      as "ratings!",
                  (select count(distinct coalesce(r.api_key_id, t.id)) from ratings r
                   where r.task_id = t.id and r.rated_at is not null and not r.skipped) as "raters!"
           from rating_tasks t
           where t.id = $1 and t.tenant_id = $2"#,
        task.0,
        tenant.0,
    );
    row.fetch_optional(connection).await?.ok_or(StoreError::NotFound { what: "rating task" })?.read()
}

struct TaskRow {
    id: Uuid,
    tenant_id: Uuid,
    kind: String,
    job_id: Uuid,
    with_job_id: Option<Uuid>,
    instructions: Option<String>,
    show_reference: bool,
    ratings_per_row: i32,
    equal_rows: i32,
    created_at: OffsetDateTime,
    items: i64,
    rated_items: i64,
    ratings: i64,
    raters: i64,
}

impl TaskRow {
    fn read(self) -> Result<RatingTask, StoreError> {
        Ok(RatingTask {
            id: RatingTaskId(self.id),
            tenant: TenantId(self.tenant_id),
            kind: named("a rating task's kind", &self.kind)?,
            job: JobId(self.job_id),
            with: self.with_job_id.map(JobId),
            instructions: self.instructions,
            show_reference: self.show_reference,
            ratings_per_row: small(self.ratings_per_row),
            equal_rows: u64::from(small(self.equal_rows)),
            created_at: self.created_at,
            items: count(self.items),
            rated_items: count(self.rated_items),
            ratings: count(self.ratings),
            raters: count(self.raters),
        })
    }
}
