//! Stands beside a running engine: keeps it alive, holds it, stops it, kills it.

use std::{io, time::Duration};

use finetuned_protocol::engine::EngineCommand;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineExit, EngineLines};
use crate::{
    WorkerTimings,
    lease::{LeaseView, LeaseWatch, Standing},
    watchdog::Watchdog,
};

/// Why an engine was told to stop with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Pause,
    Shutdown,
}

/// How supervision ended; the engine is dead then, and its lines are read to the end.
#[derive(Debug)]
pub enum EngineEnd {
    /// It ended by itself, or as told; or it was killed because it did not stop in time when told to.
    Exited { exit: EngineExit, told: Option<Told> },
    /// The watchdog killed it after so long without a mark.
    Stuck { silence: Duration },
    /// Killed, because the task is not ours any more.
    LeaseLost,
    /// Killed, because its lines can no longer be reported.
    Abandoned,
    /// Killed, because its lines cannot be read or its process cannot be waited for.
    Broken(io::Error),
}

/// Everything that bears on a running engine.
pub struct Supervisor {
    pub engine: Engine,
    pub lines: EngineLines,
    pub watchdog: Watchdog,
    pub lease: LeaseWatch,
    /// The worker's own end.
    pub shutdown: CancellationToken,
    /// Cancelled by whoever reports the lines, when it cannot go on.
    pub trouble: CancellationToken,
    pub timings: WorkerTimings,
}

enum Happening {
    Exit(io::Result<EngineExit>),
    Lease(LeaseView),
    Shutdown,
    Trouble,
    Late,
    Look,
    Keepalive,
}

struct State {
    held: bool,
    told: Option<Told>,
    /// When an engine that was told to stop is killed.
    deadline: Option<Instant>,
    looked: Instant,
    look: Interval,
    keepalive: Interval,
}

impl Supervisor {
    /// Stays until the engine is dead.
    pub async fn run(mut self) -> EngineEnd {
        let mut state = State {
            held: false,
            told: None,
            deadline: None,
            looked: Instant::now(),
            look: every(self.timings.tail),
            keepalive: every(self.timings.keepalive),
        };
        // What was so before this began is no change to wait for.
        let mut happening = Happening::Lease(self.lease.view());
        loop {
            match self.respond(happening, &mut state).await {
                Some(end) => return self.conclude(end).await,
                None => happening = self.next(&mut state).await,
            }
        }
    }

    async fn next(&mut self, state: &mut State) -> Happening {
        let deadline = state.deadline;
        let late = async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            view = self.lease.changed() => Happening::Lease(view),
            () = self.trouble.cancelled() => Happening::Trouble,
            exit = self.engine.wait() => Happening::Exit(exit),
            () = late => Happening::Late,
            () = self.shutdown.cancelled(), if state.told != Some(Told::Shutdown) => Happening::Shutdown,
            _ = state.keepalive.tick() => Happening::Keepalive,
            _ = state.look.tick() => Happening::Look,
        }
    }

    async fn respond(&mut self, happening: Happening, state: &mut State) -> Option<EngineEnd> {
        match happening {
            Happening::Exit(Ok(exit)) => return Some(EngineEnd::Exited { exit, told: state.told }),
            Happening::Exit(Err(error)) => return Some(EngineEnd::Broken(error)),
            Happening::Lease(LeaseView { standing: Standing::Lost, .. }) => return Some(EngineEnd::LeaseLost),
            Happening::Lease(view) => self.follow(view, state).await,
            Happening::Shutdown => {
                state.deadline = Some(Instant::now() + self.timings.stop_grace);
                self.tell_to_stop(Told::Shutdown, state).await;
            }
            Happening::Trouble => return Some(EngineEnd::Abandoned),
            Happening::Late => {
                self.engine.kill();
                state.deadline = None;
            }
            Happening::Keepalive => self.engine.tell(EngineCommand::Keepalive).await,
            Happening::Look => return self.look(state),
        }
        None
    }

    async fn follow(&mut self, view: LeaseView, state: &mut State) {
        let hold = view.standing == Standing::Away;
        if hold != state.held {
            tracing::warn!(hold, "the database is away or back");
            self.engine.tell(if hold { EngineCommand::Hold } else { EngineCommand::Continue }).await;
            self.watchdog.forgive();
            state.held = hold;
        }
        if view.pause_requested && state.told.is_none() {
            self.tell_to_stop(Told::Pause, state).await;
        }
    }

    async fn tell_to_stop(&mut self, told: Told, state: &mut State) {
        tracing::info!(?told, "the engine is told to stop with a checkpoint");
        if state.told.is_none() {
            self.engine.tell(EngineCommand::StopWithCheckpoint).await;
        }
        state.told = Some(told);
    }

    fn look(&mut self, state: &mut State) -> Option<EngineEnd> {
        let marks = match self.lines.read() {
            Ok(marks) => marks,
            Err(error) => return Some(EngineEnd::Broken(error)),
        };
        for mark in marks {
            self.watchdog.mark(mark);
        }
        // A worker that was stopped itself saw one look's time pass, however long it was.
        let passed = state.looked.elapsed().min((self.timings.tail * 4).max(Duration::from_secs(1)));
        state.looked = Instant::now();
        if state.held {
            return None;
        }
        self.watchdog.pass(passed).map(|silence| EngineEnd::Stuck { silence })
    }

    async fn conclude(mut self, end: EngineEnd) -> EngineEnd {
        if !matches!(end, EngineEnd::Exited { .. }) {
            tracing::warn!(?end, "the engine is killed");
            self.engine.kill();
            if let Err(error) = self.engine.wait().await {
                tracing::error!(%error, "a killed engine could not be waited for");
            }
        }
        match (self.lines.read(), end) {
            (Err(error), EngineEnd::Exited { .. }) => EngineEnd::Broken(error),
            (_, end) => end,
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
