//! `validate`: the files against the model, every `auto` into a number, and what the job will take.

mod preparing;
mod refusals;
mod told;

use std::sync::Arc;

use finetuned_dataset::Survey;
use finetuned_protocol::{
    engine::{TRAIN_DATA, VALID_DATA},
    error::FieldError,
    export::ExportFormat,
    request::CreateJobRequest,
    resolve::{resolve, resolve_preparation},
    resolve_tuning::resolve_tuning,
    spec::ModelFacts,
    status::EventLevel,
};
use finetuned_store::{NewEvent, Report, Validated};
use finetuned_weights::{ModelSource, TextTokenizer, WeightsError, check_gguf_export, planner};

use self::preparing::Preparing;
use crate::{
    attempt::Attempt,
    continued,
    error::AttemptError,
    folder::AttemptFolder,
    layout::{base_path, fetch_data},
};

/// Validates, and queues the training.
///
/// # Errors
/// What is wrong with files, settings or model; or why this could not be found out.
pub async fn validate(attempt: &Arc<Attempt>, folder: &AttemptFolder) -> Result<(), AttemptError> {
    let validated = attempt.unless_interrupted(examine(attempt, folder)).await?;
    let key = attempt.lease.key;
    let publish = attempt.persist("publishing a validation", || attempt.store.finish_validation(&key, &validated));
    attempt.unless_interrupted(publish).await
}

async fn examine(attempt: &Arc<Attempt>, folder: &AttemptFolder) -> Result<Validated, AttemptError> {
    tell_what_begins(attempt).await?;
    fetch_data(attempt, folder.path()).await?;
    let request = CreateJobRequest { seed: Some(attempt.lease.job.seed), ..attempt.lease.job.request.clone() };
    let gguf = request.export.iter().flatten().any(|format| *format != ExportFormat::Merged);
    let (facts, tokenizer) = open_model(attempt, gguf).await?;
    let from = continued::adapter_spec(attempt).await?;
    let tuning = resolve_tuning(&request, &facts, from.as_ref()).map_err(refusals::settings)?;
    let preparation = resolve_preparation(&request, &tuning, &facts).map_err(refusals::settings)?;
    let has_valid = attempt.lease.validation.is_some();
    let preparing = Preparing {
        spec: preparation.clone(),
        train: folder.join(TRAIN_DATA),
        valid: has_valid.then(|| folder.join(VALID_DATA)),
        tokenizer,
    };
    let (survey, tallies) = preparing.run(attempt).await?;
    let Survey { facts: dataset, dropped, warnings, formats, .. } = survey;
    request.check_rows("training_file", formats.train).map_err(refusals::settings)?;
    if let Some(format) = formats.valid {
        request.check_rows("validation_file", format).map_err(refusals::settings)?;
    }
    let spec = resolve(&request, preparation, tuning, &dataset).map_err(refusals::settings)?;
    let estimate = planner::estimate(&facts, &spec, &dataset, request.kept_checkpoints());
    let mut events = told::about_rows(&dataset, spec.preparation.max_seq_len, &dropped, (&warnings, &tallies));
    events.push(told::summary(&dataset, &estimate));
    Ok(Validated { spec, dataset, estimate, events })
}

async fn tell_what_begins(attempt: &Attempt) -> Result<(), AttemptError> {
    let once = |key: &str, message: String| NewEvent {
        once: Some(key.to_owned()),
        ..NewEvent::message(EventLevel::Info, message)
    };
    let mut events = vec![once("validating", format!("Validating training file: {}", attempt.lease.training.id))];
    if let Some(file) = &attempt.lease.validation {
        events.push(once("validating:valid", format!("Validating validation file: {}", file.id)));
    }
    let report = Report { events, ..Report::default() };
    let key = attempt.lease.key;
    attempt.persist("reporting", || attempt.store.report(&key, &report)).await
}

/// Opening a model reads its tokenizer, which takes a while. Where GGUF files of it are to be written, what stands against
/// that is told here and not after the training.
async fn open_model(attempt: &Attempt, gguf: bool) -> Result<(ModelFacts, TextTokenizer), AttemptError> {
    let path = base_path(attempt)?;
    let name = attempt.lease.base_model.name.clone();
    let open = move || {
        let source = ModelSource::open(&path)?;
        let tokenizer = source.tokenizer()?;
        let gguf = if gguf { check_gguf_export(source.config(), &tokenizer) } else { Ok(()) };
        Ok((source.facts(), tokenizer, gguf))
    };
    let opened = preparing::blocking(open).await?.map_err(|error| refusals::model(&name, &error));
    let (facts, tokenizer, gguf) = opened?;
    let refused = |error| FieldError::new("export", format!("`export` cannot have a GGUF file of this model: {error}"));
    gguf.map_err(|error: WeightsError| refusals::settings(refused(error)))?;
    Ok((facts, tokenizer))
}
