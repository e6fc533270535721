//! Steps on a thread that may block, in a folder of the request's own.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use finetuned_dataset::{Applied, StepError, StepPlan, StepSource, apply_steps};
use finetuned_protocol::preparation::PreparationStep;

use finetuned_weights::TextTokenizer;

use super::{refusal::Names, sources::Source};
use crate::{http::error::ApiError, scratch::Scratch, state::App};

const LONGEST: Duration = Duration::from_secs(1800);

/// Files that were made, until this is dropped.
pub struct Work {
    pub training: PathBuf,
    /// A file only where rows are held out.
    pub held_out: PathBuf,
    pub applied: Applied,
    _scratch: Scratch,
}

/// What is to be done with the files.
pub struct Job {
    pub sources: Vec<Source>,
    pub steps: Vec<PreparationStep>,
    pub seed: u32,
    /// Of the model whose tokens a step counts.
    pub tokenizer: Option<TextTokenizer>,
    pub names: Names,
}

/// Brings the files here and takes their rows through the steps. Memory does not grow with them.
///
/// # Errors
/// What does not go together, named; or bytes that cannot be read or written.
pub async fn apply(app: &App, job: Job) -> Result<Work, ApiError> {
    let scratch = Scratch::new()?;
    let mut paths = Vec::new();
    for (index, source) in job.sources.iter().enumerate() {
        paths.push(scratch.fetch(app, &source.file, &format!("source-{index}")).await?);
    }
    let (training, held_out) = (scratch.path("training"), scratch.path("held-out"));
    let (until, closing, most_bytes) = (Instant::now() + LONGEST, app.closing.clone(), app.options.max_upload_bytes);
    let names = job.names;
    let work = move || {
        let sources: Vec<StepSource<'_>> = job
            .sources
            .iter()
            .zip(&paths)
            .map(|(source, path)| StepSource { path, reading: &source.file.reading, record: source.record() })
            .collect();
        let plan = StepPlan {
            sources: &sources,
            steps: &job.steps,
            seed: job.seed,
            tokenizer: job.tokenizer.as_ref(),
            most_bytes,
        };
        let mut go_on = |_, _| match Instant::now() < until && !closing.is_cancelled() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let applied = apply_steps(&plan, &training, &held_out, &mut go_on)?;
        Ok::<_, StepError>(Work { training, held_out, applied, _scratch: scratch })
    };
    let worked = tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?;
    let too_long = format!(
        "the preparation takes more than {} minutes, or the server is about to end; prepare fewer rows at once, or in \
         a job of its own",
        LONGEST.as_secs() / 60
    );
    worked.map_err(|error| names.refusal(error, &too_long))
}
