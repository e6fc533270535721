//! Making, reading, listing and deleting rating tasks.

use axum::{Json, extract::State, response::Response};
use finetuned_protocol::{
    ids::{JobId, RatingTaskId},
    ratings::{AnswerSource, RatingKind},
};
use finetuned_store::{Caller, Job, NewRatingTask, fingerprint};
use utoipa::IntoParams;

use super::{
    items::{self, Choosing},
    rows::held_out_rows,
    wire::{CreateRatingTask, RatingTaskDeleted, RatingTaskObject, check_text},
};
use crate::{
    http::{
        auth::Authenticated,
        body::{JsonBody, NoBody},
        error::{ApiError, ErrorResponse},
        found,
        idempotency::{Repetition, answer_created},
        paging::ListPage,
        path::{Id, PathId},
        query::{Fields, FromQuery, NoParameters, Query},
    },
    jobs::compare::{answers_of, named_job},
    state::App,
};

/// Make a rating task from the answers of a finished job.
///
/// The answers are copied, so that another evaluation of the job changes nothing. Raters ask for items with `next`, each
/// under the API key that they are known by; a key with the scope `rate` alone cannot see whose answers they are.
#[utoipa::path(
    post, path = "/v1/rating_tasks", tag = "ratings", request_body = CreateRatingTask,
    responses((status = 200, body = RatingTaskObject), (status = 400, body = ErrorResponse)),
)]
pub async fn create_rating_task(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<CreateRatingTask>,
) -> Result<Response, ApiError> {
    let canonical = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    let choosing = check(&request)?;
    let job = job_of(&app, &caller, "fine_tuning_job_id", &request.fine_tuning_job_id).await?;
    let with = match request.with.as_deref() {
        Some(id) => Some(job_of(&app, &caller, "with", id).await?),
        None => None,
    };
    let answers = answers_of(&job, "the job")?;
    let theirs = with.as_ref().map(|with| answers_of(with, "`with`")).transpose()?;
    let rows = held_out_rows(&app, &job, &items::lines(answers)).await?;
    let (chosen, equal_rows) = items::choose(&choosing, answers, theirs, &rows)?;
    let task = NewRatingTask {
        kind: choosing.kind,
        job: job.id,
        with: with.map(|with| with.id),
        instructions: request.instructions,
        show_reference: request.show_reference.unwrap_or(true),
        ratings_per_row: request.ratings_per_row.unwrap_or(1),
        equal_rows,
        items: chosen,
    };
    let idempotency = repetition.of(&caller, "POST /v1/rating_tasks", fingerprint(&[&canonical]));
    let made = app.store.create_rating_task(caller.tenant, &task, &idempotency).await?;
    Ok(answer_created(made, RatingTaskObject::from))
}

fn check(request: &CreateRatingTask) -> Result<Choosing, ApiError> {
    let kind = request.kind.unwrap_or(RatingKind::Preference);
    let within = |value: Option<u32>, param: &str, most: u32| match value {
        Some(value) if !(1..=most).contains(&value) => {
            Err(ApiError::invalid(param, format!("`{param}` must be between 1 and {most}; it is {value}")))
        }
        _ => Ok(()),
    };
    within(request.rows, "rows", 256)?;
    within(request.ratings_per_row, "ratings_per_row", 10)?;
    check_text("instructions", request.instructions.as_deref())?;
    if kind == RatingKind::Scale && request.with.is_some() {
        return Err(ApiError::invalid("with", "`with` is for tasks of the kind `preference`; make one task a job"));
    }
    let sources = match (kind, &request.sources) {
        (RatingKind::Preference, None) => vec![AnswerSource::Base, AnswerSource::Tuned],
        (RatingKind::Preference, Some(_)) => {
            let message =
                "`sources` is for tasks of the kind `scale`; a preference is between base and tuned, or two jobs";
            return Err(ApiError::invalid("sources", message));
        }
        (RatingKind::Scale, None) => vec![AnswerSource::Tuned],
        (RatingKind::Scale, Some(sources)) => {
            let mut known = sources.clone();
            known.sort_unstable();
            known.dedup();
            if known.is_empty() || known.len() != sources.len() || known.contains(&AnswerSource::With) {
                let message = "`sources` must be `base`, `tuned` or both, each once";
                return Err(ApiError::invalid("sources", message));
            }
            known
        }
    };
    let (category, rows, seed) = (request.category.clone(), request.rows, request.seed.unwrap_or(0));
    Ok(Choosing { kind, sources, category, rows, seed })
}

async fn job_of(app: &App, caller: &Caller, param: &str, text: &str) -> Result<Job, ApiError> {
    let id: JobId = text.parse().map_err(|error| ApiError::invalid(param, format!("`{param}`: {error}")))?;
    named_job(app, caller.tenant, param, id).await
}

/// Which tasks to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TaskPage {
    /// Only those of this job.
    #[param(value_type = Option<String>)]
    fine_tuning_job_id: Option<JobId>,
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<RatingTaskId>,
    /// 1 to 100; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    limit: u32,
}

impl FromQuery for TaskPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let fine_tuning_job_id = fields.take_parsed("fine_tuning_job_id")?;
        Ok(Self {
            fine_tuning_job_id,
            after: fields.take_parsed("after")?,
            limit: fields.take_number("limit", 20, 1..=100)?,
        })
    }
}

/// List rating tasks, newest first.
#[utoipa::path(
    get, path = "/v1/rating_tasks", tag = "ratings", params(TaskPage),
    responses((status = 200, body = ListPage<RatingTaskObject>), (status = 400, body = ErrorResponse)),
)]
pub async fn list_rating_tasks(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(TaskPage { fine_tuning_job_id, after, limit }): Query<TaskPage>,
) -> Result<Json<ListPage<RatingTaskObject>>, ApiError> {
    let page = app.store.list_rating_tasks(caller.tenant, fine_tuning_job_id, after, limit).await?;
    Ok(Json(ListPage::new(page.data.into_iter().map(Into::into).collect(), page.has_more)))
}

/// Read a rating task.
#[utoipa::path(
    get, path = "/v1/rating_tasks/{rating_task_id}", tag = "ratings", params(("rating_task_id" = String, Path)),
    responses((status = 200, body = RatingTaskObject), (status = 404, body = ErrorResponse)),
)]
pub async fn get_rating_task(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<RatingTaskId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<RatingTaskObject>, ApiError> {
    Ok(Json(found(app.store.get_rating_task(caller.tenant, id).await, RatingTaskId::KIND, id)?.into()))
}

/// Delete a rating task with all its ratings.
#[utoipa::path(
    delete, path = "/v1/rating_tasks/{rating_task_id}", tag = "ratings", params(("rating_task_id" = String, Path)),
    responses((status = 200, body = RatingTaskDeleted), (status = 404, body = ErrorResponse)),
)]
pub async fn delete_rating_task(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<RatingTaskId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<RatingTaskDeleted>, ApiError> {
    found(app.store.delete_rating_task(caller.tenant, id).await, RatingTaskId::KIND, id)?;
    Ok(Json(RatingTaskDeleted { id, object: "rating_task.deleted", deleted: true }))
}
