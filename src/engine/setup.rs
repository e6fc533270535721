//! Everything that a run needs, in the order in which it becomes known: checkpoint, threads, model, rows, adapter.

use finetuned_dataset::{Prepared, prepare};
use finetuned_model::{CausalLm, Optimizer, Precision, Trainable};
use finetuned_protocol::{
    engine::Phase,
    precision::BasePrecision,
    spec::{ModelFacts, TrainingSpec},
    tuning::TuningSpec,
};
use finetuned_torch::{Device, FrozenFormat, Kind};
use finetuned_weights::{ModelSource, TextTokenizer};

use crate::{
    checkpoint::{CheckpointState, Found, Origin},
    device::Machine,
    error::EngineError,
    job::JobFolder,
    plan::Plan,
    reference::Objective,
    resume,
    selection::Selection,
    tensors::Named,
    trainer::Trainer,
    watch::Watch,
};

/// What a run works with.
pub struct Setup {
    pub machine: Machine,
    pub facts: ModelFacts,
    pub model: CausalLm,
    pub tokenizer: TextTokenizer,
    /// Any of these ends an answer.
    pub eos_ids: Vec<u32>,
    pub prepared: Prepared,
    pub trainer: Trainer,
    pub objective: Objective,
    pub state: CheckpointState,
    /// Trained tensors that the choice of weights in the end is made from, in host memory.
    pub kept: Option<Vec<Named>>,
    /// Step of the newest whole checkpoint.
    pub saved_step: Option<u32>,
}

/// Reads and loads; nothing is computed yet.
///
/// # Errors
/// Whatever is wrong with the folder, the model, the rows or the checkpoint, or the reason to break off.
pub fn set_up(folder: &JobFolder, watch: &mut Watch) -> Result<Setup, EngineError> {
    let job = &folder.job;
    watch.tick(Phase::Loading, 0, 1)?;
    let origin = Origin::of(job).map_err(|source| EngineError::Json { path: folder.root.clone(), source })?;
    let found = resume::find(&folder.checkpoints(), &origin, watch.log)?;
    // Another thread count would give other bytes.
    let threads = found.as_ref().map_or(job.threads, |found| found.state.threads);
    let machine = Machine::take(job.device, threads, watch)?;
    if let Some(found) = &found {
        resume::warn_of_another_machine(found, &machine, watch.log)?;
    }
    let source = ModelSource::open(&folder.base())?;
    let tokenizer = source.tokenizer()?;
    let model = load_model(&source, (precision(machine.device, &job.spec), machine.device), watch)?;
    let prepared = prepare_rows(folder, &tokenizer, watch)?;
    let trainer = new_trainer((folder, &model), found.as_ref(), prepared.train.len(), watch)?;
    let objective = Objective::new(job.spec.objective, found.as_ref(), &prepared)?;
    Ok(Setup {
        facts: source.facts(),
        model,
        tokenizer,
        eos_ids: source.generation_eos_ids(),
        prepared,
        trainer,
        kept: found.as_ref().map(resume::kept).transpose()?.flatten(),
        objective,
        saved_step: found.as_ref().map(|found| found.step),
        state: found.map_or_else(|| fresh_state(folder, origin, &machine), |found| found.state),
        machine,
    })
}

/// f32 where the weights themselves are trained, since the small changes of a step vanish in bf16; else as
/// [`frozen_precision`].
pub fn precision(device: Device, spec: &TrainingSpec) -> Precision {
    match spec.tuning {
        TuningSpec::Full { .. } => Kind::Float.into(),
        TuningSpec::Adapter(_) => frozen_precision(device, spec.base_precision),
    }
}

/// How a model is loaded whose weights stay as they are. What is stored in fewer bits is computed with in
/// [`frozen_kind`].
pub fn frozen_precision(device: Device, base: BasePrecision) -> Precision {
    let compute = frozen_kind(device);
    let stored = |format| Precision { compute, frozen: Some(format) };
    match base {
        BasePrecision::Auto => compute.into(),
        BasePrecision::F32 => Kind::Float.into(),
        BasePrecision::Bf16 if compute == Kind::BFloat16 => compute.into(),
        BasePrecision::Bf16 => stored(FrozenFormat::Bf16),
        BasePrecision::Int8 => stored(FrozenFormat::Int8),
        BasePrecision::Nf4 => stored(FrozenFormat::Nf4),
    }
}

/// bf16 on CUDA; f32 on the CPU, where bf16 is emulated.
fn frozen_kind(device: Device) -> Kind {
    if device.is_cuda() { Kind::BFloat16 } else { Kind::Float }
}

/// # Errors
/// Files that cannot be loaded, or the reason to break off.
pub fn load_model(
    source: &ModelSource,
    (precision, device): (Precision, Device),
    watch: &mut Watch,
) -> Result<CausalLm, EngineError> {
    let loaded = CausalLm::load(source, device, precision, &mut |done, total| watch.flow(Phase::Loading, done, total));
    watch.settle(loaded)
}

/// # Errors
/// Rows that cannot be used, or the reason to break off.
pub fn prepare_rows(folder: &JobFolder, tokenizer: &TextTokenizer, watch: &mut Watch) -> Result<Prepared, EngineError> {
    watch.tick(Phase::Preparing, 0, 1)?;
    let valid = folder.valid_data();
    let prepared =
        prepare(&folder.job.spec.preparation, &folder.train_data(), valid.as_deref(), tokenizer, &mut |done, total| {
            watch.flow(Phase::Preparing, done, total)
        });
    watch.settle(prepared)
}

fn new_trainer(
    (folder, model): (&JobFolder, &CausalLm),
    found: Option<&Found>,
    rows: usize,
    watch: &mut Watch,
) -> Result<Trainer, EngineError> {
    let spec = &folder.job.spec;
    let trainable = match spec.continue_from {
        Some(_) => {
            Trainable::continued(model, &spec.tuning, &folder.initial_adapter()).map_err(EngineError::InitialAdapter)?
        }
        None => {
            let made = Trainable::new(model, &spec.tuning, u64::from(spec.seed), &mut |done, total| {
                watch.flow(Phase::Loading, done, total)
            });
            watch.settle(made)?
        }
    };
    let optimizer = Optimizer::new(trainable.named_parameters(), &spec.optimizer, u64::from(spec.seed))?;
    let mut optimizer = optimizer.with_rate_ratios(|name| trainable.learning_rate_ratio(name));
    if let Some(found) = found {
        resume::restore(found, &trainable, &mut optimizer)?;
    }
    let mut plan = Plan::new(spec, rows);
    if let Some(found) = found {
        // It may have been halved since the job began.
        plan.set_micro_batch_size(found.state.micro_batch_size);
    }
    Ok(Trainer::new(trainable, optimizer, plan, spec, model.device()))
}

fn fresh_state(folder: &JobFolder, origin: Origin, machine: &Machine) -> CheckpointState {
    CheckpointState {
        step: 0,
        updates: 0,
        skipped_in_a_row: 0,
        trained_tokens: 0,
        train_loss: None,
        train_mean_token_accuracy: None,
        history: Vec::new(),
        selection: Selection::new(&folder.job.spec),
        base_answers: None,
        threads: machine.threads,
        micro_batch_size: folder.job.spec.micro_batch_size,
        instruction_set: machine.instruction_set.to_owned(),
        device: machine.kind().to_owned(),
        origin,
    }
}
