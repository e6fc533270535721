//! A run from its first evaluation to its last line: which phase comes when, and what is kept between them.

use finetuned_evaluation::LikelihoodSum;
use finetuned_model::tensor_file::to_bytes;
use finetuned_protocol::{
    engine::{Answerer, EngineEvent, Phase},
    evaluation::{EvaluationReport, ExportedWeights, Likelihood, LikelihoodAtStep, Scores},
};

use crate::{
    answers::{KnownAnswers, Respondent, asked, compare},
    checkpoint,
    checkpoint::{ADAPTER, KEPT, OPTIMIZER, REFERENCE, STATE, SavedAnswer},
    error::EngineError,
    export,
    job::JobFolder,
    likelihood, preference,
    preference::{Judge, PairScore},
    reference::Objective,
    schedule::learning_rate,
    selection,
    setup::Setup,
    tensors::first_non_finite,
    trainer::{Aim, Lesson, StepFigures, StepOutcome},
    verify,
    watch::Watch,
};

/// So many steps in a row may be skipped before the job fails.
const SKIPPED_IN_A_ROW: u32 = 3;
/// So many times the micro-batch is halved where memory runs out.
const MOST_HALVINGS: u32 = 3;

/// Everything of a run.
pub struct Session<'a> {
    folder: &'a JobFolder,
    setup: Setup,
    watch: Watch<'a>,
    /// The last whole step, for whoever reports the end.
    step: &'a mut Option<u32>,
}

impl<'a> Session<'a> {
    pub fn new(folder: &'a JobFolder, setup: Setup, watch: Watch<'a>, step: &'a mut Option<u32>) -> Self {
        *step = Some(setup.state.step);
        Self { folder, setup, watch, step }
    }

    /// All phases after loading. What a resumed state has done already is left out.
    ///
    /// # Errors
    /// Whatever ends the run early.
    pub fn go(&mut self) -> Result<(), EngineError> {
        self.tell_start()?;
        self.rehearse()?;
        self.ask_reference()?;
        self.evaluate_where_due()?;
        self.checkpoint_where_due()?;
        self.answer_base()?;
        while !self.is_over() {
            self.train_step()?;
            self.evaluate_where_due()?;
            self.checkpoint_where_due()?;
        }
        self.finish()
    }

    fn total_steps(&self) -> u32 {
        self.folder.job.spec.total_steps
    }

    /// Whether no step is left to take.
    fn is_over(&self) -> bool {
        self.setup.state.step >= self.total_steps() || self.setup.state.selection.is_stopped()
    }

    fn tell_start(&mut self) -> Result<(), EngineError> {
        let setup = &self.setup;
        let event = EngineEvent::Started {
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: finetuned_torch::describe(setup.machine.device),
            threads: setup.machine.threads,
            instruction_set: setup.machine.instruction_set.to_owned(),
            parameters: setup.facts.parameters,
            trainable_parameters: setup.trainer.trainable_parameters(),
            train_rows: setup.prepared.train.len() as u64,
            held_out_rows: setup.prepared.held_out.len() as u64,
            total_steps: self.total_steps(),
            resumed_from_step: setup.state.step,
        };
        Ok(self.watch.log.emit(event)?)
    }

    /// The largest micro-batch forward and backward: what does not fit shows in minute one.
    fn rehearse(&mut self) -> Result<(), EngineError> {
        if self.is_over() {
            return Ok(());
        }
        self.watch.tick(Phase::Rehearsal, 0, 1)?;
        loop {
            let Setup { trainer, prepared, model, objective, .. } = &mut self.setup;
            // The reference is asked later: what it gives changes no size.
            let nothing = vec![PairScore::default(); prepared.train.len()];
            let aim = match objective {
                Objective::Supervised => Aim::Supervised,
                Objective::Dpo(spec, _) => Aim::Dpo(*spec, &nothing),
            };
            match trainer.rehearse(Lesson { model, rows: &prepared.train, aim }) {
                Err(error) if error.is_out_of_memory() => self.halve_micro_batch(error)?,
                rehearsed => break rehearsed?,
            }
        }
        self.watch.tick(Phase::Rehearsal, 1, 1)
    }

