//! `GET /v1/files/{file_id}/lint?model=`: what only a model, or a second file, can find in a file's rows.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use finetuned_dataset::{PrepareError, RowCounts, RuleTally, SourceFile, Survey, Watch, survey};
use finetuned_protocol::{
    ids::FileId,
    lint::{Finding, RuleCount, Severity},
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
/// Findings that a job would fail by, in the answer.
const MOST_ERRORS: usize = 100;

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
    /// Whether a job could train on the rows without leaving out broken ones.
    pub is_usable: bool,
    /// All rows of the file.
    pub rows: u64,
    /// Of the rows that can be used; absent where none can.
    pub dataset: Option<DatasetFacts>,
    /// Rows that would be left out, by rule.
    pub dropped_by_rule: BTreeMap<String, u64>,
    /// Every rule that was broken: how often, and where first. `GET /v1/files/{file_id}/lint/findings` with the same
    /// parameters has all lines.
    pub by_rule: Vec<RuleCount>,
    /// The same of the validation file.
    pub validation_by_rule: Vec<RuleCount>,
    /// Findings that a job would fail by, at most 100.
    pub errors: Vec<Finding>,
    pub errors_total: u64,
    /// Why rows would be left out, at most 1,000.
    pub dropped: Vec<Finding>,
    /// At most 1,000.
    pub warnings: Vec<Finding>,
}

/// A finding with the file that it lies in, as it is downloaded.
#[derive(Serialize)]
struct FindingLine<'f> {
    /// `training` or `validation`.
    file: &'static str,
    #[serde(flatten)]
    finding: &'f Finding,
}

/// Applies the rules that need a model: what the template makes of each row, what is left to learn within
/// `max_seq_len`, and what a validation file has in common with this one.
///
/// # Errors
/// No such file or model, or files that take too long.
pub async fn lint(app: &App, caller: &Caller, id: FileId, both: Both) -> Result<ModelLint, ApiError> {
    let (looked, _) = look(app, caller, id, (both, None)).await?;
    report(id, looked)
}

/// Every finding of these rules, one JSON object a line, in a file that lasts as long as the folder it lies in.
///
/// # Errors
/// As [`lint`].
pub async fn findings(app: &App, caller: &Caller, id: FileId, both: Both) -> Result<(PathBuf, Scratch), ApiError> {
    let scratch = Scratch::new()?;
    let path = scratch.path("findings");
    let out = BufWriter::new(File::create(&path).map_err(ApiError::unavailable)?);
    let (looked, out) = look(app, caller, id, (both, Some(out))).await?;
    if let Some(mut out) = out {
        out.flush().map_err(ApiError::unavailable)?;
    }
    report(id, looked)?;
    Ok((path, scratch))
}

/// What was found, and how the survey of the rows ended.
type Looked = (Found, Result<Survey, PrepareError>);
type Out = Option<BufWriter<File>>;

async fn look(
    app: &App,
    caller: &Caller,
    id: FileId,
    (Both(against, view), mut out): (Both, Out),
) -> Result<(Looked, Out), ApiError> {
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
    // Broken rows are reported like all others, and end nothing here.
    spec.rows.invalid_row_tolerance = 1.0;
    let until = Instant::now() + LONGEST;
    let work = move || {
        let _scratch = scratch;
        let mut found = Found::default();
        let mut progress =
            |_, _| if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let mut written = Ok(());
        let add = &mut |file, findings: &[Finding]| {
            found.add(file, findings);
            if let Some(out) = out.as_mut().filter(|_| written.is_ok()) {
                written = write(out, file, findings);
            }
        };
        let watch = Watch { progress: &mut progress, found: add };
        let surveyed = survey(&spec, &train, valid.as_deref(), &tokenizer, watch);
        written.map(|()| ((found, surveyed), out))
    };
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?.map_err(ApiError::unavailable)
}

fn write(out: &mut BufWriter<File>, file: SourceFile, findings: &[Finding]) -> io::Result<()> {
    let file = if file == SourceFile::Training { "training" } else { "validation" };
    for finding in findings {
        serde_json::to_writer(&mut *out, &FindingLine { file, finding })?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Findings as they come.
#[derive(Default)]
struct Found {
    train: RuleTally,
    valid: RuleTally,
    errors: Vec<Finding>,
    errors_total: u64,
}

impl Found {
    fn add(&mut self, file: SourceFile, findings: &[Finding]) {
        let tally = if file == SourceFile::Training { &mut self.train } else { &mut self.valid };
        tally.add(findings);
        for error in findings.iter().filter(|finding| finding.severity == Severity::Error) {
            self.errors_total += 1;
            if self.errors.len() < MOST_ERRORS {
                self.errors.push(error.clone());
            }
        }
    }
}

fn report(file_id: FileId, (found, surveyed): Looked) -> Result<ModelLint, ApiError> {
    let is_usable = surveyed.is_ok() && found.errors_total == 0;
    let no_error = |findings: Vec<Finding>| -> Vec<Finding> {
        findings.into_iter().filter(|finding| finding.severity == Severity::Warning).collect()
    };
    let (rows, dataset, dropped_by_rule, dropped, warnings) = match surveyed {
        Ok(Survey { facts, dropped, dropped_by_rule, warnings, rows, .. }) => {
            (rows, Some(facts), dropped_by_rule, no_error(dropped), warnings)
        }
        Err(PrepareError::NothingToTrain { findings, rows, .. }) => {
            (rows, None, BTreeMap::new(), no_error(findings), Vec::new())
        }
        // Nothing but broken rows: each has a finding.
        Err(PrepareError::Rows { rows, .. }) => (rows, None, BTreeMap::new(), Vec::new(), Vec::new()),
        Err(PrepareError::Cancelled) => {
            let message =
                format!("the file takes more than {} seconds; a job's validation does the same", LONGEST.as_secs());
            return Err(ApiError::busy(message));
        }
        Err(error) => return Err(ApiError::internal(error)),
    };
    let RowCounts { train, valid } = rows;
    let Found { train: by_rule, valid: of_valid, errors, errors_total } = found;
    Ok(ModelLint {
        object: "file.model_lint",
        file_id,
        is_usable,
        rows: train,
        dataset,
        dropped_by_rule,
        by_rule: by_rule.finish(train),
        validation_by_rule: of_valid.finish(valid),
        errors,
        errors_total,
        dropped,
        warnings,
    })
}
