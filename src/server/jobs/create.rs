//! `POST /v1/fine_tuning/jobs`: whatever can be known to be wrong is refused here, before a worker is troubled.

use axum::{extract::State, response::Response};
use finetuned_dataset::check_reading;
use finetuned_evaluation::Categoriser;
use finetuned_protocol::{
    evaluation_spec::EvaluationSpec,
    ids::FileId,
    request::CreateJobRequest,
    resolve::{resolve_answers, resolve_preparation},
    resolve_tuning::resolve_tuning,
    spec::{PreparationSpec, TemplateSpec},
    status::FileStatus,
    tuning::TuningSpec,
};
use finetuned_store::{BaseModel, Caller, File, Model, NewJob, StoreError, fingerprint};
use finetuned_weights::{WeightsError, check_user_template};
use uuid::Uuid;

use super::{
    continued,
    judging::check_judge,
    wire::{FineTuningJob, as_created},
};
use crate::{
    files::first_findings,
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, Code, ErrorResponse},
        idempotency::{Repetition, answer_created},
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
    let Checked { request, training_file, validation_file, .. } = check(&app, &caller, request).await?;
    let canonical = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    let idempotency = repetition.of(&caller, "POST /v1/fine_tuning/jobs", fingerprint(&[&canonical]));
    let seed = request.seed.unwrap_or_else(draw_seed);
    let (training_file, validation_file) = (training_file.id, validation_file.map(|file| file.id));
    let job = NewJob { request, seed, training_file, validation_file };
    let created = app.store.create_job(caller.tenant, job, Some(&idempotency)).await.map_err(refusal)?;
    Ok(answer_created(created, as_created))
}

/// A request that a job can be made of, as far as can be told without reading rows.
pub struct Checked {
    /// With what the files' uploads and the model's name add.
    pub request: CreateJobRequest,
    pub model: BaseModel,
    pub tuning: TuningSpec,
    pub preparation: PreparationSpec,
    pub training_file: File,
    pub validation_file: Option<File>,
}

/// Checks a request against ranges, the model and the files.
///
/// # Errors
/// What is wrong with it; `param` names the field.
pub async fn check(app: &App, caller: &Caller, request: CreateJobRequest) -> Result<Checked, ApiError> {
    request.check()?;
    check_template(&request)?;
    let evaluation = request.evaluation.clone().unwrap_or_default().resolve()?;
    compile_patterns(&evaluation)?;
    check_judge(app, caller.tenant, (&evaluation, &resolve_answers(&request))).await?;
    let (request, model, tuning) = check_against_model(app, caller, request).await?;
    let (request, Files { training_file, validation_file }) = with_files(app, caller, request).await?;
    let preparation = resolve_preparation(&request, &tuning, &model.facts)?;
    Ok(Checked { request, model, tuning, preparation, training_file, validation_file })
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

/// A category's pattern that cannot be compiled is refused before anything is trained.
///
/// # Errors
/// A category's pattern that does not compile, or takes too much memory.
pub fn compile_patterns(spec: &EvaluationSpec) -> Result<(), ApiError> {
    let refused = |error| ApiError::invalid("evaluation.patterns", format!("`evaluation.patterns`: {error}"));
    Categoriser::new(spec, None).map(|_| ()).map_err(refused)
}

async fn check_against_model(
    app: &App,
    caller: &Caller,
    request: CreateJobRequest,
) -> Result<(CreateJobRequest, BaseModel, TuningSpec), ApiError> {
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
    Ok((request, model, tuning))
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
    /// Whether the job reads it otherwise than its upload did, whose findings then say nothing.
    is_read_anew: bool,
}

const TRAINING: FileField = FileField { param: "training_file", code: Code::InvalidTrainingFile, is_read_anew: false };
const VALIDATION: FileField =
    FileField { param: "validation_file", code: Code::InvalidValidationFile, is_read_anew: false };

impl FileField {
    fn read_anew(self, is_read_anew: bool) -> Self {
        Self { is_read_anew, ..self }
    }

    fn refuse(self, message: String) -> ApiError {
        ApiError::new(self.code, message).param(self.param)
    }

    fn missing(self, id: &str) -> ApiError {
        self.refuse(format!("`{}`: {id} does not exist; upload it with POST /v1/files", self.param))
    }
}

/// A job's files.
struct Files {
    training_file: File,
    validation_file: Option<File>,
}

/// The files of a request, and the request with how each is read: as it says, or else as the file's upload said.
async fn with_files(
    app: &App,
    caller: &Caller,
    mut request: CreateJobRequest,
) -> Result<(CreateJobRequest, Files), ApiError> {
    for (param, reading) in
        [("training_reading", &request.training_reading), ("validation_reading", &request.validation_reading)]
    {
        reading.as_ref().map_or(Ok(()), |reading| check_reading(param, reading))?;
    }
    let of_upload = |file: &File| Some(file.reading.clone()).filter(|reading| !reading.is_default());
    let asked = request.training_reading.is_some();
    let training = usable_file(app, caller, TRAINING.read_anew(asked), (&request, &request.training_file)).await?;
    request.training_reading = request.training_reading.or_else(|| of_upload(&training));
    let mut validation_file = None;
    if let Some(id) = &request.validation_file {
        let asked = request.validation_reading.is_some();
        let file = usable_file(app, caller, VALIDATION.read_anew(asked), (&request, id)).await?;
        request.validation_reading = request.validation_reading.or_else(|| of_upload(&file));
        validation_file = Some(file);
    }
    check_held_out(&training, validation_file.as_ref())?;
    Ok((request, Files { training_file: training, validation_file }))
}

/// At least one row must be left to evaluate on, as far as the counts of the upload tell.
fn check_held_out(training: &File, validation: Option<&File>) -> Result<(), ApiError> {
    let usable = |file: &File| file.lint.as_ref().map(|lint| lint.rows.saturating_sub(lint.error_rows));
    match validation {
        Some(file) if usable(file) == Some(0) => {
            Err(VALIDATION.refuse("`validation_file`: it has no usable row, so nothing could be evaluated".to_owned()))
        }
        None if usable(training) == Some(1) => {
            let message = "`training_file`: of one row none can be held out, so the result could not be evaluated; give \
                           more rows, or a `validation_file`";
            Err(TRAINING.refuse(message.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A file of the right purpose whose rows, as far as they were read, go with the request.
async fn usable_file(
    app: &App,
    caller: &Caller,
    field: FileField,
    (request, id): (&CreateJobRequest, &str),
) -> Result<File, ApiError> {
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
    let tolerance = request.invalid_row_tolerance.unwrap_or(0.0);
    let few_are_bad = file
        .lint
        .as_ref()
        .is_some_and(|lint| lint.rows > lint.error_rows && lint.error_rows as f64 <= tolerance * lint.rows as f64);
    if field.is_read_anew {
        return Ok(file);
    }
    if file.status != FileStatus::Error || few_are_bad {
        if let Some(format) = file.lint.as_ref().and_then(|lint| lint.format) {
            request.check_rows(field.param, format)?;
        }
        return Ok(file);
    }
    let why = file.status_details.as_deref().unwrap_or("Its rows cannot be used.");
    let message =
        format!("`{}`: {quoted} cannot be used. {why} GET /v1/files/{id}/lint lists every finding.", field.param);
    let rows = file.lint.as_ref().map_or(0, |lint| lint.error_rows);
    Err(field.refuse(message).details(first_findings(app, &file, MAX_DETAILS).await?, rows))
}
