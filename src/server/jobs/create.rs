//! `POST /v1/fine_tuning/jobs`: whatever can be known to be wrong is refused here, before a worker is troubled.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use finetuned_protocol::{
    ids::FileId, request::CreateJobRequest, resolve::resolve_preparation, resolve_tuning::resolve_tuning,
    spec::TemplateSpec, status::FileStatus,
};
use finetuned_store::{Caller, Model, NewJob, StoreError, fingerprint};
use finetuned_weights::{WeightsError, check_user_template};
use uuid::Uuid;

use super::{
    continued,
    wire::{FineTuningJob, as_created},
};
use crate::{
    files::first_findings,
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, Code, ErrorResponse},
        idempotency::{Repetition, mark_replayed},
        query::{NoParameters, Query},
    },
    state::App,
};

/// Findings that an error carries at most.
const MAX_DETAILS: usize = 100;

/// Create a fine-tuning job.
#[utoipa::path(
    post, path = "/v1/fine_tuning/jobs", tag = "fine-tuning",
    request_body = CreateJobRequest,
    responses(
        (status = 200, body = FineTuningJob),
        (status = 400, body = ErrorResponse, description = "A field is unknown or not allowed; `param` names it"),
        (status = 422, body = ErrorResponse, description = "The idempotency key was used for another request"),
    ),
)]
pub async fn create_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    repetition: Repetition,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<CreateJobRequest>,
) -> Result<Response, ApiError> {
    request.check()?;
    check_template(&request)?;
    let request = check_against_model(&app, &caller, request).await?;
    let training_file = usable_file(&app, &caller, TRAINING, (&request, &request.training_file)).await?;
    let validation_file = match &request.validation_file {
        Some(id) => Some(usable_file(&app, &caller, VALIDATION, (&request, id)).await?),
        None => None,
    };
    let canonical = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    let idempotency = repetition.of(&caller, "POST /v1/fine_tuning/jobs", fingerprint(&[&canonical]));
    let seed = request.seed.unwrap_or_else(draw_seed);
    let job = NewJob { request, seed, training_file, validation_file };
    let created = app.store.create_job(caller.tenant, job, Some(&idempotency)).await.map_err(refusal)?;
    let replayed = !created.is_new();
    let mut response = Json(as_created(created.into_inner())).into_response();
    if replayed {
        mark_replayed(&mut response);
    }
    Ok(response)
}

/// 0 to 2147483647, as the wire format has it.
fn draw_seed() -> u32 {
    (Uuid::new_v4().as_u128() as u32) >> 1
}

/// What changed between our look and the store's.
fn refusal(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound { what: "training_file" } => TRAINING.missing("the file"),
        StoreError::NotFound { what: "validation_file" } => VALIDATION.missing("the file"),
        error => error.into(),
    }
}

/// A Jinja text that cannot be compiled is refused before any row is looked at.
fn check_template(request: &CreateJobRequest) -> Result<(), ApiError> {
    match request.chosen_template()? {
        Some(TemplateSpec::Jinja { source }) => {
            let refused =
                |error: WeightsError| ApiError::invalid("template", format!("`template` cannot be used: {error}"));
            check_user_template(&source).map_err(refused)
        }
        _ => Ok(()),
    }
}

async fn check_against_model(
    app: &App,
    caller: &Caller,
    request: CreateJobRequest,
) -> Result<CreateJobRequest, ApiError> {
    let request = continued::named_by_its_model(app, caller, request).await?;
    let model = match app.store.get_model(caller.tenant, &request.model).await {
        Ok(Model::Base(model)) => model,
        Ok(Model::Tuned(model)) => {
            let (name, base) = (&request.model, &model.base_model);
            let message = format!("`{name}` is a tuned model; `model` is its base model `{base}`, or the same name");
            return Err(ApiError::invalid("model", message));
        }
        Err(StoreError::NotFound { .. }) => return Err(unknown_model(app, &request.model).await?),
        Err(error) => return Err(error.into()),
    };
    let (request, from) = continued::settle(app, caller, request, &model).await?;
    let tuning = resolve_tuning(&request, &model.facts, from.as_ref())?;
    resolve_preparation(&request, &tuning, &model.facts)?;
    Ok(request)
}

async fn unknown_model(app: &App, name: &str) -> Result<ApiError, ApiError> {
    let known: Vec<String> =
        app.store.base_models().await?.into_iter().map(|model| format!("`{}`", model.name)).collect();
    let known = match known.as_slice() {
        [] => "there is none yet; `finetuned models add` registers one".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    let message = format!("no base model is called `{name}`; {known}");
    Ok(ApiError::new(Code::InvalidValue, message).code(Code::ModelNotFound).param("model"))
}

/// Which of a job's two files is meant.
#[derive(Clone, Copy)]
struct FileField {
    param: &'static str,
    code: Code,
}

const TRAINING: FileField = FileField { param: "training_file", code: Code::InvalidTrainingFile };
const VALIDATION: FileField = FileField { param: "validation_file", code: Code::InvalidValidationFile };

impl FileField {
    fn refuse(self, message: String) -> ApiError {
        ApiError::new(self.code, message).param(self.param)
    }

    fn missing(self, id: &str) -> ApiError {
        self.refuse(format!("`{}`: {id} does not exist; upload it with POST /v1/files", self.param))
    }
}

/// A file of the right purpose whose rows, as far as they were read, go with the request.
async fn usable_file(
    app: &App,
    caller: &Caller,
    field: FileField,
    (request, id): (&CreateJobRequest, &str),
) -> Result<FileId, ApiError> {
    let quoted = format!("`{id}`");
    let Ok(file_id) = id.parse::<FileId>() else { return Err(field.missing(&quoted)) };
    let file = match app.store.get_file(caller.tenant, file_id).await {
        Err(StoreError::NotFound { .. }) => return Err(field.missing(&quoted)),
        file => file?,
    };
    if file.purpose != "fine-tune" {
        let (param, purpose) = (field.param, &file.purpose);
        return Err(field.refuse(format!("`{param}`: {quoted} has the purpose `{purpose}`; it must be `fine-tune`")));
    }
    if file.status != FileStatus::Error {
        if let Some(format) = file.lint.as_ref().and_then(|lint| lint.format) {
            request.check_rows(field.param, format)?;
        }
        return Ok(file_id);
    }
    let why = file.status_details.as_deref().unwrap_or("Its rows cannot be used.");
    let message =
        format!("`{}`: {quoted} cannot be used. {why} GET /v1/files/{id}/lint lists every finding.", field.param);
    let rows = file.lint.as_ref().map_or(0, |lint| lint.error_rows);
    Err(field.refuse(message).details(first_findings(app, &file, MAX_DETAILS).await?, rows))
}