    /// Half as many rows at once, and their gradients added up twice as often, which gives the same sums but for rounding.
    ///
    /// # Errors
    /// `error`, where that was done often enough or there is nothing to halve.
    fn halve_micro_batch(&mut self, error: EngineError) -> Result<(), EngineError> {
        let now = self.setup.state.micro_batch_size.max(1);
        let halvings = (self.folder.job.spec.micro_batch_size / now).max(1).ilog2();
        if now == 1 || halvings >= MOST_HALVINGS {
            return Err(error);
        }
        let half = now / 2;
        self.setup.trainer.set_micro_batch_size(half);
        self.setup.state.micro_batch_size = half;
        let message = format!(
            "memory ran out with {now} rows computed at once: from here on it is {half}, and the gradients of twice as \
             many parts are added up; results stay the same but for rounding ({error})"
        );
        Ok(self.watch.log.warn("out_of_memory", message)?)
    }

    /// The reference is what training starts from: the base model, or a tuned one that is gone on from.
    fn ask_reference(&mut self) -> Result<(), EngineError> {
        let (spec, rows) = (&self.folder.job.spec, self.setup.state.micro_batch_size as usize);
        let Setup { trainer, prepared, model, objective, .. } = &mut self.setup;
        let adapter = if spec.continue_from.is_some() { trainer.adapter() } else { None };
        objective.ask_reference((model, adapter), prepared, rows, &mut self.watch)
    }

    fn is_due(&self, every: u32) -> bool {
        let step = self.setup.state.step;
        step.is_multiple_of(every.max(1)) || self.is_over()
    }

    /// Scores the held-out rows where this step asks for it and has not been scored.
    fn evaluate_where_due(&mut self) -> Result<(), EngineError> {
        let step = self.setup.state.step;
        if !self.is_due(self.folder.job.spec.evaluate_every) || self.evaluation_at(step).is_some() {
            return Ok(());
        }
        let likelihood = loop {
            match self.score_held_out() {
                Err(error) if error.is_out_of_memory() => self.halve_micro_batch(error)?,
                scored => break scored?,
            }
        };
        self.watch.log.emit(EngineEvent::Evaluated { step, likelihood: likelihood.clone() })?;
        let scores = self.score_answers()?;
        selection::note_evaluation(&mut self.setup, &self.folder.job.spec, (&likelihood, &scores))?;
        self.setup.state.history.push(LikelihoodAtStep { step, likelihood });
        Ok(())
    }

    /// Means of the answers that are given during training; empty where the job asks for none.
    fn score_answers(&mut self) -> Result<Scores, EngineError> {
        let spec = &self.folder.job.spec.evaluation;
        let Some(asked_for) = &spec.during_training else { return Ok(Scores::new()) };
        let step = self.setup.state.step;
        let rows = asked(&self.setup.prepared.held_out, asked_for);
        let who = if step == 0 { Answerer::Base } else { Answerer::Tuned };
        let metrics = spec.text_metrics();
        let respondent = Respondent::of(&self.setup, who);
        let scores = respondent.score(&rows, (&metrics, asked_for.max_new_tokens), &mut self.watch)?;
        self.watch.log.emit(EngineEvent::TextScored { step, rows: rows.len() as u64, scores: scores.clone() })?;
        Ok(scores)
    }

    fn score_held_out(&mut self) -> Result<Likelihood, EngineError> {
        let Setup { model, trainer, prepared, objective, tokenizer, .. } = &self.setup;
        let rows: Vec<_> = prepared.held_out.iter().map(|row| &row.encoded).collect();
        let size = self.setup.state.micro_batch_size as usize;
        // Not every adapter starts without effect, and step 0 stands for the base model.
        let step = self.setup.state.step;
        let adapter = if step == 0 { None } else { trainer.adapter() };
        let likelihood = match objective {
            Objective::Dpo(spec, Some(reference)) => {
                let judge = Judge { spec: *spec, reference: &reference.held_out, size };
                preference::evaluate(model, adapter, &rows, &judge, &mut self.watch)?
            }
            _ => likelihood::score(model, adapter, &rows, (size, tokenizer), &mut self.watch)?.finish(),
        };
        if !likelihood.loss.is_finite() || !likelihood.perplexity.is_finite() {
            let tensor = "the loss of the held-out rows".to_owned();
            return Err(EngineError::NonFinite { step, in_a_row: 1, tensor });
        }
        Ok(likelihood)
    }

