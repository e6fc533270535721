#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::*;

/// A distribution as transformers' logits processors make it; `tests/python/sampling_fixture.py` wrote them.
#[derive(Deserialize)]
struct Case {
    settings: Settings,
    logits: Vec<f32>,
    seen: Vec<u32>,
    probabilities: BTreeMap<usize, f64>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    temperature: f64,
    top_k: u32,
    top_p: f64,
    min_p: f64,
    repetition_penalty: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: NO_PENALTY }
    }
}

impl Settings {
    fn sampling(&self, seed: u64) -> Sampling {
        let Self { temperature, top_k, top_p, min_p, .. } = *self;
        Sampling::Sample { temperature, top_p, top_k, min_p, seed }
    }
}

#[test]
fn distributions_are_those_of_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sampling.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 15);
    for Case { settings, mut logits, seen, probabilities } in cases {
        let sampling = settings.sampling(0);
        penalise(&mut logits, seen.into_iter(), settings.repetition_penalty);
        let scores: Vec<f32> = logits.iter().map(|logit| logit / settings.temperature as f32).collect();
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let threshold = sampling.threshold(&scores, most);
        let kept: Vec<usize> = (0..scores.len()).filter(|&id| scores[id] >= threshold).collect();
        assert_eq!(kept, probabilities.keys().copied().collect::<Vec<_>>(), "{settings:?}");
        // Draws just within a token's share of [0, 1) give that token.
        let mut passed = 0.0;
        for (&id, &probability) in probabilities.iter() {
            if probability > 1e-5 {
                for draw in [passed + 2e-6, passed + probability / 2.0, passed + probability - 2e-6] {
                    assert_eq!(sampling.choose(&mut logits.clone(), draw) as usize, id, "{settings:?}");
                }
            }
            passed += probability;
        }
        assert!((passed - 1.0).abs() < 1e-6, "{settings:?}: {passed}");
    }
}

#[test]
fn the_likeliest_is_the_first_of_the_highest() {
    assert_eq!(Sampling::Greedy.choose(&mut [0.5, 2.0, -1.0, 2.0], 0.9), 1);
}

#[test]
fn a_token_beyond_the_first_part_of_a_wide_nucleus_is_reached() {
    // 5000 tokens alike hold half of a nucleus of one half each; the last kept one is the 2500th.
    let mut logits = vec![0.0; 5000];
    for (id, logit) in logits.iter_mut().enumerate() {
        *logit = -(id as f32) * 1e-4;
    }
    let weight = |id: usize| (-(id as f64) * 1e-4).exp();
    let total: f64 = (0..5000).map(weight).sum();
    let kept = (0..5000)
        .scan(0.0, |sum, id| Some(std::mem::replace(sum, *sum + weight(id))))
        .take_while(|before| *before < 0.5 * total);
    let expected = kept.count() - 1;
    let sampling = Sampling::Sample { temperature: 1.0, top_p: 0.5, top_k: 0, min_p: 0.0, seed: 0 };
    assert_eq!(sampling.choose(&mut logits, 1.0 - 1e-12) as usize, expected);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let fine = Settings::default();
    let named = |settings: Settings| settings.sampling(0).check().unwrap_err().to_string();
    assert!(named(Settings { temperature: 0.0, ..Settings::default() }).contains("`temperature`"));
    assert!(named(Settings { temperature: f64::NAN, ..Settings::default() }).contains("`temperature`"));
    assert!(named(Settings { top_p: 1.5, ..Settings::default() }).contains("`top_p`"));
    assert!(named(Settings { top_p: 0.0, ..Settings::default() }).contains("`top_p`"));
    assert!(named(Settings { min_p: -0.1, ..Settings::default() }).contains("`min_p`"));
    assert!(check_penalty(0.0).unwrap_err().to_string().contains("`repetition_penalty`"));
    assert!(fine.sampling(0).check().is_ok() && Sampling::Greedy.check().is_ok() && check_penalty(1.2).is_ok());
}
