//! The further forms of a job's result, through whole runs in process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, ops::ControlFlow, path::Path};

use finetuned_model::{Adapter, CausalLm, Documents, ForwardContext};
use finetuned_protocol::{
    engine::{EXIT_OK, EngineEvent},
    export::{ExportFormat, MERGED_PREFIX},
    spec::TrainingSpec,
    tuning::{FullSpec, TuningSpec},
};
use finetuned_torch::{Device, Kind, Tensor};
use finetuned_weights::ModelSource;

use crate::{testing::spec, testing_folder::Folder};

const IDS: [u32; 12] = [1, 70, 71, 90, 3, 4, 100, 101, 102, 33, 32, 9];

fn load(path: &Path) -> CausalLm {
    let source = ModelSource::open(path).unwrap();
    CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn logits(model: &CausalLm, adapter: Option<&Adapter>) -> Tensor {
    let _detached = tch::no_grad_guard();
    let documents = Documents::pack(&[IDS], Device::Cpu).unwrap();
    model.logits(&model.hidden(&documents, adapter, &ForwardContext::default()).unwrap(), adapter).unwrap()
}

fn apart(one: &Tensor, other: &Tensor) -> f64 {
    (one - other).abs().max().double_value(&[])
}

/// Runs a job with these forms, and gives its folder and the names of its files.
fn ran(spec: TrainingSpec) -> (Folder, Vec<String>) {
    let folder = Folder::new(spec);
    let ran = folder.run();
    assert_eq!(ran.status, EXIT_OK, "{:?}", ran.last());
    let names = ran.events.iter().find_map(|event| match event {
        EngineEvent::Exported { files, .. } => Some(files.iter().map(|file| file.name.clone()).collect()),
        _ => None,
    });
    (folder, names.unwrap())
}

#[test]
fn every_form_of_an_adapter_computes_what_was_trained() {
    let (folder, names) = ran(TrainingSpec { export: ExportFormat::ALL.to_vec(), ..spec() });
    let out = folder.path().join("adapter");
    let base = load(&folder.path().join("base"));
    let expected = logits(&base, Some(&Adapter::load(&base, &out).unwrap()));
    let moved = apart(&expected, &logits(&base, None));

    let merged = tempfile::tempdir().unwrap();
    for name in names.iter().filter_map(|name| name.strip_prefix(MERGED_PREFIX)) {
        fs::copy(out.join(format!("{MERGED_PREFIX}{name}")), merged.path().join(name)).unwrap();
    }
    assert!(apart(&expected, &logits(&load(merged.path()), None)) < 1e-5);
    // Half precision and eight bits round; both are nearer to what was trained than the base model is.
    let half = apart(&expected, &logits(&load(&out.join("model-f16.gguf")), None));
    let eight = apart(&expected, &logits(&load(&out.join("model-q8_0.gguf")), None));
    assert!(half < 2e-3 && eight < 0.1 && eight < moved, "{half} {eight} {moved}");
    assert!(fs::read(out.join("adapter.gguf")).unwrap().starts_with(b"GGUF"));
    assert!(names.iter().any(|name| name == "adapter.gguf"), "{names:?}");
}

#[test]
fn a_model_trained_whole_is_written_for_llama_cpp_as_it_became() {
    let tuning = TuningSpec::Full { full: FullSpec { last_layers: None } };
    let (folder, _) = ran(TrainingSpec { tuning, export: vec![ExportFormat::GgufF16], ..spec() });
    let out = folder.path().join("adapter");
    let expected = logits(&load(&out), None);
    assert!(apart(&expected, &logits(&load(&out.join("model-f16.gguf")), None)) < 2e-3);
    assert!(apart(&expected, &logits(&load(&folder.path().join("base")), None)) > 2e-2);
}
