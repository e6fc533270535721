//! Keeps a lease from a task of its own, in every phase, and says how it stands.

use std::{future::Future, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::WorkerTimings;

/// What one renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease is ours for another expiry.
    Held { pause_requested: bool },
    /// It is another's, or the job was cancelled.
    Lost,
    /// The database did not answer.
    Silent,
}

/// How the lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Held,
    /// No answer for one expiry by the monotonic clock: it may be another's by now, so nothing should go on.
    Away,
    /// Not ours any more: everything stops at once, and nothing is written.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseView {
    pub standing: Standing,
    /// The client asked for a pause.
    pub pause_requested: bool,
}

/// Renews a lease until it is dropped.
#[derive(Debug)]
pub struct LeaseKeeper {
    view: watch::Receiver<LeaseView>,
    task: JoinHandle<()>,
}

impl LeaseKeeper {
    /// `beat` renews once; it is called again every heartbeat, and sooner after silence or when `nudges` changes: then
    /// something may be asked of us.
    pub fn start<F, B>(beat: F, nudges: watch::Receiver<u64>, timings: WorkerTimings) -> Self
    where
        F: FnMut() -> B + Send + 'static,
        B: Future<Output = Beat> + Send + 'static,
    {
        let first = LeaseView { standing: Standing::Held, pause_requested: false };
        let (sender, view) = watch::channel(first);
        let keeping = Keeping {
            view: sender,
            answered: Instant::now(),
            expiry: timings.expiry,
            heartbeat: timings.heartbeat,
            nudges,
        };
        Self { view, task: tokio::spawn(keeping.keep(beat)) }
    }

    pub fn watch(&self) -> LeaseWatch {
        LeaseWatch { view: self.view.clone() }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A view on a kept lease.
#[derive(Debug, Clone)]
pub struct LeaseWatch {
    view: watch::Receiver<LeaseView>,
}

impl LeaseWatch {
    pub fn view(&self) -> LeaseView {
        *self.view.borrow()
    }

    /// The next change; pending for ever once the keeper is gone.
    pub async fn changed(&mut self) -> LeaseView {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.view.borrow_and_update()
    }

    /// Comes back once the lease is lost, and never otherwise.
    pub async fn lost(&self) {
        let mut view = self.view.clone();
        let lost = view.wait_for(|view| view.standing == Standing::Lost).await.is_ok();
        if !lost {
            std::future::pending::<()>().await;
        }
    }
}

struct Keeping {
    view: watch::Sender<LeaseView>,
    /// When the last call began that was answered: the database's expiry counts from no earlier.
    answered: Instant,
    expiry: Duration,
    heartbeat: Duration,
    nudges: watch::Receiver<u64>,
}

impl Keeping {
    async fn keep<F, B>(mut self, mut beat: F)
    where
        F: FnMut() -> B + Send + 'static,
        B: Future<Output = Beat> + Send + 'static,
    {
        loop {
            let began = Instant::now();
            let call = timeout(self.expiry, beat());
            let answer = patiently(self.answered + self.expiry, &self.view, call).await.unwrap_or(Beat::Silent);
            let pause = match answer {
                Beat::Held { pause_requested } => {
                    self.answered = began;
                    set(&self.view, Standing::Held, pause_requested);
                    self.heartbeat
                }
                Beat::Lost => {
                    set(&self.view, Standing::Lost, false);
                    return;
                }
                Beat::Silent => self.heartbeat / 4,
            };
            let rest = rest(&mut self.nudges, pause, self.heartbeat / 20);
            patiently(self.answered + self.expiry, &self.view, rest).await;
        }
    }
}

/// Waits for `pause`, or for a nudge, but never less than `least`, so that many nudges are not many beats.
async fn rest(nudges: &mut watch::Receiver<u64>, pause: Duration, least: Duration) {
    sleep(least).await;
    let nudged = async {
        if nudges.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = nudged => {}
        () = sleep(pause.saturating_sub(least)) => {}
    }
}

/// Waits for `work`; where the lease expires without an answer meanwhile, it is marked as away.
async fn patiently<T>(expires: Instant, view: &watch::Sender<LeaseView>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep_until(expires) => {}
    }
    let pause_requested = view.borrow().pause_requested;
    set(view, Standing::Away, pause_requested);
    work.await
}

fn set(view: &watch::Sender<LeaseView>, standing: Standing, pause_requested: bool) {
    let new = LeaseView { standing, pause_requested };
    view.send_if_modified(|view| {
        let modified = *view != new;
        *view = new;
        modified
    });
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex, PoisonError},
    };

    use super::*;

    const HELD: Beat = Beat::Held { pause_requested: false };

    fn timings() -> WorkerTimings {
        WorkerTimings::default().scaled(0.01)
    }

    /// Answers from a list, then never again. `None` is a call that hangs.
    fn keeper(answers: &[Option<Beat>], nudges: watch::Receiver<u64>) -> LeaseKeeper {
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>()));
        let beat = move || {
            let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        LeaseKeeper::start(beat, nudges, timings())
    }

    fn no_nudges() -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    fn view(standing: Standing) -> LeaseView {
        LeaseView { standing, pause_requested: false }
    }

    #[tokio::test]
    async fn silence_for_an_expiry_is_away_and_an_answer_brings_it_back() {
        let keeper = keeper(&[Some(HELD), None, Some(HELD)], no_nudges());
        let mut watch = keeper.watch();
        let start = Instant::now();
        assert_eq!(watch.changed().await, view(Standing::Away));
        let silence = start.elapsed();
        assert!(silence >= timings().expiry && silence < timings().expiry * 2, "{silence:?}");
        assert_eq!(watch.changed().await, view(Standing::Held));
    }

    #[tokio::test]
    async fn errors_are_silence_too() {
        let mut answers = vec![Some(HELD)];
        answers.extend([Some(Beat::Silent); 40]);
        answers.push(Some(Beat::Lost));
        let keeper = keeper(&answers, no_nudges());
        let mut watch = keeper.watch();
        assert_eq!(watch.changed().await.standing, Standing::Away);
        watch.lost().await;
        assert_eq!(watch.view().standing, Standing::Lost);
    }

    #[tokio::test]
    async fn a_short_silence_is_nothing() {
        let keeper = keeper(
            &[Some(HELD), Some(Beat::Silent), Some(HELD), Some(Beat::Held { pause_requested: true })],
            no_nudges(),
        );
        let mut watch = keeper.watch();
        let seen = watch.changed().await;
        assert_eq!(seen, LeaseView { standing: Standing::Held, pause_requested: true });
    }

    #[tokio::test]
    async fn a_nudge_is_a_beat_at_once() {
        let mut slow = timings();
        slow.heartbeat = Duration::from_secs(4);
        let (nudge, nudges) = watch::channel(0);
        let mut beats = 0;
        let beat = move || {
            beats += 1;
            let pause_requested = beats == 2;
            async move { Beat::Held { pause_requested } }
        };
        let keeper = LeaseKeeper::start(beat, nudges, slow);
        let start = Instant::now();
        nudge.send_replace(1);
        assert!(keeper.watch().changed().await.pause_requested);
        assert!(start.elapsed() < slow.heartbeat / 2, "{:?}", start.elapsed());
    }
}
