//! Figures of SmolLM2-135M-Instruct read from its GGUF file: a real model, where a slip of a row or a scale shows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{ops::ControlFlow, path::Path};

use finetuned_torch::{Device, Kind, Tensor, tch};
use finetuned_weights::{ChatMessage, ModelSource, TextTokenizer};
use serde_json::Value;

use crate::{CausalLm, Documents, ForwardContext, GenerateOptions, IGNORED_LABEL, generate, supervised_loss};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn open() -> (CausalLm, TextTokenizer, Vec<u32>, Value) {
    finetuned_torch::set_threads(1).unwrap(); // the tests themselves run side by side
    let source = ModelSource::open(&repository().join(".runtime/models/smollm2-135m-instruct.gguf")).unwrap();
    let model = CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let figures = std::fs::read_to_string(repository().join("tests/fixtures/eval/smollm2.json")).unwrap();
    let eos_ids = source.generation_eos_ids();
    (model, source.tokenizer().unwrap(), eos_ids, serde_json::from_str(&figures).unwrap())
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn answers_logits_and_losses_equal_those_of_transformers() {
    let (model, tokenizer, eos_ids, figures) = open();
    greedy_answers(&model, &eos_ids, &figures);
    top_logits(&model, &figures);
    response_losses(&model, &tokenizer, &figures);
}

fn greedy_answers(model: &CausalLm, eos_ids: &[u32], figures: &Value) {
    let cases = figures["greedy"].as_array().unwrap();
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["prompt_ids"])).collect();
    let options = GenerateOptions::greedy(24, eos_ids.to_vec());
    let answers = generate(model, None, &prompts, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    for (case, answer) in cases.iter().zip(answers) {
        let mut expected = ids(&case["greedy_24"]);
        let ended = expected.last().is_some_and(|id| eos_ids.contains(id));
        expected.truncate(expected.len() - usize::from(ended));
        assert_eq!((answer.ids, answer.ended), (expected, ended), "{}", case["question"]);
    }
}

fn top_logits(model: &CausalLm, figures: &Value) {
    for case in figures["greedy"].as_array().unwrap() {
        let documents = Documents::pack(&[ids(&case["prompt_ids"])], Device::Cpu).unwrap();
        let last = Tensor::from_slice(&[documents.tokens() - 1]);
        let logits = tch::no_grad(|| {
            model
                .logits(&model.hidden_rows(&documents, &last, None, &ForwardContext::default()).unwrap(), None)
                .unwrap()
        });
        for (id, expected) in ids(&case["next_token_top5"]).iter().zip(case["top5_logits"].as_array().unwrap()) {
            let difference = (logits.double_value(&[0, i64::from(*id)]) - expected.as_f64().unwrap()).abs();
            assert!(difference < 2e-4, "{}: {difference}", case["question"]);
        }
    }
}

fn response_losses(model: &CausalLm, tokenizer: &TextTokenizer, figures: &Value) {
    for case in figures["response_loss"].as_array().unwrap() {
        let field = |name: &str| case["example"][name].as_str().unwrap().to_owned();
        let input = field("input");
        let separator = if input.is_empty() { "" } else { "\n" };
        let content = format!("{}{separator}{input}", field("instruction"));
        let turn = ChatMessage::new("user", content);
        let mut tokens = tokenizer.encode(&tokenizer.render_chat(&[turn], true).unwrap()).unwrap();
        let mut labels = vec![IGNORED_LABEL; tokens.len()];
        assert_eq!(tokens.len() as u64, case["prompt_tokens"].as_u64().unwrap());
        let answer = tokenizer.encode(&format!("{}<|im_end|>", field("output"))).unwrap();
        assert_eq!(answer.len() as u64, case["response_tokens"].as_u64().unwrap());
        labels.extend(answer.iter().map(|&id| i64::from(id)));
        tokens.extend(answer);
        let documents = Documents::pack(&[tokens], Device::Cpu).unwrap();
        let context = ForwardContext::default();
        let parts = tch::no_grad(|| supervised_loss(model, &documents, &labels, None, &context)).unwrap();
        let loss = parts.loss_sum.double_value(&[]) / parts.supervised as f64;
        let expected = case["mean_loss_over_response"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-4, "{loss} and not {expected}");
    }
}
