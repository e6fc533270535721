//! Reports an engine's lines as they come, in order, however long the database is away.

use std::{path::PathBuf, sync::Arc};

use finetuned_protocol::{
    engine::{EngineEvent, EngineLine},
    error::JobError,
    evaluation::{EvaluationReport, ParityCertificate},
    status::EventLevel,
};
use finetuned_store::{NewEvent, Report, StoredFile};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    translator::Translator,
    upload::{checkpoint_metrics, publish_checkpoint, store_adapter},
};
use crate::{attempt::Attempt, error::AttemptError};

/// A report of more than this is sent without waiting for its time.
const FULL_REPORT: usize = 500;

/// How an engine says that it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum LastWord {
    Finished { trained_tokens: u64, evaluation: Box<EvaluationReport> },
    AllAnswered,
    Stopped,
    Cancelled,
    Suspended(JobError),
    Failed(JobError),
}

/// What came out of an engine's lines.
#[derive(Debug, Default, PartialEq)]
pub struct Harvest {
    /// `None` where the engine died without one.
    pub last_word: Option<LastWord>,
    /// The adapter, stored but not published.
    pub exported: Option<(Vec<StoredFile>, ParityCertificate)>,
    /// Last step taken.
    pub step: u32,
}

/// Reads lines from the supervisor and writes them to the store.
pub struct Reporter {
    attempt: Arc<Attempt>,
    folder: PathBuf,
    translator: Translator,
    harvest: Harvest,
}

impl Reporter {
    pub fn new(attempt: Arc<Attempt>, folder: PathBuf) -> Self {
        Self { attempt, folder, translator: Translator::default(), harvest: Harvest::default() }
    }

    /// Until the lines end. Cancels `trouble` when it must give up before.
    ///
    /// # Errors
    /// The lease is lost, a file cannot be read or stored, or the store refuses.
    pub async fn run(
        self,
        lines: UnboundedReceiver<EngineLine>,
        trouble: CancellationToken,
    ) -> Result<Harvest, AttemptError> {
        // Also when this is dropped or panics: an engine that nobody listens to must not go on.
        let trouble = trouble.drop_guard();
        let harvest = self.read_all(lines).await?;
        trouble.disarm();
        Ok(harvest)
    }

    async fn read_all(mut self, mut lines: UnboundedReceiver<EngineLine>) -> Result<Harvest, AttemptError> {
        let period = self.attempt.options.timings.report;
        let mut due = Instant::now() + period;
        loop {
            match timeout_at(due, lines.recv()).await {
                Ok(Some(line)) => self.take(line).await?,
                Ok(None) => {
                    self.send().await?;
                    self.harvest.step = self.translator.step();
                    return Ok(self.harvest);
                }
                Err(_) => {}
            }
            if Instant::now() >= due || self.translator.waiting() > FULL_REPORT {
                self.send().await?;
                due = Instant::now() + period;
            }
        }
    }

    async fn take(&mut self, line: EngineLine) -> Result<(), AttemptError> {
        self.translator.read(&line);
        match line.event {
            EngineEvent::Started { .. } => self.send().await?,
            // Step 0 is the engine's rehearsal of a checkpoint: there is nothing yet that could be lost.
            EngineEvent::Checkpoint { step, .. } if step > 0 => self.publish(step, &line.event).await?,
            EngineEvent::Exported { files, parity } => {
                self.send().await?;
                let files = store_adapter(&self.attempt, &self.folder, &files).await?;
                self.harvest.exported = Some((files, parity));
            }
            event => {
                if let Some(word) = last_word(event) {
                    self.harvest.last_word = Some(word);
                }
            }
        }
        Ok(())
    }

    /// What led to the checkpoint is told first; that it was made, once it is stored.
    async fn publish(&mut self, step: u32, event: &EngineEvent) -> Result<(), AttemptError> {
        self.send().await?;
        publish_checkpoint(&self.attempt, &self.folder, step, checkpoint_metrics(event)).await?;
        let message = format!("Checkpoint created at step {step}");
        let once = Some(format!("checkpoint:{step}"));
        let event = NewEvent { once, ..NewEvent::message(EventLevel::Info, message) };
        self.write(&Report { events: vec![event], ..Report::default() }).await
    }

    async fn send(&mut self) -> Result<(), AttemptError> {
        match self.translator.take() {
            Some(report) => self.write(&report).await,
            None => Ok(()),
        }
    }

    async fn write(&self, report: &Report) -> Result<(), AttemptError> {
        let key = self.attempt.lease.key;
        self.attempt.persist("reporting", || self.attempt.store.report(&key, report)).await
    }
}

fn last_word(event: EngineEvent) -> Option<LastWord> {
    match event {
        EngineEvent::Finished { trained_tokens, evaluation } => Some(LastWord::Finished { trained_tokens, evaluation }),
        EngineEvent::AllAnswered { .. } => Some(LastWord::AllAnswered),
        EngineEvent::Stopped { .. } => Some(LastWord::Stopped),
        EngineEvent::Cancelled { .. } => Some(LastWord::Cancelled),
        EngineEvent::Suspended { step, error } => Some(LastWord::Suspended(error.after_step(step))),
        EngineEvent::Failed { step: Some(step), error } => Some(LastWord::Failed(error.after_step(step))),
        EngineEvent::Failed { step: None, error } => Some(LastWord::Failed(error)),
        _ => None,
    }
}
