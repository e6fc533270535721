//! Texts that come and go are computed as each would be alone, by the forward pass of training.

#![allow(clippy::unwrap_used)]

use finetuned_protocol::tuning::{AdapterSpec, Ia3Spec, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec};
use finetuned_torch::{Tensor, tch};

use super::*;
use crate::{
    family_tests::{CASES, largest_difference, logits, stirred, tiny},
    test_support::pseudo_random,
};

/// What is allowed between two orders of the same sums in f32, on logits of a few units.
const TOLERANCE: f64 = 1e-4;
const PREFIX_BYTES: i64 = 64 << 20;

fn ids(count: usize, salt: u32) -> Vec<u32> {
    (0..count as u32).map(|index| (index * 37 + salt * 11 + index * index) % 90 + 3).collect()
}

/// The texts under way as a plain list.
struct Shadow<'a> {
    model: &'a CausalLm,
    texts: Texts<'a>,
    rows: Vec<(Vec<u32>, Option<Rc<Adapter>>)>,
}

impl<'a> Shadow<'a> {
    fn new(model: &'a CausalLm) -> Self {
        Self { model, texts: Texts::new(model, PREFIX_BYTES), rows: Vec::new() }
    }

    /// Goes on with some token in each row and begins with `new`; checks every row's scores. Gives what was reused.
    fn step(&mut self, new: Vec<(Vec<u32>, Option<Rc<Adapter>>)>) -> Vec<usize> {
        let mut new = new;
        for row in (0..self.rows.len()).rev() {
            if self.texts.outgrows(row) {
                self.texts.remove(row).unwrap();
                new.push(self.rows.swap_remove(row));
                new.last_mut().unwrap().0.push(5);
            }
        }
        let next: Vec<u32> = (0..self.rows.len() as u32).map(|row| 7 + row * 3).collect();
        for ((ids, _), &id) in self.rows.iter_mut().zip(&next) {
            ids.push(id);
        }
        let most_tokens = 80;
        let asked =
            new.iter().map(|(ids, adapter)| NewText { ids: ids.clone(), adapter: adapter.clone(), most_tokens });
        let step = self.texts.step(&next, asked.collect()).unwrap();
        self.rows.extend(new);
        for (row, (ids, adapter)) in self.rows.iter().enumerate() {
            let alone = logits(self.model, std::slice::from_ref(ids), adapter.as_deref());
            let alone = alone.select(0, ids.len() as i64 - 1);
            let difference = largest_difference(&step.logits.select(0, row as i64), &alone);
            assert!(difference < TOLERANCE, "row {row} of {} tokens: {difference}", ids.len());
        }
        step.reused
    }

    fn remove(&mut self, row: usize) {
        self.texts.remove(row).unwrap();
        self.rows.swap_remove(row);
    }
}

fn other(model: &CausalLm, spec: &AdapterSpec, seed: u64) -> Rc<Adapter> {
    let adapter = Adapter::new(model, spec, seed).unwrap();
    for (index, (_, mut tensor)) in adapter.named_parameters().into_iter().enumerate() {
        let noise: Tensor = pseudo_random(&tensor.size(), seed + index as u64) * 0.1;
        let _ = tch::no_grad(|| tensor.g_add_(&noise));
    }
    Rc::new(adapter)
}

#[test]
fn every_family_computes_texts_side_by_side_as_alone() {
    for case in CASES {
        let model = tiny(case);
        let one = Some(Rc::new(stirred(&model)));
        let target = model.linear_modules()[0].name().to_owned();
        let two = Some(other(&model, &AdapterSpec::Lora(LoraSpec::plain(2, 3.0, vec![target])), 9));
        let mut shadow = Shadow::new(&model);
        assert_eq!(shadow.step(vec![(ids(5, 1), None)]), [0], "{case}");
        shadow.step(vec![(ids(3, 2), one.clone()), (ids(24, 3), two.clone())]);
        shadow.step(vec![]);
        // The first leaves; the last takes its place.
        shadow.remove(0);
        shadow.step(vec![(ids(9, 4), one.clone())]);
        shadow.step(vec![]);
        for _ in 0..3 {
            shadow.remove(0);
        }
        assert!(shadow.texts.is_empty());
        shadow.step(vec![(ids(4, 5), two.clone())]);
    }
}

