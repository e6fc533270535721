//! One optimiser step: micro-batches, their gradients added up, clipping, the optimiser.

use std::time::Instant;

use finetuned_dataset::Encoded;
use finetuned_model::{Adapter, CausalLm, Optimizer, Trainable, clip_gradients, gradient_norm};
use finetuned_protocol::{engine::Phase, evaluation::PreferenceFigures, objective::DpoSpec, spec::TrainingSpec};
use finetuned_torch::{Device, peak_device_memory_bytes, peak_memory_bytes};

use crate::{
    compute::{TrainingPass, pass, weights_of},
    error::EngineError,
    plan::Plan,
    preference::{PairLoss, PairScore, PreferenceSum, ScoredPairs},
    tensors::Named,
    watch::Watch,
};

/// What is in training, its optimiser, and the order of rows.
pub struct Trainer {
    trainable: Trainable,
    optimizer: Optimizer,
    plan: Plan,
    pass: TrainingPass,
    max_grad_norm: f64,
    device: Device,
}

/// What a step came to.
pub struct StepFigures {
    /// Mean cross-entropy in nats over the supervised tokens of the whole batch, each by its weight; or mean loss of a pair.
    pub loss: f64,
    pub token_accuracy: f64,
    /// Before clipping.
    pub gradient_norm: f64,
    pub tokens: u64,
    pub supervised_tokens: u64,
    pub seconds: f64,
    pub peak_memory_bytes: u64,
    /// Of a preference job.
    pub preference: Option<PreferenceFigures>,
}

pub enum StepOutcome {
    Taken(StepFigures),
    /// The loss or a gradient was not finite: nothing was changed.
    Skipped {
        tensor: String,
    },
    /// A micro-batch did not fit into memory: nothing was changed.
    TooLarge(EngineError),
}

/// What a step learns from.
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    pub model: &'a CausalLm,
    pub rows: &'a [Encoded],
    pub aim: Aim<'a>,
}

/// What a step minimises.
#[derive(Clone, Copy)]
pub enum Aim<'a> {
    Supervised,
    /// What the reference gives, as many as rows.
    Dpo(DpoSpec, &'a [PairScore]),
}

impl Lesson<'_> {
    /// What the sum of losses is divided by: supervised tokens, or pairs.
    fn units(&self, rows: impl Iterator<Item = usize>) -> usize {
        match self.aim {
            Aim::Supervised => rows.map(|row| self.rows[row].supervised_tokens()).sum(),
            Aim::Dpo(..) => rows.count(),
        }
    }
}

/// An accumulation of micro-batches.
#[derive(Default)]
struct Accumulation {
    epoch: u32,
    /// Tokens with loss in the whole batch, or pairs.
    units: usize,
    /// Sum over those.
    loss: f64,
    supervised_tokens: u64,
    correct_tokens: u64,
    tokens: u64,
    preference: PreferenceSum,
}

impl Trainer {
    pub fn new(trainable: Trainable, optimizer: Optimizer, plan: Plan, spec: &TrainingSpec, device: Device) -> Self {
        Self {
            trainable,
            optimizer,
            plan,
            pass: TrainingPass::new(spec),
            max_grad_norm: spec.optimizer.max_grad_norm,
            device,
        }
    }

    pub fn trainable(&self) -> &Trainable {
        &self.trainable
    }

