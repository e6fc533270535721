//! News of the jobs that somebody follows, read from Postgres once a process and fanned out in memory.
//!
//! A pass asks for the last event numbers of all followed jobs in one query, and reads the events of those that moved. It
//! runs when something was notified and, because notifications may be lost, at least every two seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Once, PoisonError, Weak},
    time::Duration,
};

use finetuned_protocol::ids::{JobId, TenantId};
use finetuned_store::{Event, EventHead, Store, StoreError};
use tokio::{
    sync::{Notify, broadcast},
    time::sleep,
};

/// Between two passes where nothing was notified.
const POLL: Duration = Duration::from_secs(2);
/// Between two passes at least, so that many notifications are not many queries.
const REST: Duration = Duration::from_millis(50);
/// Passes that a reader may be behind before it is dropped.
const BEHIND: usize = 64;
/// Events read at once.
pub const PAGE: u32 = 500;

/// What a pass found of a job.
#[derive(Debug, Clone)]
pub struct News {
    /// The newest of its events; a reader that is behind reads the rest itself.
    pub events: Arc<Vec<Event>>,
    /// The number of its last event.
    pub head: u64,
    /// Nothing will come after `head`.
    pub ended: bool,
}

#[derive(Debug)]
struct Followed {
    tenant: TenantId,
    /// Number of the last event that was passed on; `None` before the first pass.
    passed: Option<u64>,
    readers: broadcast::Sender<News>,
}

/// The jobs that are followed in this process.
#[derive(Debug)]
pub struct Hub {
    store: Store,
    followed: Mutex<HashMap<JobId, Followed>>,
    joined: Notify,
    started: Once,
}

impl Hub {
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store, followed: Mutex::default(), joined: Notify::new(), started: Once::new() })
    }

    /// Follows a job. The caller reads what there is already from the store, after this call.
    pub fn follow(self: &Arc<Self>, tenant: TenantId, job: JobId) -> broadcast::Receiver<News> {
        self.started.call_once(|| {
            tokio::spawn(run(Arc::downgrade(self), self.store.clone()));
        });
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Followed { tenant, passed: None, readers: broadcast::channel(BEHIND).0 };
        let receiver = followed.entry(job).or_insert_with(new).readers.subscribe();
        drop(followed);
        // A job that has ended already is told of by the next pass.
        self.joined.notify_one();
        receiver
    }

    async fn pass(&self) -> Result<(), StoreError> {
        let jobs = self.jobs();
        if jobs.is_empty() {
            return Ok(());
        }
        let ids: Vec<JobId> = jobs.iter().map(|(job, ..)| *job).collect();
        let heads = self.store.event_heads(&ids).await?;
        for (job, tenant, passed) in jobs {
            // A job that is gone has ended.
            let gone = EventHead { job, last: passed.unwrap_or(0), ended: true };
            let head = heads.iter().find(|head| head.job == job).copied().unwrap_or(gone);
            let events = match passed {
                Some(passed) if passed < head.last => self.store.events_since(tenant, job, passed, PAGE).await?,
                _ => Vec::new(),
            };
            if passed != Some(head.last) || head.ended {
                self.pass_on(job, head, events);
            }
        }
        Ok(())
    }

    /// Jobs that somebody still follows.
    fn jobs(&self) -> Vec<(JobId, TenantId, Option<u64>)> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, job| job.readers.receiver_count() > 0);
        followed.iter().map(|(job, entry)| (*job, entry.tenant, entry.passed)).collect()
    }

    fn pass_on(&self, job: JobId, head: EventHead, events: Vec<Event>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = followed.get_mut(&job) else { return };
        // Events may have come after the heads were read.
        let last = events.last().map_or(head.last, |event| event.sequence.max(head.last));
        entry.passed = Some(last);
        // Nobody may follow any more; that is no error.
        let _ = entry.readers.send(News { events: Arc::new(events), head: last, ended: head.ended });
    }
}

/// Passes for as long as the hub lives.
async fn run(hub: Weak<Hub>, store: Store) {
    let mut wakeups = store.listen();
    loop {
        let Some(hub) = hub.upgrade() else { return };
        tokio::select! {
            _ = wakeups.next() => {}
            () = hub.joined.notified() => {}
            () = sleep(POLL) => {}
        }
        if let Err(error) = hub.pass().await {
            tracing::debug!(%error, "events.pass: the next one reads them");
        }
        drop(hub);
        sleep(REST).await;
    }
}
