//! `GET /v1/files/{file_id}/rows`: a row as the model will see it.

use axum::{Json, extract::State};
use finetuned_dataset::{RowOutcome, RowStream, view_row};
use finetuned_protocol::{
    ids::FileId,
    inspection::RowView,
    lint::ReadingSpec,
    request::parse_template,
    spec::{ModelFacts, PreparationSpec, RowsSpec, TemplateSpec},
};
use finetuned_store::{BlobId, Caller, File};
use finetuned_weights::{TextTokenizer, check_user_template};
use futures::TryStreamExt;
use utoipa::IntoParams;

use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    state::App,
    tokenizers::base_model,
};

/// For whom rows are looked at.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ModelView {
    /// A base model, or a tuned one for the one that it was made from.
    pub model: String,
    /// As in a job: a template's name or a Jinja text.
    pub template: Option<String>,
    /// As in a job; by default 2048, or the model's context where that is shorter.
    #[param(minimum = 8)]
    pub max_seq_len: Option<u32>,
}

impl FromQuery for ModelView {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let model = fields
            .take("model")?
            .ok_or_else(|| ApiError::new(Code::MissingParameter, "the parameter `model` is required").param("model"))?;
        let max_seq_len = fields.take_parsed("max_seq_len")?;
        if max_seq_len.is_some_and(|tokens: u32| tokens < 8) {
            return Err(ApiError::invalid("max_seq_len", "`max_seq_len` must be at least 8"));
        }
        Ok(Self { model, template: fields.take("template")?, max_seq_len })
    }
}

/// What a view needs.
pub struct Viewer {
    pub file: File,
    pub spec: PreparationSpec,
    pub tokenizer: TextTokenizer,
}

impl ModelView {
    /// # Errors
    /// No such file or model, or a template that this model or nobody can use.
    pub async fn open(self, app: &App, caller: &Caller, id: FileId) -> Result<Viewer, ApiError> {
        let file = found(app.store.get_file(caller.tenant, id).await, "file", id)?;
        let model = base_model(app, caller, &self.model).await?;
        let template = self.template(&model.facts)?;
        let most = model.facts.context_length;
        let max_seq_len = self.max_seq_len.unwrap_or_else(|| most.min(2048));
        if max_seq_len > most {
            let message = format!("`max_seq_len` must be at most {most}, the context length of this model");
            return Err(ApiError::invalid("max_seq_len", message));
        }
        let tokenizer = app.tokenizers.of(&model).await?;
        let rows = RowsSpec { training: file.reading.clone(), ..RowsSpec::default() };
        let spec =
            PreparationSpec { template, max_seq_len, train_on_prompt: false, eval_fraction: 0.0, split_seed: 0, rows };
        Ok(Viewer { file, spec, tokenizer })
    }

    fn template(&self, facts: &ModelFacts) -> Result<TemplateSpec, ApiError> {
        let refused = |message: String| ApiError::invalid("template", message);
        let template = match (&self.template, facts.has_chat_template) {
            (Some(template), _) => parse_template(template)?,
            (None, true) => TemplateSpec::Chat,
            (None, false) => TemplateSpec::Alpaca,
        };
        match &template {
            TemplateSpec::Chat if !facts.has_chat_template => {
                return Err(refused("this model has no chat template; name another".to_owned()));
            }
            TemplateSpec::Jinja { source } => {
                check_user_template(source).map_err(|error| refused(format!("`template` cannot be used: {error}")))?
            }
            TemplateSpec::Chat | TemplateSpec::Alpaca => {}
        }
        Ok(template)
    }
}

/// Which row.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RowOfFile {
    /// Line where the row starts, counted from 1; of a Parquet file, the row's number.
    #[param(minimum = 1)]
    line: u64,
}

/// A row of a file as the model will see it: text, tokens, which of them carry loss, and where it is cut off.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/rows", tag = "files",
    params(("file_id" = String, Path), RowOfFile, ModelView),
    responses(
        (status = 200, body = RowView),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse, description = "No such file, or no row starts in the line"),
    ),
)]
pub async fn get_file_row(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(Both(row, view)): Query<Both>,
) -> Result<Json<RowView>, ApiError> {
    let Viewer { file, spec, tokenizer } = view.open(&app, &caller, id).await?;
    let found = find_row(&app, file.content.id, &file.reading, row.line).await?;
    let Some((outcome, format)) = found else {
        return Err(ApiError::new(Code::NotFound, format!("no row of `{id}` starts in line {}", row.line)));
    };
    match outcome {
        RowOutcome::Good(row) => {
            let view = move || view_row(&spec, &row, format, &tokenizer);
            let view = tokio::task::spawn_blocking(view).await.map_err(ApiError::internal)?;
            Ok(Json(view.map_err(ApiError::internal)?))
        }
        RowOutcome::Bad(findings) => Ok(Json(RowView {
            line: row.line,
            format,
            rendered: String::new(),
            tokens: Vec::new(),
            supervised_tokens: 0,
            truncated_at: None,
            max_seq_len: spec.max_seq_len,
            findings,
        })),
    }
}

/// Both sets of parameters.
pub struct Both(RowOfFile, ModelView);

impl FromQuery for Both {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let line = fields
            .take_parsed("line")?
            .ok_or_else(|| ApiError::new(Code::MissingParameter, "the parameter `line` is required").param("line"))?;
        Ok(Self(RowOfFile { line }, ModelView::from_query(fields)?))
    }
}

type Found = Option<(RowOutcome, Option<finetuned_protocol::lint::RowFormat>)>;

/// The row that starts in a line.
async fn find_row(app: &App, blob: BlobId, reading: &ReadingSpec, line: u64) -> Result<Found, ApiError> {
    let mut bytes = app.store.get_blob(blob, None).await?;
    let mut rows = RowStream::new(reading);
    let mut found = None;
    let take = |found: &mut Option<RowOutcome>, outcome: RowOutcome| {
        let at = match &outcome {
            RowOutcome::Good(row) => row.line,
            RowOutcome::Bad(findings) => findings.first().map_or(0, |finding| finding.line),
        };
        if at == line && found.is_none() {
            *found = Some(outcome);
        }
    };
    while let Some(piece) = bytes.try_next().await? {
        // A piece is read in about a millisecond.
        rows.feed(&piece, &mut |outcome| take(&mut found, outcome));
        if let Some(found) = found {
            return Ok(Some((found, rows.format())));
        }
    }
    let format = rows.format();
    rows.finish(&mut |outcome| take(&mut found, outcome));
    Ok(found.map(|found| (found, format)))
}
