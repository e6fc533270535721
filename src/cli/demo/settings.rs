//! The demo's job: settings that finish within minutes on two cores and show an effect.

use serde_json::{Value, json};

use super::FileObject;
use crate::format;

/// Optimiser steps at most, however many rows a user's file has.
const MOST_STEPS: u64 = 60;
const BATCH_SIZE: u64 = 8;
const EPOCHS: u64 = 2;
/// Share of the rows that is held out.
const EVAL_FRACTION: f64 = 0.15;

/// The body of the job's creation.
pub fn body(model: &str, file: &FileObject) -> Value {
    let mut body = json!({
        "model": model,
        "training_file": file.id,
        "suffix": "demo",
        "seed": 7,
        "batch_size": BATCH_SIZE,
        "eval_fraction": EVAL_FRACTION,
        "lora": {"r": 16, "alpha": 32},
        "optimizer": {"learning_rate": 1e-3},
        "answers": {"rows": 24, "max_new_tokens": 48},
    });
    body[if is_cut(file) { "max_steps" } else { "n_epochs" }] =
        if is_cut(file) { MOST_STEPS.into() } else { EPOCHS.into() };
    body
}

/// What to tell the user about the settings.
pub fn remark(file: &FileObject) -> Option<String> {
    is_cut(file).then(|| {
        format!(
            "  {} are many for a demo: it stops after {MOST_STEPS} steps of {BATCH_SIZE} rows",
            format::count(rows(file), "row")
        )
    })
}

fn rows(file: &FileObject) -> u64 {
    file.lint.as_ref().map_or(0, |lint| lint.rows)
}

/// Whether all epochs would take more steps than a demo should.
fn is_cut(file: &FileObject) -> bool {
    let trained = (rows(file) as f64 * (1.0 - EVAL_FRACTION)).round() as u64;
    trained.div_ceil(BATCH_SIZE) * EPOCHS > MOST_STEPS + BATCH_SIZE
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use finetuned_protocol::request::CreateJobRequest;

    fn file(rows: u64) -> FileObject {
        serde_json::from_value(json!({"id": "file-1", "bytes": 1, "filename": "f", "purpose": "fine-tune",
            "status": "processed", "lint": {"format": "alpaca", "layout": "jsonl", "rows": rows, "error_rows": 0,
            "warning_rows": 0, "by_rule": []}}))
        .unwrap()
    }

    #[test]
    fn the_service_accepts_the_settings() {
        for rows in [192, 5000] {
            let request: CreateJobRequest = serde_json::from_value(body("m", &file(rows))).unwrap();
            request.check().unwrap();
        }
    }

    #[test]
    fn a_large_file_is_trained_on_in_part_and_said_so() {
        assert_eq!(remark(&file(192)), None);
        assert_eq!(body("m", &file(192))["n_epochs"], EPOCHS);
        assert!(remark(&file(5000)).unwrap().contains("5000 rows"));
        assert_eq!(body("m", &file(5000))["max_steps"], MOST_STEPS);
        assert!(body("m", &file(5000)).get("n_epochs").is_none());
    }
}
