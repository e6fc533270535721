//! Every optimiser against PyTorch's and bitsandbytes' results in `tests/fixtures/optimizers`, which
//! `tests/python/optimizer_fixtures.py` wrote.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use finetuned_protocol::optimization::{
    AdafactorSpec, AdamWSpec, Algorithm, MomentType, MuonScale, MuonSpec, OptimizerSpec, SgdSpec,
};
use finetuned_torch::{Device, Kind, Tensor, tch};

use super::Optimizer;
use crate::tensor_file;

const SHAPES: [(&str, &[i64]); 4] = [
    ("layers.0.wide.weight", &[16, 24]),
    ("layers.0.tall.weight", &[24, 16]),
    ("layers.0.norm.weight", &[20]),
    ("embed_tokens.weight", &[12, 8]),
];
const LARGE: (&str, &[i64]) = ("layers.0.large.weight", &[64, 67]);
const STEPS: u32 = 6;
const RATE: f64 = 0.02;

/// As `numbers` in the script that made the fixtures.
fn numbers(shape: &[i64], seed: i64) -> Tensor {
    let number = |index: i64| {
        let spread = ((index * 7919 + seed * 104_729) % 2003) as f64 / 1001.5 - 1.0;
        (spread * [1.0, 0.1, 0.01, 0.001][(index + seed) as usize % 4]) as f32
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(number).collect();
    Tensor::from_slice(&values).reshape(shape)
}

fn parameters(shapes: &[(&str, &[i64])]) -> Vec<(String, Tensor)> {
    let numbered = shapes.iter().zip(1..);
    numbered.map(|((name, shape), seed)| ((*name).to_owned(), numbers(shape, seed).set_requires_grad(true))).collect()
}

fn clones(parameters: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Makes the gradient of `parameter` equal `gradient`.
fn set_gradient(parameter: &Tensor, gradient: &Tensor) {
    (parameter * gradient).sum(Kind::Float).backward();
}

fn take(optimizer: &mut Optimizer, parameters: &[(String, Tensor)], steps: std::ops::Range<u32>, rate: f64) {
    for step in steps {
        optimizer.zero_grad();
        for ((_, parameter), index) in parameters.iter().zip(0..) {
            set_gradient(parameter, &numbers(&parameter.size(), 100 * (i64::from(step) + 1) + index));
        }
        optimizer.step(rate * (1.0 - f64::from(step) / 10.0)).unwrap();
    }
}

fn adamw(epsilon: f64, moments: MomentType) -> AdamWSpec {
    AdamWSpec { betas: [0.9, 0.95], epsilon, moments }
}

fn muon(scale: MuonScale, momentum: f64, nesterov: bool, newton_schulz_steps: u32) -> Algorithm {
    let rest = adamw(1e-8, MomentType::F32);
    Algorithm::Muon(MuonSpec { momentum, nesterov, newton_schulz_steps, scale, rest })
}

fn sgd(momentum: f64, nesterov: bool) -> Algorithm {
    Algorithm::Sgd(SgdSpec { momentum, nesterov })
}

/// Fixture, optimiser, learning rate, weight decay.
fn cases() -> Vec<(&'static str, Algorithm, f64, f64)> {
    let adafactor =
        AdafactorSpec { beta2_decay: -0.8, epsilon: f32::EPSILON.into(), epsilon_scale: 1e-3, clipping_threshold: 1.0 };
    let other = AdafactorSpec { beta2_decay: -0.5, epsilon: 1e-2, epsilon_scale: 0.5, clipping_threshold: 2.0 };
    vec![
        ("adamw", Algorithm::Adamw(adamw(1e-6, MomentType::F32)), RATE, 0.1),
        ("adafactor", Algorithm::Adafactor(adafactor), RATE, 0.1),
        ("adafactor_other", Algorithm::Adafactor(other), 0.5, 0.0),
        ("sgd", sgd(0.0, false), RATE, 0.0),
        ("sgd_momentum", sgd(0.9, false), RATE, 0.1),
        ("sgd_nesterov", sgd(0.8, true), RATE, 0.1),
        ("muon", muon(MuonScale::MatchRmsAdamw, 0.95, true, 5), RATE, 0.1),
        ("muon_original", muon(MuonScale::Original, 0.8, false, 3), RATE, 0.1),
        ("adamw_8bit", Algorithm::Adamw(adamw(1e-6, MomentType::Blocks8Bit)), RATE, 0.1),
    ]
}

fn spec(algorithm: Algorithm, weight_decay: f64) -> OptimizerSpec {
    OptimizerSpec { learning_rate: RATE, weight_decay, max_grad_norm: 1.0, algorithm }
}

fn fixture(name: &str) -> BTreeMap<String, Tensor> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/optimizers");
    tensor_file::load(&folder.join(format!("{name}.safetensors"))).unwrap().into_iter().collect()
}

/// The largest difference over the largest magnitude.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!((found.size(), found.kind()), (expected.size(), expected.kind()));
    let [found, expected] = [found, expected].map(|tensor| tensor.detach().to_kind(Kind::Double));
    let most = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / most.max(1e-30)
}

