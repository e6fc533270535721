//! `GET /v1/files/{file_id}/lint?model=`: what only a model, or a second file, can find in a file's rows.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use finetuned_dataset::{PrepareError, Survey, survey};
use finetuned_protocol::{
    ids::FileId,
    lint::Finding,
    spec::{DatasetFacts, RowsSpec},
};
use finetuned_store::Caller;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::rows::{ModelView, Viewer};
use crate::{
    http::{
        error::ApiError,
        found,
        query::{Fields, FromQuery},
    },
    scratch::Scratch,
    state::App,
};

const LONGEST: Duration = Duration::from_secs(600);

/// What the rows are compared with.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Against {
    /// A validation file: its rows that equal a row of this file, or nearly do, are named.
    #[param(value_type = Option<String>)]
    validation_file: Option<FileId>,
}

/// Both sets of parameters.
pub struct Both(Against, ModelView);

impl FromQuery for Both {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let validation_file = fields.take_parsed("validation_file")?;
        Ok(Self(Against { validation_file }, ModelView::from_query(fields)?))
    }
}

/// What a model makes of a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelLint {
    /// Always `file.model_lint`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub file_id: FileId,
    /// Whether a job could train on the rows.
    pub is_usable: bool,
    /// Absent where no row can be used.
    pub dataset: Option<DatasetFacts>,
    /// Rows that would be left out, by rule.
    pub dropped_by_rule: BTreeMap<String, u64>,
    /// Findings that a job would fail by, at most 100.
    pub errors: Vec<Finding>,
    pub errors_total: u64,
    /// Why rows would be left out, at most 1,000.
    pub dropped: Vec<Finding>,
    /// At most 1,000.
    pub warnings: Vec<Finding>,
}

/// Applies the rules that need a model: what the template makes of each row, what is left to learn within
/// `max_seq_len`, and what a validation file has in common with this one.
///
/// # Errors
/// No such file or model, or files that take too long.
pub async fn lint(app: &App, caller: &Caller, id: FileId, Both(against, view): Both) -> Result<ModelLint, ApiError> {
    let _place = app.upload_place().await?;
    let Viewer { file, mut spec, tokenizer } = view.open(app, caller, id).await?;
    let scratch = Scratch::new()?;
    let train = scratch.fetch(app, &file, "train").await?;
    let mut valid = None;
    if let Some(id) = against.validation_file {
        let file = found(app.store.get_file(caller.tenant, id).await, "file", id)?;
        valid = Some(scratch.fetch(app, &file, "valid").await?);
        spec.rows = RowsSpec { validation: file.reading, ..spec.rows };
    }
    let until = Instant::now() + LONGEST;
    let work = move || {
        let _scratch = scratch;
        let mut go_on = |_, _| if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        survey(&spec, &train, valid.as_deref(), &tokenizer, &mut go_on)
    };
    let surveyed = tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?;
    report(id, surveyed)
}

fn report(file_id: FileId, surveyed: Result<Survey, PrepareError>) -> Result<ModelLint, ApiError> {
    let mut report = ModelLint {
        object: "file.model_lint",
        file_id,
        is_usable: false,
        dataset: None,
        dropped_by_rule: BTreeMap::new(),
        errors: Vec::new(),
        errors_total: 0,
        dropped: Vec::new(),
        warnings: Vec::new(),
    };
    match surveyed {
        Ok(Survey { facts, dropped, dropped_by_rule, warnings, formats: _ }) => {
            let dataset = Some(facts);
            report = ModelLint { is_usable: true, dataset, dropped_by_rule, dropped, warnings, ..report };
        }
        Err(PrepareError::Rows { findings, total, .. }) => {
            (report.errors, report.errors_total) = (findings, total);
        }
        Err(PrepareError::NothingToTrain { findings, .. }) => report.dropped = findings,
        Err(PrepareError::Cancelled) => {
            let message =
                format!("the file takes more than {} seconds; a job's validation does the same", LONGEST.as_secs());
            return Err(ApiError::busy(message));
        }
        Err(error) => return Err(ApiError::internal(error)),
    }
    Ok(report)
}
