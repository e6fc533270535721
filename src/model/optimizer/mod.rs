//! Optimisers whose state can be saved: AdamW, Adafactor, gradient descent with momentum, and Muon.
//!
//! Each is, step for step, what PyTorch's of the same name computes; the tests hold them to it. A parameter carries the
//! rule by which it moves together with that rule's state, so that none can meet the state of another.

mod adafactor;
mod adamw;
mod blocks;
mod clip;
mod moment;
mod muon;
mod rounding;
mod sgd;

#[cfg(test)]
mod optimizer_tests;

use std::collections::HashMap;

use finetuned_protocol::optimization::{Algorithm, OptimizerSpec};
use finetuned_torch::{Tensor, tch};

use crate::{error::ModelError, random::Key};

pub use clip::{clip_gradients, gradient_norm};

use adafactor::Adafactor;
use adamw::AdamW;
use muon::Muon;
use sgd::Sgd;

/// Changes parameters by their gradients.
#[derive(Debug)]
pub struct Optimizer {
    weight_decay: f64,
    /// Of the rounding of moments that are kept in bf16.
    key: Key,
    steps: u32,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    /// Its learning rate over that of the step.
    rate_ratio: f64,
    rule: Rule,
}

/// How a parameter moves, with what that needs to remember.
#[derive(Debug)]
enum Rule {
    AdamW(AdamW),
    Adafactor(Adafactor),
    Sgd(Sgd),
    Muon(Muon),
}

/// What a rule needs to know of a step.
struct Step<'a> {
    gradient: &'a Tensor,
    learning_rate: f64,
    weight_decay: f64,
    /// Steps with this one.
    count: u32,
    /// Of this parameter in this step.
    key: Key,
}

impl Rule {
    fn new(name: &str, parameter: &Tensor, algorithm: &Algorithm) -> Result<Self, ModelError> {
        Ok(match algorithm {
            Algorithm::Adamw(spec) => Self::AdamW(AdamW::new(parameter, *spec)?),
            Algorithm::Adafactor(spec) => Self::Adafactor(Adafactor::new(parameter, *spec)?),
            Algorithm::Sgd(spec) => Self::Sgd(Sgd::new(parameter, *spec)?),
            Algorithm::Muon(spec) if muon::is_matrix_of_a_layer(name, parameter) => {
                Self::Muon(Muon::new(parameter, *spec)?)
            }
            Algorithm::Muon(spec) => Self::AdamW(AdamW::new(parameter, spec.rest)?),
        })
    }

    fn step(&mut self, parameter: &mut Tensor, step: &Step) -> Result<(), ModelError> {
        match self {
            Self::AdamW(rule) => rule.step(parameter, step),
            Self::Adafactor(rule) => rule.step(parameter, step),
            Self::Sgd(rule) => rule.step(parameter, step),
            Self::Muon(rule) => rule.step(parameter, step),
        }
    }

    /// Its tensors by the names PyTorch gives them.
    fn state(&self) -> Vec<(String, &Tensor)> {
        match self {
            Self::AdamW(rule) => rule.state(),
            Self::Adafactor(rule) => rule.state(),
            Self::Sgd(rule) => rule.state(),
            Self::Muon(rule) => rule.state(),
        }
    }
}

impl Optimizer {
    /// An optimiser of named parameters. What is random in it is drawn from the seed, the name and the step.
    ///
    /// # Errors
    /// Too little memory for its state.
    pub fn new(parameters: Vec<(String, Tensor)>, spec: &OptimizerSpec, seed: u64) -> Result<Self, ModelError> {
        let _detached = tch::no_grad_guard();
        let slots = parameters.into_iter().map(|(name, parameter)| {
            let rule = Rule::new(&name, &parameter, &spec.algorithm)?;
            Ok(Slot { rule, name, parameter, rate_ratio: 1.0 })
        });
        Ok(Self {
            weight_decay: spec.weight_decay,
            key: Key::new(seed).with_name("optimizer"),
            steps: 0,
            slots: slots.collect::<Result<_, ModelError>>()?,
        })
    }

    /// Lets parameters learn faster or slower than the rest: `ratio` gives each one's factor of the learning rate, by
    /// which its weight decay goes too.
    #[must_use]
    pub fn with_rate_ratios(mut self, ratio: impl Fn(&str) -> f64) -> Self {
        for slot in &mut self.slots {
            slot.rate_ratio = ratio(&slot.name);
        }
        self
    }

    /// Steps taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Changes every parameter that has a gradient.
    ///
    /// # Errors
    /// Too little memory.
    pub fn step(&mut self, learning_rate: f64) -> Result<(), ModelError> {
        let _detached = tch::no_grad_guard();
        self.steps += 1;
        for slot in &mut self.slots {
            let gradient = slot.parameter.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let step = Step {
                gradient: &gradient,
                learning_rate: learning_rate * slot.rate_ratio,
                weight_decay: self.weight_decay,
                count: self.steps,
                key: self.key.with_name(&slot.name).with(self.steps.into()),
            };
            slot.rule.step(&mut slot.parameter, &step)?;
        }
        Ok(())
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        for slot in &mut self.slots {
            slot.parameter.zero_grad();
        }
    }

    /// All that it remembers, named `PARAMETER.exp_avg` and the like; the tensors are the optimiser's own.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let of_slot = |slot: &Slot| {
            let state = slot.rule.state().into_iter();
            let named = state.map(|(part, tensor)| (format!("{}.{part}", slot.name), tensor.shallow_clone()));
            named.collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(of_slot).collect()
    }

    /// Takes up where [`Self::state`] was taken, after `steps` steps.
    ///
    /// # Errors
    /// A state of other parameters or of another optimiser; all that is missing or misshapen is listed.
    pub fn load_state(&mut self, steps: u32, state: Vec<(String, Tensor)>) -> Result<(), ModelError> {
        let _detached = tch::no_grad_guard();
        let mut state: HashMap<String, Tensor> = state.into_iter().collect();
        let mut problems = Vec::new();
        for (name, mut kept) in self.state() {
            match state.remove(&name) {
                Some(tensor) if tensor.size() != kept.size() => {
                    problems.push(format!("the optimiser's `{name}` has another shape"));
                }
                Some(tensor) if tensor.f_kind()? != kept.f_kind()? => {
                    problems.push(format!("the optimiser's `{name}` has another type"));
                }
                Some(tensor) => kept.f_copy_(&tensor)?,
                None => problems.push(format!("the optimiser's `{name}` is missing")),
            }
        }
        problems.extend(state.keys().map(|name| format!("the optimiser's `{name}` belongs to no parameter")));
        if !problems.is_empty() {
            problems.sort_unstable();
            return Err(ModelError::Adapter { problems });
        }
        self.steps = steps;
        Ok(())
    }
}