    fn evaluation_at(&self, step: u32) -> Option<&Likelihood> {
        let history = &self.setup.state.history;
        history.iter().rev().find(|at| at.step == step).map(|at| &at.likelihood)
    }

    fn checkpoint_where_due(&mut self) -> Result<(), EngineError> {
        let spec = &self.folder.job.spec;
        if !self.is_due(spec.checkpoint_every) {
            return Ok(());
        }
        selection::note_checkpoint(&mut self.setup, spec)?;
        self.checkpoint_unless_there()
    }

    /// Saves the last whole step, unless this run or the one before it has.
    ///
    /// # Errors
    /// The disk's, or a tensor that is not finite: such a checkpoint is never written.
    pub fn checkpoint_unless_there(&mut self) -> Result<(), EngineError> {
        let step = self.setup.state.step;
        if self.setup.saved_step == Some(step) {
            return Ok(());
        }
        let weights = self.setup.trainer.trainable().named_state();
        let moments = self.setup.trainer.moments();
        let kept = self.setup.kept.as_deref();
        for tensors in [weights.as_slice(), moments.as_slice(), kept.unwrap_or_default()] {
            if let Some(tensor) = first_non_finite(tensors)? {
                return Err(EngineError::NonFinite { step, in_a_row: 1, tensor: tensor.to_owned() });
            }
        }
        let state = serde_json::to_vec_pretty(&self.setup.state)
            .map_err(|error| EngineError::Internal(format!("while saving the state: {error}")))?;
        let (weights, moments, kept) = (to_bytes(&weights)?, to_bytes(&moments)?, kept.map(to_bytes).transpose()?);
        let reference = match self.setup.objective.reference() {
            Some(reference) => Some(to_bytes(&reference.tensors()?)?),
            None => None,
        };
        let mut files: Vec<(&str, &[u8])> = vec![(ADAPTER, &weights), (OPTIMIZER, &moments), (STATE, &state)];
        files.extend(kept.iter().map(|bytes| (KEPT, bytes.as_slice())));
        files.extend(reference.iter().map(|bytes| (REFERENCE, bytes.as_slice())));
        let bytes = checkpoint::write(&self.folder.checkpoints(), step, &files)?;
        self.setup.saved_step = Some(step);
        let event = EngineEvent::Checkpoint {
            step,
            bytes,
            train_loss: self.setup.state.train_loss,
            train_mean_token_accuracy: self.setup.state.train_mean_token_accuracy,
            evaluation: self.evaluation_at(step).cloned(),
        };
        Ok(self.watch.log.emit(event)?)
    }

    /// The base model's answers, unless a checkpoint brought them.
    fn answer_base(&mut self) -> Result<(), EngineError> {
        if self.setup.state.base_answers.is_none() {
            self.setup.state.base_answers = Some(self.ask(Answerer::Base)?);
        }
        Ok(())
    }

    fn ask(&mut self, who: Answerer) -> Result<Vec<SavedAnswer>, EngineError> {
        let spec = &self.folder.job.spec.answers;
        let rows = asked(&self.setup.prepared.held_out, spec);
        let known = KnownAnswers::of(&self.folder.root)?;
        Respondent::of(&self.setup, who).ask(&rows, spec.max_new_tokens, &known, &mut self.watch)
    }

