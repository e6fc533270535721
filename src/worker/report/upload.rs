//! Brings a checkpoint's and an adapter's files into the store.

use std::{fs, io, path::Path};

use finetuned_protocol::{
    engine::{ADAPTER_FOLDER, CHECKPOINTS_FOLDER, EngineEvent, FileEntry, MANIFEST_FILE, Manifest},
    error::{ErrorCode, JobError},
    metrics,
};
use finetuned_store::{NewCheckpoint, StoredFile};
use serde_json::Value;

use super::events::{numbers, valid_metrics};
use crate::{attempt::Attempt, error::AttemptError, layout::plain_name};

/// Stores the checkpoint of `step` and publishes it; then the older ones in the attempt's folder go.
///
/// # Errors
/// Files that cannot be read or stored, or that are not those of the manifest; a lost lease.
pub async fn publish_checkpoint(
    attempt: &Attempt,
    folder: &Path,
    step: u32,
    metrics: Value,
) -> Result<(), AttemptError> {
    let checkpoints = folder.join(CHECKPOINTS_FOLDER);
    let place = checkpoints.join(format!("step-{step}"));
    let text = fs::read(place.join(MANIFEST_FILE)).map_err(AttemptError::io("reading a checkpoint's manifest"))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .map_err(AttemptError::io("reading a checkpoint's manifest"))?;
    let mut files = store_files(attempt, &place, &manifest.files).await?;
    let path = place.join(MANIFEST_FILE);
    let tenant = attempt.lease.job.tenant;
    let content = attempt.persist("storing a checkpoint", || attempt.store.put_file(tenant, &path)).await?;
    files.push(StoredFile { name: MANIFEST_FILE.to_owned(), content });
    let checkpoint = NewCheckpoint { step, metrics, files };
    let key = attempt.lease.key;
    attempt.persist("publishing a checkpoint", || attempt.store.publish_checkpoint(&key, &checkpoint)).await?;
    remove_older(&checkpoints, step);
    Ok(())
}

/// Stores the exported adapter.
///
/// # Errors
/// See [`publish_checkpoint`].
pub async fn store_adapter(
    attempt: &Attempt,
    folder: &Path,
    files: &[FileEntry],
) -> Result<Vec<StoredFile>, AttemptError> {
    store_files(attempt, &folder.join(ADAPTER_FOLDER), files).await
}

async fn store_files(attempt: &Attempt, folder: &Path, files: &[FileEntry]) -> Result<Vec<StoredFile>, AttemptError> {
    let tenant = attempt.lease.job.tenant;
    let mut stored = Vec::with_capacity(files.len());
    for file in files {
        let path = folder.join(plain_name(&file.name)?);
        let content = attempt.persist("storing a file", || attempt.store.put_file(tenant, &path)).await?;
        if (content.bytes, &content.sha256) != (file.bytes, &file.sha256) {
            tracing::error!(path = %path.display(), expected = file.sha256, found = content.sha256, "a file was altered");
            let message = format!("The file {} is not the one that the engine wrote", file.name);
            return Err(AttemptError::Crashed(JobError::new(ErrorCode::InternalError, message)));
        }
        stored.push(StoredFile { name: file.name.clone(), content });
    }
    Ok(stored)
}

/// The numbers of a `checkpoint` line, by the names that clients read.
pub fn checkpoint_metrics(event: &EngineEvent) -> Value {
    let EngineEvent::Checkpoint { step, train_loss, train_mean_token_accuracy, evaluation, .. } = event else {
        return Value::Object(serde_json::Map::new());
    };
    let train = [(metrics::TRAIN_LOSS, train_loss), (metrics::TRAIN_MEAN_TOKEN_ACCURACY, train_mean_token_accuracy)];
    let mut values: Vec<(&str, f64)> =
        train.iter().filter_map(|(name, value)| value.map(|value| (*name, value))).collect();
    values.extend(evaluation.iter().flat_map(valid_metrics));
    let mut object = numbers(&values);
    object.insert("step".into(), (*step).into());
    Value::Object(object)
}

/// Removes the checkpoints of earlier steps: the store has a newer one. What cannot be removed only takes room.
fn remove_older(checkpoints: &Path, step: u32) {
    let Ok(entries) = fs::read_dir(checkpoints) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let older = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse::<u32>().ok());
        if older.is_some_and(|older| older < step)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, "could not remove an older checkpoint of an attempt");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::evaluation::Likelihood;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_older_checkpoints_go() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["step-1", "step-3", "step-10", "step-12", "step-2.tmp", "other"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        remove_older(folder.path(), 10);
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["other", "step-10", "step-12", "step-2.tmp"]);
    }

    #[test]
    fn a_checkpoint_has_the_numbers_that_were_measured() {
        let likelihood = Likelihood {
            loss: 1.5,
            perplexity: 4.48,
            token_accuracy: 0.6,
            supervised_tokens: 10,
            rows: 2,
            bits_per_byte: None,
            preference: None,
        };
        let event = |train_loss, evaluation| EngineEvent::Checkpoint {
            step: 4,
            bytes: 10,
            train_loss,
            train_mean_token_accuracy: None,
            evaluation,
        };
        assert_eq!(checkpoint_metrics(&event(None, None)), json!({"step": 4}));
        assert_eq!(
            checkpoint_metrics(&event(Some(2.0), Some(likelihood))),
            json!({
                "train_loss": 2.0, "valid_loss": 1.5, "valid_mean_token_accuracy": 0.6,
                "full_valid_loss": 1.5, "full_valid_mean_token_accuracy": 0.6, "step": 4
            })
        );
    }
}
