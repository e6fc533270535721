//! Questions of one evaluation: replies that are known, limits, patience, and the first trouble, which ends them all.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use finetuned_evaluation::judge::{PROMPT_VERSION, Question, Seen, Verdict, read_verdict};
use finetuned_outbound::ChatTurn;
use finetuned_protocol::judge::JudgeLimits;
use finetuned_store::{JudgeReply, fingerprint};
use tokio::time::timeout;

use super::asker::{Asker, NoReply};
use crate::{attempt::Attempt, error::AttemptError};

/// A question is asked so many times again where the judge is away.
const TIMES_AGAIN: usize = 5;

/// Why a question has no reply.
#[derive(Debug)]
pub enum Halt {
    /// The asking has ended; [`Session::trouble`] says why.
    Stopped,
    /// The attempt cannot go on.
    Attempt(AttemptError),
}

impl From<AttemptError> for Halt {
    fn from(error: AttemptError) -> Self {
        Self::Attempt(error)
    }
}

/// What was asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub cached: u64,
    pub tokens: u64,
}

pub struct Session<'a> {
    pub attempt: &'a Attempt,
    pub asker: Asker,
    limits: JudgeLimits,
    began: Instant,
    counts: Mutex<Counts>,
    trouble: OnceLock<String>,
}

impl<'a> Session<'a> {
    pub fn new(attempt: &'a Attempt, asker: Asker, limits: JudgeLimits) -> Self {
        let (counts, trouble) = (Mutex::default(), OnceLock::new());
        Self { attempt, asker, limits, began: Instant::now(), counts, trouble }
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the asking ended before its end.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.get().map(String::as_str)
    }

    /// The verdict on a question; `None` where the reply is none, nor the one that was asked to mend it.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn verdict<V: Verdict>(
        &self,
        question: &Question<'_>,
        row: Seen<'_>,
        (temperature, seed): (f64, u64),
    ) -> Result<Option<V>, Halt> {
        let turn = |role, content| ChatTurn { role, content };
        let mut turns = vec![turn("user", question.prompt(row))];
        let reply = self.reply(&turns, temperature, seed).await?;
        let why = match read_verdict(&reply) {
            Ok(verdict) => return Ok(Some(verdict)),
            Err(why) => why,
        };
        turns.extend([turn("assistant", reply), turn("user", question.mend(&why.to_string()))]);
        Ok(read_verdict(&self.reply(&turns, temperature, seed).await?).ok())
    }

    async fn reply(&self, turns: &[ChatTurn], temperature: f64, seed: u64) -> Result<String, Halt> {
        if self.trouble.get().is_some() {
            return Err(Halt::Stopped);
        }
        let key = self.key(turns, temperature, seed);
        let (attempt, tenant) = (self.attempt, self.attempt.lease.job.tenant);
        let known = attempt.persist("looking for a judge's reply", || attempt.store.judge_reply(tenant, &key)).await?;
        if let Some(known) = known {
            self.counts.lock().unwrap_or_else(PoisonError::into_inner).cached += 1;
            return Ok(known.text);
        }
        let reply = match self.ask(turns, temperature, seed).await {
            Ok(reply) => reply,
            Err(why) => {
                // Of several troubles at once the first is told.
                let _ = self.trouble.set(why);
                return Err(Halt::Stopped);
            }
        };
        let lease = attempt.lease.key;
        attempt.persist("keeping a judge's reply", || attempt.store.record_judge_reply(&lease, &key, &reply)).await?;
        Ok(reply.text)
    }

    /// What makes two questions the same.
    fn key(&self, turns: &[ChatTurn], temperature: f64, seed: u64) -> [u8; 32] {
        let head = format!("{PROMPT_VERSION} {} {temperature} {seed}", self.asker.identity());
        let mut parts = vec![head.as_bytes()];
        parts.extend(turns.iter().flat_map(|turn| [turn.role.as_bytes(), turn.content.as_bytes()]));
        fingerprint(&parts)
    }

    /// Asks within the limits, and again where the judge is away for a while.
    async fn ask(&self, turns: &[ChatTurn], temperature: f64, seed: u64) -> Result<JudgeReply, String> {
        let most = Duration::from_secs(u64::from(self.limits.max_seconds));
        let late = || format!("the limit of {} s was reached", self.limits.max_seconds);
        let left = most.checked_sub(self.began.elapsed()).ok_or_else(late)?;
        // A second and half a minute, where the worker's times are not scaled.
        let first_wait = self.attempt.options.timings.poll / 2;
        let longest_wait = first_wait * 30;
        let waits = ExponentialBuilder::default()
            .with_min_delay(first_wait)
            .with_max_delay(longest_wait)
            .with_max_times(TIMES_AGAIN)
            .with_jitter();
        let once = || async {
            self.count_call().map_err(|why| NoReply { why, passing: false, wait: None })?;
            self.asker.ask(turns, temperature, seed).await
        };
        let asking = once
            .retry(waits)
            .when(|no: &NoReply| no.passing && self.trouble.get().is_none())
            .adjust(|no: &NoReply, wait| {
                wait.map(|wait| no.wait.map_or(wait, |asked| asked.clamp(wait, longest_wait.max(wait))))
            })
            .notify(|no: &NoReply, wait| tracing::debug!(why = no.why, ?wait, "the judge is asked again"));
        let reply = timeout(left, asking).await.map_err(|_| late())?.map_err(|no| no.why)?;
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).tokens += reply.tokens;
        Ok(reply)
    }

    fn count_call(&self) -> Result<(), String> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.calls >= u64::from(self.limits.max_calls) {
            return Err(format!("the limit of {} calls was reached", self.limits.max_calls));
        }
        if counts.tokens >= self.limits.max_tokens {
            return Err(format!("the limit of {} tokens was reached", self.limits.max_tokens));
        }
        counts.calls += 1;
        Ok(())
    }
}
