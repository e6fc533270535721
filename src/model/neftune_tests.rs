//! Noise on the embeddings through whole models: adding it is the same as embedding from a matrix that has it in its rows.
#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, path::Path};

use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::ModelSource;

use crate::{CausalLm, Documents, DropoutKeys, ForwardContext, neftune::noise};

fn model(name: &str) -> CausalLm {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name).join("base");
    let source = ModelSource::open(&folder).unwrap();
    CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

fn hidden(model: &CausalLm, documents: &Documents, context: &ForwardContext) -> Tensor {
    tch::no_grad(|| model.hidden(documents, None, context).unwrap())
}

#[test]
fn every_kind_of_embedding_gets_the_noise_once_and_after_its_scale() {
    // Gemma scales its embeddings, and transformers adds the noise to what its embedding module gives, which is scaled.
    for (name, embedding, is_scaled) in
        [("llama", "embed_tokens", false), ("gpt2", "wte", false), ("gemma2", "embed_tokens", true)]
    {
        let model = model(name);
        let width = i64::from(model.facts().hidden_size);
        // No token twice, so that each row of the matrix is one token's.
        let texts = [vec![7_u32, 9, 200, 41], vec![5, 3, 1]];
        let documents = Documents::pack(&texts, Device::Cpu).unwrap();
        let context = ForwardContext {
            dropout: Some(DropoutKeys { seed: 3, epoch: 1, lines: vec![4, 9] }),
            neftune_noise_alpha: 5.0,
            ..ForwardContext::default()
        };
        let noisy = hidden(&model, &documents, &context);
        let plain = hidden(&model, &documents, &ForwardContext::default());
        assert!((&noisy - &plain).abs().max().double_value(&[]) > 1e-3, "{name}: the noise has no effect");

        let mut added = noise(&documents, &documents, &context, width).unwrap().unwrap();
        if is_scaled {
            added /= (width as f64).sqrt();
        }
        let ids: Vec<i64> = texts.iter().flatten().map(|&id| i64::from(id)).collect();
        let (_, mut matrix) =
            model.parameters().into_iter().find(|(path, _)| path.ends_with(&format!("{embedding}.weight"))).unwrap();
        let _ = tch::no_grad(|| matrix.index_add_(0, &Tensor::from_slice(&ids), &added));
        let expected = hidden(&model, &documents, &ForwardContext::default());
        let far = (noisy - expected).abs().max().double_value(&[]);
        assert!(far < 2e-5, "{name}: {far}");
    }
}