    /// The adapter to compute with; none where the model itself is trained.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.trainable.adapter()
    }

    /// Trained tensors by the names that they are exported under.
    pub fn weights(&self) -> Vec<Named> {
        self.trainable.named_parameters()
    }

    /// Moments of the optimiser by name.
    pub fn moments(&self) -> Vec<Named> {
        self.optimizer.state()
    }

    pub fn trainable_parameters(&self) -> u64 {
        self.trainable.trainable_parameters()
    }

    pub fn steps_per_epoch(&self) -> u32 {
        self.plan.steps_per_epoch()
    }

    /// Computes so many rows at once from here on.
    pub fn set_micro_batch_size(&mut self, rows: u32) {
        self.plan.set_micro_batch_size(rows);
    }

    /// The largest micro-batch forward and backward; its gradients are thrown away.
    ///
    /// # Errors
    /// The model's: most of all, too little memory.
    pub fn rehearse(&mut self, lesson: Lesson) -> Result<(), EngineError> {
        let lengths: Vec<usize> = lesson.rows.iter().map(Encoded::tokens).collect();
        let (epoch, indices) = self.plan.largest_micro_batch(&lengths);
        let outcome = match indices.is_empty() {
            true => Ok(()),
            false => self.accumulate(lesson, &indices, &mut Accumulation { epoch, ..Accumulation::default() }),
        };
        self.optimizer.zero_grad();
        outcome
    }

    /// The step after `taken` steps. Broken off, it leaves everything as after the last whole step.
    ///
    /// # Errors
    /// The model's, or the reason to break off.
    pub fn step(
        &mut self,
        lesson: Lesson,
        taken: u32,
        learning_rate: f64,
        watch: &mut Watch,
    ) -> Result<StepOutcome, EngineError> {
        let outcome = self.try_step(lesson, taken, learning_rate, watch);
        self.optimizer.zero_grad();
        outcome
    }

    fn try_step(
        &mut self,
        lesson: Lesson,
        taken: u32,
        learning_rate: f64,
        watch: &mut Watch,
    ) -> Result<StepOutcome, EngineError> {
        let started = Instant::now();
        let before = self.plan.micro_batches_before(taken);
        let total = self.plan.micro_batches_before(self.plan.total_steps);
        let batches = self.plan.micro_batches(taken);
        let units = lesson.units(batches.iter().flatten().copied());
        let mut sums = Accumulation { epoch: self.plan.epoch(taken), units, ..Accumulation::default() };
        for (done, indices) in (before..).zip(&batches) {
            watch.tick(Phase::Training, done, total)?;
            match self.accumulate(lesson, indices, &mut sums) {
                Err(error) if error.is_out_of_memory() => return Ok(StepOutcome::TooLarge(error)),
                accumulated => accumulated?,
            }
        }
        let loss = sums.loss * (1.0 / units.max(1) as f64);
        let parameters = self.weights();
        let gradient_norm = gradient_norm(&parameters)?;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Ok(StepOutcome::Skipped { tensor: self.name_non_finite(loss)? });
        }
        clip_gradients(&parameters, gradient_norm, self.max_grad_norm)?;
        self.optimizer.step(learning_rate)?;
        Ok(StepOutcome::Taken(StepFigures {
            loss,
            token_accuracy: sums.correct_tokens as f64 * (1.0 / sums.supervised_tokens.max(1) as f64),
            gradient_norm,
            tokens: sums.tokens,
            supervised_tokens: sums.supervised_tokens,
            seconds: started.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_device_memory_bytes(self.device).unwrap_or_else(peak_memory_bytes),
            preference: sums.preference.figures(),
        }))
    }

    /// Adds a micro-batch's share of the batch's gradient: its loss sum over the units of the whole batch.
    fn accumulate(&self, lesson: Lesson, indices: &[usize], sums: &mut Accumulation) -> Result<(), EngineError> {
        let rows: Vec<&Encoded> = indices.iter().map(|&index| &lesson.rows[index]).collect();
        let context = self.pass.context(sums.epoch, &rows);
        sums.tokens += rows.iter().map(|row| row.tokens() as u64).sum::<u64>();
        match lesson.aim {
            Aim::Supervised => {
                let parts = pass(lesson.model, self.adapter(), &rows, weights_of(&rows).as_deref(), &context)?;
                parts.loss_sum.f_div_scalar(sums.units.max(1) as f64)?.f_backward()?;
                sums.loss += parts.loss_sum.f_double_value(&[])?;
                sums.correct_tokens += parts.correct.f_int64_value(&[])? as u64;
                sums.supervised_tokens += parts.supervised as u64;
            }
            Aim::Dpo(spec, reference) => {
                let scored = ScoredPairs::of(lesson.model, self.adapter(), &rows, context)?;
                let pairs = scored.pairs().zip(indices);
                let losses: Vec<PairLoss> =
                    pairs.map(|(policy, &index)| PairLoss::of(&spec, policy, reference[index])).collect();
                scored.backward(&losses, 1.0 / sums.units.max(1) as f64)?;
                sums.loss += losses.iter().map(|pair| pair.loss).sum::<f64>();
                losses.iter().for_each(|pair| sums.preference.add(pair));
                let (correct, supervised) = scored.chosen_tokens();
                sums.correct_tokens += correct;
                sums.supervised_tokens += supervised;
            }
        }
        Ok(())
    }

    /// What is to blame for a step that is skipped.
    fn name_non_finite(&self, loss: f64) -> Result<String, EngineError> {
        if !loss.is_finite() {
            return Ok("the loss".to_owned());
        }
        let gradients: Vec<Named> = self
            .weights()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.grad()))
            .filter(|(_, g)| g.defined())
            .collect();
        let name = crate::tensors::first_non_finite(&gradients)?.unwrap_or("their norm");
        Ok(format!("the gradient of {name}"))
    }
}
