//! A job's events as server-sent events: gapless from any number on, across servers, in the order of their numbers.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response, Sse,
        sse::{self, KeepAlive},
    },
};
use finetuned_protocol::ids::{JobId, TenantId};
use finetuned_store::{Event, Store, StoreError};
use futures::{StreamExt, stream};
use tokio::sync::broadcast;

use super::{
    events::JobEvent,
    hub::{News, PAGE},
};
use crate::{http::error::ApiError, state::App};

/// A comment line is sent after so long without an event, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How soon a reader that lost its connection should come back.
const RETRY: Duration = Duration::from_secs(1);

/// The number after which a reader wants to go on; 0 for all.
///
/// # Errors
/// `Last-Event-ID` is not a number that a stream of ours gave.
pub fn last_event_id(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    let number = number.filter(|number| i64::try_from(*number).is_ok());
    number.ok_or_else(|| {
        ApiError::invalid("last-event-id", "`Last-Event-ID` must be the id of an event of this stream, a whole number")
    })
}

/// The stream from `last` on. A job that has ended with nothing after `last` is a 204, which tells browsers to stop.
///
/// # Errors
/// The store's, while nothing is answered yet.
pub async fn events(app: App, tenant: TenantId, job: JobId, last: u64) -> Result<Response, StoreError> {
    // Subscribed first, so that nothing falls between what is read here and what comes.
    let news = app.hub.follow(tenant, job);
    let heads = app.store.event_heads(&[job]).await?;
    let first = app.store.events_since(tenant, job, last, PAGE).await?;
    if first.is_empty() && heads.iter().all(|head| head.ended) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let behind = first.len() == PAGE as usize;
    let reader =
        Reader { store: app.store.clone(), tenant, job, last, ready: first.into(), behind, news, ended: false };
    let closing = app.closing.clone().cancelled_owned();
    let stream = stream::unfold(Some(reader), Reader::next).take_until(closing);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// Where one reader is.
struct Reader {
    store: Store,
    tenant: TenantId,
    job: JobId,
    /// The last number that was given.
    last: u64,
    /// Read, not given yet.
    ready: VecDeque<Event>,
    /// There is more in the store.
    behind: bool,
    news: broadcast::Receiver<News>,
    /// Nothing comes after what is ready.
    ended: bool,
}

impl Reader {
    /// The next line of the stream; ends it where the reader is too slow, or the store cannot be read: the reader comes
    /// back with the number it has.
    async fn next(reader: Option<Self>) -> Option<(Result<sse::Event, Infallible>, Option<Self>)> {
        let mut reader = reader?;
        loop {
            while let Some(event) = reader.ready.pop_front() {
                if event.sequence == reader.last + 1 {
                    reader.last = event.sequence;
                    return Some((Ok(line(event)), Some(reader)));
                }
                if event.sequence > reader.last {
                    // What lies between is in the store.
                    reader.ready.clear();
                    reader.behind = true;
                }
            }
            if reader.behind {
                reader.read().await?;
            } else if reader.ended {
                return Some((Ok(sse::Event::default().event("done").data("[DONE]")), None));
            } else {
                reader.hear().await?;
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        let read = self.store.events_since(self.tenant, self.job, self.last, PAGE).await;
        let events = read.inspect_err(|error| tracing::debug!(%error, "a stream of events is cut off")).ok()?;
        self.behind = events.len() == PAGE as usize;
        self.ready.extend(events);
        Some(())
    }

    async fn hear(&mut self) -> Option<()> {
        match self.news.recv().await {
            Ok(News { events, head, ended }) => {
                self.ready.extend(Arc::unwrap_or_clone(events));
                self.behind = self.ready.back().map_or(0, |event| event.sequence).max(self.last) < head;
                self.ended = ended;
                Some(())
            }
            Err(error) => {
                tracing::debug!(%error, job = %self.job, "a reader of events is too slow");
                None
            }
        }
    }
}

fn line(event: Event) -> sse::Event {
    let (id, retry) = (event.sequence.to_string(), RETRY);
    let data = serde_json::to_string(&JobEvent::from(event)).unwrap_or_default();
    sse::Event::default().id(id).retry(retry).data(data)
}
