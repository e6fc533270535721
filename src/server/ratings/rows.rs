//! The held-out rows of a job, as its file has them.

use std::collections::{BTreeMap, BTreeSet};

use finetuned_dataset::{Asked, RowOutcome, RowStream, asked};
use finetuned_store::Job;
use futures::TryStreamExt;

use crate::{http::error::ApiError, state::App};

/// What the rows of these lines ask and answer, by line.
///
/// # Errors
/// Bytes that cannot be read.
pub async fn held_out_rows(app: &App, job: &Job, lines: &BTreeSet<u64>) -> Result<BTreeMap<u64, Vec<Asked>>, ApiError> {
    let data = app.store.job_data(job.tenant, job.id).await?;
    let rows = job.effective.as_ref().map(|effective| effective.preparation.rows.clone()).unwrap_or_default();
    let (blob, reading) = match data.validation {
        Some(validation) => (validation, rows.validation),
        None => (data.training, rows.training),
    };
    let mut bytes = app.store.get_blob(blob, None).await?;
    let mut stream = RowStream::new(&reading);
    let mut found = BTreeMap::new();
    let mut take = |outcome: RowOutcome| {
        if let RowOutcome::Good(row) = outcome
            && lines.contains(&row.line)
        {
            found.insert(row.line, asked(&row.example));
        }
    };
    while let Some(piece) = bytes.try_next().await? {
        // A piece is read in about a millisecond.
        stream.feed(&piece, &mut take);
    }
    stream.finish(&mut take);
    Ok(found)
}
