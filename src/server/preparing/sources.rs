//! The files that a dataset is made of, as far as can be told without reading their rows.

use finetuned_dataset::dropped_rules;
use finetuned_protocol::{
    ids::FileId,
    lint::Severity,
    preparation::{FileShare, PreparationStep, SourceRecord},
    status::FileStatus,
};
use finetuned_store::{Caller, File, StoreError};

use crate::{
    files::first_findings,
    http::error::{ApiError, Code},
    state::App,
};

/// Findings that an error carries at most.
const MAX_DETAILS: usize = 100;

/// A file that rows are taken from.
pub struct Source {
    pub file: File,
    pub weight: f64,
}

impl Source {
    /// What is known of it before its rows are counted.
    pub fn record(&self) -> SourceRecord {
        SourceRecord {
            file_id: self.file.id,
            sha256: self.file.content.sha256.clone(),
            bytes: self.file.content.bytes,
            weight: self.weight,
            rows_in: 0,
            left_by_rule: Default::default(),
            training_rows: 0,
            held_out_rows: 0,
        }
    }
}

/// Finds the files of a set; `param` is its name in the request.
///
/// # Errors
/// A 404 for a file that does not exist or is another tenant's; a 400 for one whose rows cannot be used.
pub async fn open(
    app: &App,
    caller: &Caller,
    (param, files): (&str, &[FileShare]),
    steps: &[PreparationStep],
) -> Result<Vec<Source>, ApiError> {
    let dropped = dropped_rules(steps);
    let mut sources = Vec::new();
    for (index, share) in files.iter().enumerate() {
        let param = format!("{param}[{index}].id");
        let file = usable(app, caller, (&param, &share.id), &dropped).await?;
        sources.push(Source { file, weight: share.weight() });
    }
    Ok(sources)
}

async fn usable(app: &App, caller: &Caller, (param, id): (&str, &str), dropped: &[&str]) -> Result<File, ApiError> {
    let missing = || {
        let message = format!("`{param}`: the file `{id}` does not exist; upload it with POST /v1/files");
        ApiError::new(Code::NotFound, message).param(param)
    };
    let file_id: FileId = id.parse().map_err(|_| missing())?;
    let file = match app.store.get_file(caller.tenant, file_id).await {
        Err(StoreError::NotFound { .. }) => return Err(missing()),
        file => file?,
    };
    if file.purpose != "fine-tune" {
        let message = format!("`{param}`: `{id}` has the purpose `{}`; it must be `fine-tune`", file.purpose);
        return Err(ApiError::new(Code::InvalidTrainingFile, message).param(param));
    }
    if file.status != FileStatus::Error || loses_its_errors(&file, dropped) {
        return Ok(file);
    }
    let why = file.status_details.as_deref().unwrap_or("Its rows cannot be used.");
    let message = format!(
        "`{param}`: `{id}` cannot be used. {why} GET /v1/files/{id}/lint lists every finding; a step `drop` that names \
         their rules leaves such rows out."
    );
    let rows = file.lint.as_ref().map_or(0, |lint| lint.error_rows);
    let error = ApiError::new(Code::InvalidTrainingFile, message).param(param);
    Err(error.details(first_findings(app, &file, MAX_DETAILS).await?, rows))
}

/// Whether a step drops all rows that the file is in error by.
fn loses_its_errors(file: &File, dropped: &[&str]) -> bool {
    let Some(lint) = &file.lint else { return false };
    let mut errors = lint.by_rule.iter().filter(|count| count.severity == Severity::Error);
    lint.rows > lint.error_rows && errors.all(|count| dropped.contains(&count.rule.as_str()))
}