fn shapes(name: &str) -> Vec<(&'static str, &'static [i64])> {
    let large = (name == "adamw_8bit").then_some(LARGE);
    SHAPES.into_iter().chain(large).collect()
}

/// What bitsandbytes calls a part of the state otherwise.
fn name_in(fixture: &str, name: &str) -> String {
    if fixture != "adamw_8bit" {
        return name.to_owned();
    }
    let renamed = [("exp_avg.absmax", "absmax1"), ("exp_avg_sq.absmax", "absmax2"), ("exp_avg_sq", "state2")];
    let renamed = renamed.into_iter().chain([("exp_avg", "state1")]);
    let of = |(ours, theirs): (&str, &str)| name.strip_suffix(ours).map(|parameter| format!("{parameter}{theirs}"));
    renamed.map(of).find_map(|name| name).unwrap_or_else(|| name.to_owned())
}

#[test]
fn every_optimiser_takes_the_steps_of_its_reference() {
    for (name, algorithm, rate, decay) in cases() {
        let expected = fixture(name);
        let parameters = parameters(&shapes(name));
        let mut optimizer = Optimizer::new(clones(&parameters), &spec(algorithm, decay), 7).unwrap();
        for (steps, last) in [(0..1, 1), (1..STEPS, STEPS)] {
            take(&mut optimizer, &parameters, steps, rate);
            for (parameter, tensor) in &parameters {
                let far = difference(tensor, &expected[&format!("after_{last}.{parameter}")]);
                assert!(far < 2e-6, "{name}: {parameter} after {last} steps: {far}");
            }
        }
        let state = optimizer.state();
        assert_eq!(state.len(), expected.keys().filter(|key| key.starts_with("state.")).count(), "{name}");
        for (part, tensor) in state {
            let expected = &expected[&format!("state.{}", name_in(name, &part))];
            match tensor.kind() {
                Kind::Uint8 => {
                    let (codes, expected) = (tensor.to_kind(Kind::Int), expected.flatten(0, -1).to_kind(Kind::Int));
                    assert_eq!((codes - expected).abs().max().int64_value(&[]), 0, "{name}: codes of {part}");
                }
                _ => assert!(difference(&tensor, expected) < 2e-6, "{name}: {part}"),
            }
        }
    }
}

#[test]
fn every_state_comes_back_from_its_file_and_goes_on_to_the_bit() {
    let bf16 = ("adamw", Algorithm::Adamw(adamw(1e-6, MomentType::Bf16)), RATE, 0.1);
    for (name, algorithm, rate, decay) in cases().into_iter().chain([bf16]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let new =
            |parameters: &[(String, Tensor)]| Optimizer::new(clones(parameters), &spec(algorithm, decay), 7).unwrap();
        let unbroken = parameters(&shapes("adamw_8bit"));
        let mut optimizer = new(&unbroken);
        take(&mut optimizer, &unbroken, 0..3, rate);
        tensor_file::save(&path, &optimizer.state()).unwrap();
        let copy =
            |(name, tensor): &(String, Tensor)| (name.clone(), tch::no_grad(|| tensor.copy()).set_requires_grad(true));
        let resumed: Vec<(String, Tensor)> = unbroken.iter().map(copy).collect();
        take(&mut optimizer, &unbroken, 3..STEPS, rate);

        let mut optimizer = new(&resumed);
        optimizer.load_state(3, tensor_file::load(&path).unwrap()).unwrap();
        take(&mut optimizer, &resumed, 3..STEPS, rate);
        for ((parameter, a), (_, b)) in unbroken.iter().zip(&resumed) {
            assert!(a.equal(b), "{name}: {parameter}");
        }
    }
}

#[test]
fn the_state_of_another_optimiser_is_refused_by_name() {
    let parameters = parameters(&SHAPES);
    let new = |algorithm| Optimizer::new(clones(&parameters), &spec(algorithm, 0.0), 7).unwrap();
    let of = |kind| new(Algorithm::Adamw(adamw(1e-8, kind)));
    let refused =
        |target: &mut Optimizer, source: &Optimizer| target.load_state(1, source.state()).unwrap_err().to_string();
    let mut f32 = of(MomentType::F32);
    assert!(refused(&mut f32, &of(MomentType::Bf16)).contains("`layers.0.norm.weight.exp_avg` has another type"));
    let text = refused(&mut f32, &new(sgd(0.9, false)));
    assert!(text.contains("`layers.0.norm.weight.exp_avg` is missing"), "{text}");
    assert!(text.contains("`layers.0.norm.weight.momentum_buffer` belongs to no parameter"), "{text}");
}

