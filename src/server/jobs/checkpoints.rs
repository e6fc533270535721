//! `GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints`

use axum::{Json, extract::State};
use finetuned_protocol::ids::{CheckpointId, JobId};
use finetuned_store::{Checkpoint, Job};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        paging::{ListPage, Listed},
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    state::App,
};

/// A checkpoint of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobCheckpoint {
    #[schema(value_type = String)]
    pub id: CheckpointId,
    /// Always `fine_tuning.job.checkpoint`.
    pub object: &'static str,
    pub created_at: i64,
    /// `{tuned model}:ckpt-step-{n}`
    pub fine_tuned_model_checkpoint: String,
    #[schema(value_type = String)]
    pub fine_tuning_job_id: JobId,
    pub step_number: u32,
    /// `step`, `train_loss`, `train_mean_token_accuracy`, `valid_loss`, `valid_mean_token_accuracy`, `full_valid_loss`
    /// and `full_valid_mean_token_accuracy`, where they are known.
    #[schema(value_type = Object)]
    pub metrics: Map<String, Value>,
}

impl JobCheckpoint {
    fn new(job: &Job, checkpoint: Checkpoint) -> Self {
        let Checkpoint { id, job: job_id, step, created_at, metrics, files: _ } = checkpoint;
        Self {
            id,
            object: "fine_tuning.job.checkpoint",
            created_at: created_at.unix_timestamp(),
            fine_tuned_model_checkpoint: format!("{}:ckpt-step-{step}", job.tuned_model_name()),
            fine_tuning_job_id: job_id,
            step_number: step,
            metrics: seven_numbers(step, &metrics),
        }
    }
}

/// The numbers under OpenAI's names. Every evaluation here reads all held-out rows, so the `full` numbers are the others.
fn seven_numbers(step: u32, known: &Value) -> Map<String, Value> {
    let mut numbers = Map::new();
    numbers.insert("step".to_owned(), step.into());
    for name in ["train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"] {
        let Some(number) = known.get(name).filter(|number| number.is_number()) else { continue };
        if name.starts_with("valid") {
            numbers.insert(format!("full_{name}"), number.clone());
        }
        numbers.insert(name.to_owned(), number.clone());
    }
    numbers
}

impl Listed for JobCheckpoint {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// Which checkpoints to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CheckpointPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<CheckpointId>,
    /// 1 to 100; default 10.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    limit: u32,
}

impl FromQuery for CheckpointPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 10, 1..=100)? })
    }
}

/// List a job's checkpoints, highest step first.
#[utoipa::path(
    get, path = "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", tag = "fine-tuning",
    params(("fine_tuning_job_id" = String, Path), CheckpointPage),
    responses((status = 200, body = ListPage<JobCheckpoint>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_checkpoints(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<JobId>,
    Query(CheckpointPage { after, limit }): Query<CheckpointPage>,
) -> Result<Json<ListPage<JobCheckpoint>>, ApiError> {
    let job = found(app.store.get_job(caller.tenant, id).await, "fine-tuning job", id)?;
    let page = app.store.list_checkpoints(caller.tenant, id, after, limit).await?;
    let data = page.data.into_iter().map(|checkpoint| JobCheckpoint::new(&job, checkpoint)).collect();
    Ok(Json(ListPage::new(data, page.has_more)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_numbers_are_left_out_and_known_ones_carry_both_names() {
        let known = json!({"train_loss": 1.5, "valid_loss": 2.0, "valid_mean_token_accuracy": null, "lr": 3});
        let expected = json!({"step": 7, "train_loss": 1.5, "valid_loss": 2.0, "full_valid_loss": 2.0});
        assert_eq!(Value::Object(seven_numbers(7, &known)), expected);
    }
}
