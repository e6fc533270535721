//! How a worker runs: where its engine and its folders are, and every time it keeps.

use std::{path::PathBuf, time::Duration};

use finetuned_protocol::{engine::DeviceRequest, status::TaskKind};

use crate::{judge::JudgeOptions, serving::ServingOptions};

/// What a worker process is told.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The program `finetuned-engine`.
    pub engine_program: PathBuf,
    /// Folder for attempts; made where it does not exist. Several workers may share one.
    pub work_dir: PathBuf,
    /// Threads that the engine computes with on the CPU.
    pub threads: u32,
    pub device: DeviceRequest,
    /// Folder of `en_US.aff` and `en_US.dic`; without it no answer is found misspelled.
    pub dictionary: Option<PathBuf>,
    /// Folder of the text encoder; without it the metrics that need one are missing.
    pub encoder: Option<PathBuf>,
    /// Whom to ask for a judgement.
    pub judging: JudgeOptions,
    /// Kinds of task to claim; each kind has one slot, so that files are validated while a job trains.
    pub kinds: Vec<TaskKind>,
    pub timings: WorkerTimings,
    /// How requests to models are answered, where they are.
    pub serving: Option<ServingOptions>,
}

/// The times a worker keeps. Heartbeat, expiry and scan are taken from the store when the worker runs, so that the two
/// cannot disagree.
#[derive(Debug, Clone, Copy)]
pub struct WorkerTimings {
    /// Between two renewals of a lease.
    pub heartbeat: Duration,
    /// Without a renewal for so long, a lease may be taken back: the engine is held.
    pub expiry: Duration,
    /// Between two looks for expired leases.
    pub scan: Duration,
    /// Between two looks for work, where no wake-up came.
    pub poll: Duration,
    /// Between two reports of an engine's lines.
    pub report: Duration,
    /// Between two reads of an engine's lines.
    pub tail: Duration,
    /// Between two keepalives to an engine; it ends by itself after two expiries without one.
    pub keepalive: Duration,
    /// The watchdog never kills an engine that was silent for less.
    pub watchdog_least: Duration,
    /// An engine told to stop with a checkpoint has so long.
    pub stop_grace: Duration,
    /// A last word to the database at a shutdown has so long.
    pub release_grace: Duration,
}

impl Default for WorkerTimings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            expiry: Duration::from_secs(20),
            scan: Duration::from_secs(2),
            poll: Duration::from_secs(2),
            report: Duration::from_millis(500),
            tail: Duration::from_millis(100),
            keepalive: Duration::from_secs(5),
            watchdog_least: Duration::from_secs(60),
            stop_grace: Duration::from_secs(15),
            release_grace: Duration::from_secs(5),
        }
    }
}

impl WorkerTimings {
    /// How long an engine waits for a keepalive before it takes its worker for dead: two lease times.
    pub fn keepalive_timeout(&self) -> Duration {
        (self.expiry * 2).max(Duration::from_secs(1))
    }

    /// The same with the lease protocol's times of a store.
    pub fn with_lease(self, lease: finetuned_store::Timings) -> Self {
        Self { heartbeat: lease.heartbeat, expiry: lease.expiry, scan: lease.scan, ..self }
    }

    /// All times multiplied by `factor`, but for the graces at a shutdown; for tests.
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |time: Duration| time.mul_f64(factor);
        Self {
            heartbeat: scale(self.heartbeat),
            expiry: scale(self.expiry),
            scan: scale(self.scan),
            poll: scale(self.poll),
            report: scale(self.report),
            tail: scale(self.tail).max(Duration::from_millis(10)),
            keepalive: scale(self.keepalive),
            watchdog_least: scale(self.watchdog_least),
            stop_grace: self.stop_grace,
            release_grace: self.release_grace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_outlives_a_lost_connection_but_not_its_worker() {
        let timings = WorkerTimings::default();
        assert_eq!(timings.keepalive_timeout(), Duration::from_secs(40));
        assert!(timings.keepalive * 4 < timings.keepalive_timeout(), "a late keepalive must not end an engine");
        assert!(timings.heartbeat * 3 < timings.expiry, "two lost heartbeats must not lose a lease");
        assert_eq!(timings.scaled(0.1).expiry, Duration::from_secs(2));
    }
}