#[test]
fn what_was_read_is_not_read_again_and_only_for_the_same_adapter() {
    let model = tiny("mistral-window");
    let (one, two) = (Some(Rc::new(stirred(&model))), Some(Rc::new(stirred(&model))));
    let mut shadow = Shadow::new(&model);
    let long = ids(30, 1);
    shadow.step(vec![(long.clone(), one.clone())]);
    // While it is under way, another that begins alike; the whole of it again; and with another adapter.
    let longer = [long.as_slice(), &[4, 8, 15, 16]].concat();
    let reused =
        shadow.step(vec![(longer.clone(), one.clone()), (long.clone(), one.clone()), (long.clone(), two.clone())]);
    assert_eq!(reused, [30, 29, 0]);
    while !shadow.rows.is_empty() {
        shadow.remove(0);
    }
    // Kept after they left.
    let mut asked = longer.clone();
    asked.extend([99, 98]);
    let text = NewText { ids: asked.clone(), adapter: one.clone(), most_tokens: 60 };
    assert_eq!(shadow.texts.known_tokens(&text), 34);
    assert_eq!(shadow.step(vec![(asked.clone(), one.clone()), (asked.clone(), None)]), [34, 0]);
    while !shadow.rows.is_empty() {
        shadow.remove(0);
    }
    shadow.texts.forget(one.as_ref().unwrap());
    assert_eq!(shadow.step(vec![(asked, one)]), [0]);
}

#[test]
fn adapters_of_all_kinds_share_a_pass() {
    let model = tiny("llama");
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let lora = |spec: LoraSpec| AdapterSpec::Lora(spec);
    let plain = LoraSpec::plain(3, 5.0, names(&["q_proj", "down_proj"]));
    let specs = [
        lora(plain.clone()),
        lora(LoraSpec { use_dora: true, ..plain.clone() }),
        lora(LoraSpec { modules_to_save: names(&["lm_head"]), ..plain.clone() }),
        lora(LoraSpec { trainable_token_indices: vec![7, 10, 13], ..plain }),
        AdapterSpec::Ia3(Ia3Spec {
            target_modules: names(&["k_proj", "down_proj"]),
            feedforward_modules: names(&["down_proj"]),
        }),
        AdapterSpec::PromptTuning(PromptTuningSpec { num_virtual_tokens: 3, init: PromptInit::Random }),
        AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 4 }),
    ];
    let adapters: Vec<_> = specs.iter().zip(20..).map(|(spec, seed)| other(&model, spec, seed * 31)).collect();
    let mut shadow = Shadow::new(&model);
    let all = adapters.iter().enumerate().map(|(index, adapter)| (ids(4 + index, 2), Some(Rc::clone(adapter))));
    shadow.step(all.chain([(ids(6, 1), None)]).collect());
    shadow.step(vec![]);
    shadow.step(vec![(ids(20, 7), Some(Rc::clone(&adapters[5])))]);
    shadow.remove(1);
    shadow.step(vec![]);
}

#[test]
fn memory_bounds_how_many_texts_there_are() {
    let model = tiny("llama");
    let mut texts = Texts::new(&model, 0);
    let tokens = (SLOT_BYTES / texts.cache.token_bytes()) as usize;
    let whole = NewText { ids: vec![5; 20], adapter: None, most_tokens: tokens };
    assert!(texts.has_room_for(&NewText { most_tokens: tokens * 2, ..whole.clone() }, &[]), "the first one always has");
    texts.step(&[], vec![NewText { most_tokens: 40, ..whole.clone() }]).unwrap();
    assert!(texts.has_room_for(&NewText { most_tokens: tokens / 2, ..whole.clone() }, &[]));
    assert!(!texts.has_room_for(&whole, &[]));
    texts.remove(0).unwrap();
    assert_eq!(texts.known_tokens(&whole), 0, "nothing is kept where nothing may be");
}
