//! A job followed from now to its end.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use finetuned_protocol::ids::JobId;

use super::{
    Client, PATIENCE,
    types::{Event, Job},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(700);

/// What a follower sees, in order.
pub enum Seen<'a> {
    /// The job, at each look.
    Job(&'a Job),
    /// A new event, oldest first.
    Event(&'a Event),
    /// The service does not answer for now.
    Away(&'a anyhow::Error),
}

impl Client {
    /// Looks at a job until it is over or `see` breaks; what is told is complete at the end.
    ///
    /// # Errors
    /// A service that stayed away longer than a restart takes, or refused.
    pub async fn watch(&self, id: JobId, mut see: impl FnMut(Seen<'_>) -> ControlFlow<()>) -> anyhow::Result<Job> {
        let mut newest: Option<String> = None;
        let mut answered = Instant::now();
        loop {
            // The job first: events that came before its last state are then all there to be read.
            match self.look(id, newest.as_deref()).await {
                Ok((job, events)) => {
                    answered = Instant::now();
                    let mut flow = see(Seen::Job(&job));
                    for event in &events {
                        newest = Some(event.id.clone());
                        if flow.is_continue() {
                            flow = see(Seen::Event(event));
                        }
                    }
                    if job.status.is_terminal() || flow.is_break() {
                        return Ok(job);
                    }
                }
                Err(error) if is_refusal(&error) || answered.elapsed() > PATIENCE => return Err(error),
                Err(error) => {
                    if see(Seen::Away(&error)).is_break() {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The job, and its events after `newest`, oldest first.
    async fn look(&self, id: JobId, newest: Option<&str>) -> anyhow::Result<(Job, Vec<Event>)> {
        let job = self.job(id).await?;
        let mut fresh: Vec<Event> = Vec::new();
        loop {
            let page = self.events(id, fresh.last().map(|event| event.id.as_str())).await?;
            let known = page.data.iter().position(|event| Some(event.id.as_str()) == newest);
            let more = page.has_more && known.is_none() && !page.data.is_empty();
            fresh.extend(page.data.into_iter().take(known.unwrap_or(usize::MAX)));
            if !more {
                fresh.reverse();
                return Ok((job, fresh));
            }
        }
    }
}

/// Whether the service answered, and asking again cannot help.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<super::types::ApiError>().is_some_and(|error| error.status.is_client_error())
}
