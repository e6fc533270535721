//! What is done to a running service.

use std::time::{Duration, Instant};

use anyhow::Result;
use finetuned_tests::postgres::{Postgres, send};

use crate::{link::Line, stage::Stage};

/// The same numbers for the same seed (SplitMix64, Steele, Lea & Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillEngine,
    /// Stopped for less than the watchdog allows.
    StopEngine,
    KillWorker,
    /// Stopped past its lease, then continued: what it writes late must be refused.
    StopWorker,
    KillServer,
    StopServer,
    /// Every connection of Postgres is ended at once.
    EndBackends,
    /// Postgres is told to restart; its clients are cut off.
    RestartPostgres,
    KillPostgres,
    /// One worker's connections are cut and new ones refused, for longer than its lease.
    CutLine,
    /// One worker's line swallows everything and says nothing.
    HalfOpenLine,
    SlowLine,
    /// A bit of the newest checkpoint flips in the blob store, and the worker dies.
    FlipBit,
    /// The newest checkpoint's file is cut short, and the worker dies.
    Truncate,
}

impl Fault {
    pub const ALL: [Self; 14] = [
        Self::KillWorker,
        Self::KillEngine,
        Self::CutLine,
        Self::StopWorker,
        Self::RestartPostgres,
        Self::FlipBit,
        Self::KillServer,
        Self::HalfOpenLine,
        Self::EndBackends,
        Self::StopEngine,
        Self::Truncate,
        Self::KillPostgres,
        Self::SlowLine,
        Self::StopServer,
    ];

    /// Does it, and undoes what can be undone.
    pub async fn strike(self, stage: &mut Stage, job: &str, random: &mut Random) -> Result<()> {
        let past_lease = stage.expiry.mul_f64(1.5);
        match self {
            Self::KillEngine => each_engine(stage, libc::SIGKILL),
            Self::StopEngine => {
                each_engine(stage, libc::SIGSTOP)?;
                tokio::time::sleep(stage.expiry).await;
                each_engine(stage, libc::SIGCONT)
            }
            Self::KillWorker => stage.kill_claimant(job).await,
            Self::StopWorker => {
                let pid = stage.claimant(job)?.pid() as i32;
                send(pid, libc::SIGSTOP)?;
                tokio::time::sleep(past_lease + stage.expiry.mul_f64(random.below(10) as f64 / 10.0)).await;
                send(pid, libc::SIGCONT)
            }
            Self::KillServer => stage.kill_server().await,
            Self::StopServer => {
                stage.service.server.signal(libc::SIGSTOP)?;
                tokio::time::sleep(past_lease).await;
                stage.service.server.signal(libc::SIGCONT)
            }
            Self::EndBackends => {
                for backend in Postgres::of(&stage.service)?.backends() {
                    // One that has ended meanwhile is no error.
                    let _ = send(backend, libc::SIGTERM);
                }
                Ok(())
            }
            Self::RestartPostgres => send(Postgres::of(&stage.service)?.postmaster, libc::SIGINT),
            Self::KillPostgres => Postgres::of(&stage.service)?.signal_all(libc::SIGKILL),
            Self::CutLine => stage.disturb_line(Line::Cut, past_lease).await,
            Self::HalfOpenLine => stage.disturb_line(Line::HalfOpen, past_lease).await,
            Self::SlowLine => stage.disturb_line(Line::Slow(Duration::from_millis(30)), past_lease).await,
            Self::FlipBit => {
                stage.damage_newest_checkpoint(job, |bytes| {
                    let place = bytes.len() / 2;
                    bytes[place] ^= 1;
                })?;
                stage.kill_claimant(job).await
            }
            Self::Truncate => {
                stage.damage_newest_checkpoint(job, |bytes| bytes.truncate(bytes.len() / 2))?;
                stage.kill_claimant(job).await
            }
        }
    }
}

fn each_engine(stage: &Stage, signal: i32) -> Result<()> {
    let start = Instant::now();
    // Between two attempts there is none for a moment.
    while stage.service.engines()?.is_empty() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    for engine in stage.service.engines()? {
        let _ = send(engine as i32, signal);
    }
    Ok(())
}