    fn train_step(&mut self) -> Result<(), EngineError> {
        let spec = &self.folder.job.spec;
        let taken = self.setup.state.step;
        let rate = learning_rate(&spec.schedule, spec.optimizer.learning_rate, taken, spec.total_steps);
        let outcome = loop {
            let Setup { trainer, prepared, model, objective, .. } = &mut self.setup;
            let aim = match objective {
                Objective::Supervised => Aim::Supervised,
                Objective::Dpo(spec, reference) => {
                    let unasked = || EngineError::Internal("the reference was not asked".to_owned());
                    Aim::Dpo(*spec, &reference.as_ref().ok_or_else(unasked)?.train)
                }
            };
            match trainer.step(Lesson { model, rows: &prepared.train, aim }, taken, rate, &mut self.watch)? {
                StepOutcome::TooLarge(error) => self.halve_micro_batch(error)?,
                StepOutcome::Taken(figures) => break Ok(figures),
                StepOutcome::Skipped { tensor } => break Err(tensor),
            }
        };
        let state = &mut self.setup.state;
        state.step = taken + 1;
        *self.step = Some(state.step);
        match outcome {
            Ok(figures) => self.note_step(&figures, rate),
            Err(tensor) => self.note_skip(tensor),
        }
    }

    fn note_step(&mut self, figures: &StepFigures, learning_rate: f64) -> Result<(), EngineError> {
        let state = &mut self.setup.state;
        state.updates += 1;
        state.skipped_in_a_row = 0;
        state.trained_tokens += figures.tokens;
        state.train_loss = Some(figures.loss);
        state.train_mean_token_accuracy = Some(figures.token_accuracy);
        let event = EngineEvent::Step {
            step: state.step,
            epoch: f64::from(state.step) / f64::from(self.setup.trainer.steps_per_epoch()),
            train_loss: figures.loss,
            train_mean_token_accuracy: figures.token_accuracy,
            learning_rate,
            gradient_norm: figures.gradient_norm,
            tokens: figures.tokens,
            supervised_tokens: figures.supervised_tokens,
            seconds: figures.seconds,
            peak_memory_bytes: figures.peak_memory_bytes,
            preference: figures.preference,
        };
        Ok(self.watch.log.emit(event)?)
    }

    fn note_skip(&mut self, tensor: String) -> Result<(), EngineError> {
        let state = &mut self.setup.state;
        state.skipped_in_a_row += 1;
        let (step, in_a_row) = (state.step, state.skipped_in_a_row);
        if in_a_row >= SKIPPED_IN_A_ROW {
            return Err(EngineError::NonFinite { step, in_a_row, tensor });
        }
        let message = format!("step {step} was skipped: {tensor} is not finite");
        Ok(self.watch.log.warn("non_finite_step", message)?)
    }

    /// Puts in place the weights that are to come out, and tells how good they are.
    fn choose_weights(&mut self) -> Result<(ExportedWeights, Likelihood), EngineError> {
        let weights = selection::settle(&self.setup, &self.folder.job.spec)?;
        let known = |step| self.evaluation_at(step).cloned().unwrap_or_else(|| LikelihoodSum::default().finish());
        let likelihood = match &weights {
            ExportedWeights::Last { step } => return Ok((weights.clone(), known(*step))),
            ExportedWeights::Best { step, .. } => known(*step),
            ExportedWeights::Mean { .. } => self.score_held_out()?,
        };
        let event = EngineEvent::WeightsChosen { weights: weights.clone(), likelihood: likelihood.clone() };
        self.watch.log.emit(event)?;
        Ok((weights, likelihood))
    }

    /// Choice of the weights, tuned answers, export, verification, report.
    fn finish(&mut self) -> Result<(), EngineError> {
        let (weights, likelihood) = self.choose_weights()?;
        let tuned = self.ask(Answerer::Tuned)?;
        let answers = compare(&self.setup, tuned, &self.folder.job.spec)?;
        let files = export::export(self.folder, &self.setup, &likelihood, &mut self.watch)?;
        let parity = verify::verify(self.folder, &self.setup, &mut self.watch)?;
        self.watch.log.emit(EngineEvent::Exported { files, parity })?;
        let state = &self.setup.state;
        let base = self.evaluation_at(0).cloned().unwrap_or_else(|| LikelihoodSum::default().finish());
        let evaluation = Box::new(EvaluationReport {
            held_out_source: self.setup.prepared.held_out_source,
            held_out_rows: self.setup.prepared.held_out.len() as u64,
            base,
            tuned: likelihood,
            exported_weights: Some(weights),
            history: state.history.clone(),
            answers,
        });
        let trained_tokens = state.trained_tokens;
        Ok(self.watch.log.emit(EngineEvent::Finished { trained_tokens, evaluation })?)
    }
}
