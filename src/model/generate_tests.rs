//! Settings of generation, on tiny models.

#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, path::Path};

use finetuned_torch::{Device, Kind};
use finetuned_weights::{ModelSource, TextTokenizer};

use crate::{
    Answer, CausalLm, GenerateOptions, Prompt, Sampling, StopStrings,
    family_tests::{CASES, logits, texts, tiny},
    generate, generate_each,
};

fn answer(model: &CausalLm, prompts: &[Prompt]) -> Vec<Answer> {
    generate_each(model, None, prompts, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn drawn(seed: u64) -> GenerateOptions {
    let sampling = Sampling::Sample { temperature: 1.2, top_p: 0.9, top_k: 100, min_p: 0.001, seed };
    GenerateOptions {
        sampling,
        repetition_penalty: 1.3,
        log_probabilities: Some(3),
        ..GenerateOptions::greedy(10, vec![])
    }
}

#[test]
fn a_seed_gives_the_same_tokens_whatever_is_answered_beside_them() {
    for case in CASES {
        let model = tiny(case);
        let (one, other, plain) = (drawn(1), drawn(2), GenerateOptions::greedy(6, vec![]));
        let texts = texts();
        let together: Vec<Prompt> = texts.iter().map(|ids| Prompt { ids, options: &one }).collect();
        let answers = answer(&model, &together);
        for (prompt, expected) in together.iter().zip(&answers) {
            // Alone, and as the second of a batch of others, one of which leaves it earlier.
            assert_eq!(answer(&model, &[*prompt])[0].ids, expected.ids, "{case}");
            let beside = [Prompt { ids: &[9, 8, 7], options: &plain }, *prompt, Prompt { options: &other, ..*prompt }];
            let found = answer(&model, &beside);
            assert_eq!(found[1].ids, expected.ids, "{case}");
            assert_ne!(found[2].ids, expected.ids, "{case}: another seed");
            assert_eq!((found[0].ids.len(), found[0].scores.len()), (6, 0), "{case}");
        }
    }
}

#[test]
fn log_probabilities_are_those_of_the_model_itself() {
    for case in CASES {
        let model = tiny(case);
        let texts = texts();
        let answers = generate(&model, None, &texts, &drawn(4), &mut |_| ControlFlow::Continue(())).unwrap();
        for (text, answer) in texts.iter().zip(answers) {
            assert_eq!(answer.scores.len(), 10, "{case}");
            for (step, (&id, scores)) in answer.ids.iter().zip(&answer.scores).enumerate() {
                let read = [text.as_slice(), &answer.ids[..step]].concat();
                let last = logits(&model, std::slice::from_ref(&read), None).select(0, read.len() as i64 - 1);
                let expected = last.log_softmax(-1, Kind::Double);
                let of = |id: u32| expected.double_value(&[i64::from(id)]);
                assert!((scores.log_probability - of(id)).abs() < 2e-5, "{case}");
                assert_eq!(scores.top.len(), 3);
                let (best, _) = expected.sort(-1, true);
                for (place, &(id, found)) in scores.top.iter().enumerate() {
                    assert!((found - of(id)).abs() < 2e-5, "{case}");
                    assert!((found - best.double_value(&[place as i64])).abs() < 2e-5, "{case}");
                }
            }
        }
    }
}

#[test]
fn a_penalty_keeps_greedy_answers_from_repeating() {
    let model = tiny("llama");
    let texts = texts();
    let options = GenerateOptions { repetition_penalty: 1e6, ..GenerateOptions::greedy(10, vec![]) };
    for (text, answer) in
        texts.iter().zip(generate(&model, None, &texts, &options, &mut |_| ControlFlow::Continue(())).unwrap())
    {
        let mut all = [text.as_slice(), &answer.ids].concat();
        all.drain(..text.len());
        assert!(answer.ids.iter().all(|id| !text.contains(id)));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
    }
}

fn chat() -> (CausalLm, TextTokenizer) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
    finetuned_torch::set_threads(1).unwrap();
    let source = ModelSource::open(&folder).unwrap();
    let model = CausalLm::load(&source, Device::Cpu, Kind::Float, &mut |_, _| ControlFlow::Continue(())).unwrap();
    (model, source.tokenizer().unwrap())
}

#[test]
fn a_stop_string_ends_an_answer_where_it_first_occurs_even_across_tokens() {
    let (model, tokenizer) = chat();
    let prompts = [tokenizer.encode("Say something").unwrap(), tokenizer.encode("and more").unwrap()];
    let free = GenerateOptions::greedy(24, vec![]);
    let whole = generate(&model, None, &prompts, &free, &mut |_| ControlFlow::Continue(())).unwrap();
    let text = tokenizer.decode(&whole[0].ids, true).unwrap();
    // Two characters from the middle: they may well lie in two tokens.
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let wanted: String = text[middle..].chars().take(2).collect();
    let first = text.find(&wanted).unwrap();
    let stop = StopStrings::new(vec!["not there".into(), wanted], tokenizer.clone()).unwrap();
    let options = GenerateOptions { stop: Some(stop.clone()), ..free };
    let stopped = generate(&model, None, &prompts, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(stopped[0].ended && stopped[0].ids.len() < 24);
    assert_eq!(whole[0].ids[..stopped[0].ids.len()], stopped[0].ids);
    assert_eq!(stop.cut(&stopped[0].ids).unwrap(), (text[..first].to_owned(), true));
    // One token less does not hold it.
    let before = &stopped[0].ids[..stopped[0].ids.len() - 1];
    assert!(!stop.cut(before).unwrap().1);
}

#[test]
fn what_cannot_be_met_is_refused_by_name() {
    let (_, tokenizer) = chat();
    for strings in [vec![], vec![String::new()], vec!["a".to_owned(); 5]] {
        assert!(StopStrings::new(strings, tokenizer.clone()).unwrap_err().to_string().contains("`stop`"));
    }
    let plain = GenerateOptions::greedy(1, vec![]);
    let refused = |options: GenerateOptions| options.check().unwrap_err().to_string();
    assert!(refused(GenerateOptions { log_probabilities: Some(21), ..plain.clone() }).contains("`top_logprobs`"));
    assert!(refused(GenerateOptions { repetition_penalty: -1.0, ..plain }).contains("`repetition_penalty`"));
}