/// Bytes of an optimiser's state for each element of a parameter of 256 by 256.
fn state_bytes(algorithm: Algorithm) -> f64 {
    let parameter = Tensor::zeros([256, 256], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let optimizer = Optimizer::new(vec![("layers.0.weight".to_owned(), parameter)], &spec(algorithm, 0.0), 7).unwrap();
    let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
    optimizer.state().iter().map(|(_, tensor)| bytes(tensor)).sum::<usize>() as f64 / 65_536.0
}

#[test]
fn states_are_as_small_as_they_claim() {
    let of = |kind| state_bytes(Algorithm::Adamw(adamw(1e-8, kind)));
    assert_eq!((of(MomentType::F32), of(MomentType::Bf16)), (8.0, 4.0));
    assert_eq!(of(MomentType::Blocks8Bit), 2.0 + 2.0 * 4.0 / 256.0);
    assert_eq!(state_bytes(muon(MuonScale::Original, 0.9, true, 5)), 4.0);
    assert_eq!((state_bytes(sgd(0.9, false)), state_bytes(sgd(0.0, false))), (4.0, 0.0));
    let (_, adafactor, ..) = cases().swap_remove(1);
    assert_eq!(state_bytes(adafactor), 2.0 * 4.0 / 256.0);
}

/// After one large gradient and many small ones the second moment is known in closed form. Rounded to the nearest, it would
/// stay where it began: a step of a thousandth is below half of bf16's precision.
#[test]
fn moments_in_bf16_still_fall_when_gradients_do() {
    let (count, steps, betas) = (20_000_i64, 400, [0.9_f64, 0.999_f64]);
    let parameter = Tensor::zeros([count], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let algorithm = Algorithm::Adamw(AdamWSpec { betas, epsilon: 1e-8, moments: MomentType::Bf16 });
    let mut optimizer =
        Optimizer::new(vec![("w".to_owned(), parameter.shallow_clone())], &spec(algorithm, 0.0), 7).unwrap();
    let (mut mean, mut square) = (0.0, 0.0);
    for step in 0..steps {
        let gradient = if step == 0 { 30.0 } else { 0.5 };
        optimizer.zero_grad();
        set_gradient(&parameter, &parameter.detach().full_like(gradient));
        optimizer.step(1e-4).unwrap();
        mean = betas[0] * mean + (1.0 - betas[0]) * gradient;
        square = betas[1] * square + (1.0 - betas[1]) * gradient * gradient;
    }
    let state: BTreeMap<String, Tensor> = optimizer.state().into_iter().collect();
    let average = |name: &str| state[name].to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert_eq!(state["w.exp_avg_sq"].kind(), Kind::BFloat16);
    // A rounding's error is at most 2^-7 of the value, so its standard error over the elements is below 2^-7 / sqrt(n) a
    // step; the errors of the steps add up like a random walk.
    let allowed = 4.0 * 2.0_f64.powi(-7) * f64::from(steps).sqrt() / (count as f64).sqrt();
    assert!((average("w.exp_avg_sq") / square - 1.0).abs() < allowed, "{} is not {square}", average("w.exp_avg_sq"));
    assert!((average("w.exp_avg") / mean - 1.0).abs() < allowed, "{} is not {mean}", average("w.exp_avg"));
    assert!(square < 0.85 * 900.0 * (1.0 - betas[1]), "nothing fell: {square}");
}

#[test]
fn moments_in_bf16_stay_near_those_in_f32() {
    let of = |moments| {
        let parameters = parameters(&SHAPES);
        let algorithm = Algorithm::Adamw(adamw(1e-6, moments));
        let mut optimizer = Optimizer::new(clones(&parameters), &spec(algorithm, 0.1), 7).unwrap();
        take(&mut optimizer, &parameters, 0..STEPS, RATE);
        parameters
    };
    // Both moments are off by 2^-7 at most in each of the steps, and an update is at most about the learning rate.
    let allowed = f64::from(STEPS) * RATE * f64::from(STEPS) * 1.5 * 2.0_f64.powi(-7);
    for ((name, f32), (_, bf16)) in of(MomentType::F32).iter().zip(of(MomentType::Bf16)) {
        let far = (f32 - bf16).abs().max().double_value(&[]);
        assert!(far < allowed && far > 0.0, "{name}: {far}");
    }
}
