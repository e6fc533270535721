//! `finetuned-engine evaluate`: base and published model answer held-out prompts again, without any training.

use std::path::Path;

use finetuned_dataset::HeldOut;
use finetuned_model::{Adapter, CausalLm};
use finetuned_protocol::{
    engine::{Answerer, EngineEvent, Phase},
    tuning::TuningSpec,
};
use finetuned_weights::{ModelSource, TextTokenizer};

use crate::{
    answers::{KnownAnswers, Respondent, asked},
    control::Control,
    device::Machine,
    error::EngineError,
    events::EventLog,
    job::JobFolder,
    setup::{load_model, precision, prepare_rows},
    watch::Watch,
};

/// Asks both models what the folder's job says; what is known already is not asked again.
///
/// # Errors
/// Whatever is wrong with the folder, the models or the rows, or the reason to break off.
pub fn evaluate(folder: &Path, control: &Control, log: &mut EventLog) -> Result<(), EngineError> {
    let folder = JobFolder::open(folder)?;
    let mut watch = Watch::new(control, log);
    watch.tick(Phase::Loading, 0, 1)?;
    let machine = Machine::take(folder.job.device, folder.job.threads, &mut watch)?;
    let source = ModelSource::open(&folder.base())?;
    let tokenizer = source.tokenizer()?;
    let prepared = prepare_rows(&folder, &tokenizer, &mut watch)?;
    let rows = asked(&prepared.held_out, &folder.job.spec.answers);
    let known = KnownAnswers::of(&folder.root)?;
    let questions = Questions { folder: &folder, machine: &machine, tokenizer: &tokenizer, rows: &rows, known: &known };
    questions.ask(&source, &mut watch)?;
    Ok(watch.log.emit(EngineEvent::AllAnswered { rows: rows.len() as u64 })?)
}

struct Questions<'a> {
    folder: &'a JobFolder,
    machine: &'a Machine,
    tokenizer: &'a TextTokenizer,
    rows: &'a [&'a HeldOut],
    known: &'a KnownAnswers,
}

impl Questions<'_> {
    fn ask(&self, base: &ModelSource, watch: &mut Watch) -> Result<(), EngineError> {
        let tuned_is_known = self.known.to(Answerer::Tuned, self.rows).is_some();
        if tuned_is_known && self.known.to(Answerer::Base, self.rows).is_some() {
            return Ok(());
        }
        // Both are computed as in training, so that answers do not differ for another reason than the weights.
        let precision = precision(self.machine.device, &self.folder.job.spec);
        let load =
            |source: &ModelSource, watch: &mut Watch| load_model(source, (precision, self.machine.device), watch);
        let model = load(base, watch)?;
        self.ask_one((Answerer::Base, &model, None), base, watch)?;
        let exported = self.folder.exported();
        match self.folder.job.spec.tuning {
            TuningSpec::Adapter(_) => {
                let adapter = if tuned_is_known { None } else { Some(Adapter::load(&model, &exported)?) };
                self.ask_one((Answerer::Tuned, &model, adapter.as_ref()), base, watch)
            }
            TuningSpec::Full { .. } => {
                // Two models need not fit into memory.
                drop(model);
                let source = ModelSource::open(&exported)?;
                self.ask_one((Answerer::Tuned, &load(&source, watch)?, None), base, watch)
            }
        }
    }

    fn ask_one(
        &self,
        (who, model, adapter): (Answerer, &CausalLm, Option<&Adapter>),
        base: &ModelSource,
        watch: &mut Watch,
    ) -> Result<(), EngineError> {
        let eos_ids = base.generation_eos_ids();
        let respondent = Respondent { who, model, adapter, tokenizer: self.tokenizer, eos_ids: &eos_ids };
        respondent.ask(self.rows, self.folder.job.spec.answers.max_new_tokens, self.known, watch).map(drop)
    }
}
