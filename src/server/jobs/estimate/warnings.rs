//! What experience says of settings. Rules of thumb, so they warn and never refuse.

use finetuned_protocol::{
    inspection::EstimateWarning,
    request::CreateJobRequest,
    resolve::default_learning_rate,
    spec::{DatasetFacts, ModelFacts, TrainingSpec},
};

const FEW_ROWS: u64 = 50;
/// Of the usual rate, to either side.
const USUAL_FACTOR: f64 = 10.0;
/// Rows seen in all, each as often as it is seen: fewer teach little.
const LEAST_SEEN_ROWS: u64 = 100;
/// Few rows seen so often are learned by heart.
const MOST_EPOCHS_OF_FEW: u32 = 10;
const FEW_TO_REPEAT: u64 = 1000;
const SMALL_MODEL_PARAMETERS: u64 = 500_000_000;
const LONG_ANSWER_TOKENS: u64 = 300;
const CUT_SHARE: f64 = 0.05;

pub fn about(
    request: &CreateJobRequest,
    model: &ModelFacts,
    spec: &TrainingSpec,
    dataset: &DatasetFacts,
) -> Vec<EstimateWarning> {
    let mut warnings = Vec::new();
    let mut warn = |rule: &str, message: String| warnings.push(EstimateWarning { rule: rule.to_owned(), message });
    let rows = dataset.train_rows;
    if rows < FEW_ROWS {
        warn("few_rows", format!("{rows} rows are few to learn from; {FEW_ROWS} to 100 good ones are a usual start"));
    }
    let rate = spec.optimizer.learning_rate;
    let usual = default_learning_rate(&spec.tuning, spec.objective, &spec.optimizer.algorithm);
    if rate > usual * USUAL_FACTOR || rate < usual / USUAL_FACTOR {
        warn("learning_rate_unusual", format!("the learning rate {rate} is far from {usual}, usual for this method"));
    }
    let seen = (u64::from(spec.total_steps) * u64::from(spec.batch_size)).min(rows * u64::from(spec.n_epochs));
    if seen < LEAST_SEEN_ROWS {
        warn("underfit_likely", format!("only {seen} rows are seen in all; give more epochs or more rows"));
    }
    if rows < FEW_TO_REPEAT && spec.n_epochs > MOST_EPOCHS_OF_FEW {
        let message = format!("{} epochs over {rows} rows teach them by heart; watch the held-out loss", spec.n_epochs);
        warn("overfit_likely", message);
    }
    let answer = dataset.train_supervised_tokens / rows.max(1);
    if model.parameters < SMALL_MODEL_PARAMETERS && answer > LONG_ANSWER_TOKENS {
        let message = format!("answers of {answer} tokens on average ask much of a model this small");
        warn("long_answers_small_model", message);
    }
    if dataset.truncated_rows as f64 > CUT_SHARE * rows as f64 {
        let cut = dataset.truncated_rows;
        let message =
            format!("{cut} rows lose part of their answer to `max_seq_len` ({})", spec.preparation.max_seq_len);
        warn("answers_cut_off", message);
    }
    if request.validation_file.is_none() && dataset.held_out_rows == 0 {
        warn("nothing_held_out", "no row is held out, so the result cannot be judged".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::{
        resolve::{resolve, resolve_preparation},
        resolve_tuning::resolve_tuning,
    };
    use serde_json::json;

    use super::*;
    use crate::service_tests::service::facts;

    fn rules(extra: serde_json::Value, dataset: DatasetFacts) -> Vec<String> {
        let mut body = json!({"model": "m", "training_file": "file-1"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let request: CreateJobRequest = serde_json::from_value(body).unwrap();
        let model = facts();
        let tuning = resolve_tuning(&request, &model, None).unwrap();
        let preparation = resolve_preparation(&request, &tuning, &model).unwrap();
        let spec = resolve(&request, preparation, tuning, &dataset).unwrap();
        about(&request, &model, &spec, &dataset).into_iter().map(|warning| warning.rule).collect()
    }

    #[test]
    fn each_rule_speaks_where_it_should_and_only_there() {
        let good = DatasetFacts {
            train_rows: 500,
            held_out_rows: 50,
            train_tokens: 50_000,
            train_supervised_tokens: 20_000,
            longest_row_tokens: 200,
            ..DatasetFacts::default()
        };
        assert!(rules(json!({}), good.clone()).is_empty());
        let few = DatasetFacts { train_rows: 9, held_out_rows: 0, train_supervised_tokens: 90, ..good.clone() };
        assert_eq!(rules(json!({}), few), ["few_rows", "underfit_likely", "nothing_held_out"]);
        assert_eq!(rules(json!({"optimizer": {"learning_rate": 0.5}}), good.clone()), ["learning_rate_unusual"]);
        assert_eq!(rules(json!({"optimizer": {"learning_rate": 1e-6}}), good.clone()), ["learning_rate_unusual"]);
        assert_eq!(rules(json!({"n_epochs": 20}), good.clone()), ["overfit_likely"]);
        let long = DatasetFacts { train_supervised_tokens: 400 * 500, ..good.clone() };
        assert_eq!(rules(json!({}), long), ["long_answers_small_model"]);
        assert_eq!(rules(json!({}), DatasetFacts { truncated_rows: 100, ..good }), ["answers_cut_off"]);
    }
}
