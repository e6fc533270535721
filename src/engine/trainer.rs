//! One optimiser step: micro-batches, their gradients added up, clipping, AdamW.

use std::time::Instant;

use finetuned_dataset::Encoded;
use finetuned_model::{AdamW, Adapter, CausalLm, Trainable, clip_gradients, gradient_norm};
use finetuned_protocol::{engine::Phase, spec::TrainingSpec};
use finetuned_torch::{Device, peak_device_memory_bytes, peak_memory_bytes};

use crate::{
    compute::{pass, training_context},
    error::EngineError,
    plan::Plan,
    tensors::Named,
    watch::Watch,
};

/// What is in training, its optimiser, and the order of rows.
pub struct Trainer {
    trainable: Trainable,
    optimizer: AdamW,
    plan: Plan,
    seed: u32,
    max_grad_norm: f64,
    device: Device,
}

/// What a step came to.
pub struct StepFigures {
    /// Mean cross-entropy in nats over the supervised tokens of the whole batch.
    pub loss: f64,
    pub token_accuracy: f64,
    /// Before clipping.
    pub gradient_norm: f64,
    pub tokens: u64,
    pub supervised_tokens: u64,
    pub seconds: f64,
    pub peak_memory_bytes: u64,
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
}

/// An accumulation of micro-batches.
#[derive(Default)]
struct Accumulation {
    epoch: u32,
    /// Tokens with loss in the whole batch.
    supervised_tokens: usize,
    /// Sum over supervised tokens.
    loss: f64,
    correct_tokens: u64,
    tokens: u64,
}

impl Trainer {
    pub fn new(trainable: Trainable, optimizer: AdamW, plan: Plan, spec: &TrainingSpec, device: Device) -> Self {
        Self { trainable, optimizer, plan, seed: spec.seed, max_grad_norm: spec.optimizer.max_grad_norm, device }
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
        let lengths: Vec<usize> = lesson.rows.iter().map(|row| row.ids.len()).collect();
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
        let supervised_tokens = batches.iter().flatten().map(|&row| lesson.rows[row].supervised_tokens()).sum();
        let mut sums = Accumulation { epoch: self.plan.epoch(taken), supervised_tokens, ..Accumulation::default() };
        for (done, indices) in (before..).zip(&batches) {
            watch.tick(Phase::Training, done, total)?;
            match self.accumulate(lesson, indices, &mut sums) {
                Err(error) if error.is_out_of_memory() => return Ok(StepOutcome::TooLarge(error)),
                accumulated => accumulated?,
            }
        }
        let per_token = 1.0 / supervised_tokens.max(1) as f64;
        let loss = sums.loss * per_token;
        let parameters = self.weights();
        let gradient_norm = gradient_norm(&parameters)?;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Ok(StepOutcome::Skipped { tensor: self.name_non_finite(loss)? });
        }
        clip_gradients(&parameters, gradient_norm, self.max_grad_norm)?;
        self.optimizer.step(learning_rate)?;
        Ok(StepOutcome::Taken(StepFigures {
            loss,
            token_accuracy: sums.correct_tokens as f64 * per_token,
            gradient_norm,
            tokens: sums.tokens,
            supervised_tokens: supervised_tokens as u64,
            seconds: started.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_device_memory_bytes(self.device).unwrap_or_else(peak_memory_bytes),
        }))
    }

    /// Adds a micro-batch's share of the batch's gradient: its loss sum over the supervised tokens of the whole batch.
    fn accumulate(&self, lesson: Lesson, indices: &[usize], sums: &mut Accumulation) -> Result<(), EngineError> {
        let rows: Vec<&Encoded> = indices.iter().map(|&index| &lesson.rows[index]).collect();
        let context = training_context(self.seed, sums.epoch, &rows);
        let parts = pass(lesson.model, self.adapter(), &rows, &context)?;
        parts.loss_sum.f_div_scalar(sums.supervised_tokens.max(1) as f64)?.f_backward()?;
        sums.loss += parts.loss_sum.f_double_value(&[])?;
        sums.correct_tokens += parts.correct.f_int64_value(&[])? as u64;
        sums.tokens += rows.iter().map(|row| row.ids.len() as u64).sum::<u64>();
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
