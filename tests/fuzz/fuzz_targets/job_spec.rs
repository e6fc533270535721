//! The body of a job, checked and resolved against a model and a dataset.
#![no_main]

use finetuned_protocol::{
    request::CreateJobRequest,
    resolve::{resolve, resolve_preparation},
    resolve_tuning::resolve_tuning,
    spec::{DatasetFacts, ModelFacts},
};
use finetuned_weights::{ModelSource, check_user_template, planner};
use libfuzzer_sys::fuzz_target;

static FACTS: std::sync::LazyLock<ModelFacts> = std::sync::LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/tiny-chat");
    ModelSource::open(std::path::Path::new(path)).expect("the model of the tests").facts()
});

fuzz_target!(|data: &[u8]| {
    let Ok(request) = serde_json::from_slice::<CreateJobRequest>(data) else { return };
    let written = serde_json::to_vec(&request).expect("what was read can be written");
    let again: CreateJobRequest = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(written, serde_json::to_vec(&again).expect("again"));
    if request.check().is_err() {
        return;
    }
    if let Ok(Some(finetuned_protocol::spec::TemplateSpec::Jinja { source })) = request.chosen_template() {
        let _refused = check_user_template(&source);
    }
    let Ok(tuning) = resolve_tuning(&request, &FACTS, None) else { return };
    let Ok(preparation) = resolve_preparation(&request, &tuning, &FACTS) else { return };
    for rows in [1, 1000, 1 << 40] {
        let dataset = DatasetFacts {
            train_rows: rows,
            held_out_rows: rows / 10,
            train_tokens: rows * 50,
            train_supervised_tokens: rows * 20,
            longest_row_tokens: 64,
            ..DatasetFacts::default()
        };
        if let Ok(spec) = resolve(&request, preparation.clone(), tuning.clone(), &dataset) {
            let _estimate = planner::estimate(&FACTS, &spec, &dataset, request.kept_checkpoints());
        }
    }
});
