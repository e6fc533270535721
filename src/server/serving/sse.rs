//! Answers as server-sent events, as they come.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{self, KeepAlive},
};
use finetuned_protocol::serving::{ServingEvent, ServingLine};
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    answers::Usage,
    workers::{Accepted, Lines},
};

/// A comment line is sent after so long without an event, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Words chunks of one kind of answer.
pub trait Wording: Send + 'static {
    type Chunk: Serialize;

    /// Chunks of one of the worker's lines.
    fn chunks(&mut self, line: ServingLine) -> Vec<Self::Chunk>;

    /// The last chunk, where the tokens used are asked for.
    fn usage(&mut self, usage: Usage) -> Option<Self::Chunk>;
}

struct Reader<W> {
    first: Option<ServingLine>,
    lines: Lines,
    wording: W,
    usage: Usage,
    /// Answers that go on.
    left: u32,
}

/// The stream of all answers. Dropping it hangs up on the worker, which cancels them.
pub fn stream<W: Wording>(accepted: Accepted, choices: u32, wording: W, closing: CancellationToken) -> Response {
    let Accepted { first, lines } = accepted;
    let reader = Reader { first: Some(first), lines, wording, usage: Usage::default(), left: choices };
    let events = stream::unfold(Some(reader), next).flat_map(stream::iter).map(Ok::<_, Infallible>);
    Sse::new(events.take_until(closing.cancelled_owned()))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

async fn next<W: Wording>(reader: Option<Reader<W>>) -> Option<(Vec<sse::Event>, Option<Reader<W>>)> {
    let mut reader = reader?;
    if reader.left == 0 {
        let usage = reader.wording.usage(reader.usage);
        let mut events: Vec<sse::Event> = usage.iter().map(event).collect();
        events.push(sse::Event::default().data("[DONE]"));
        return Some((events, None));
    }
    let line = match reader.first.take() {
        Some(line) => Some(line),
        None => reader.lines.next().await,
    };
    let message = match line {
        Some(ServingLine { event: ServingEvent::Refused(refusal), .. }) => refusal.message,
        None => "the worker broke off while it answered".to_owned(),
        Some(line) => {
            reader.usage.note(&line);
            reader.left -= u32::from(line.event.is_last());
            let events = reader.wording.chunks(line).iter().map(event).collect();
            return Some((events, Some(reader)));
        }
    };
    // The status is sent already; SDKs raise what they find under `error`.
    let error = json!({"error": {"message": message, "type": "server_error", "code": "internal_error", "param": null}});
    Some((vec![event(&error)], None))
}

fn event(chunk: &impl Serialize) -> sse::Event {
    sse::Event::default().data(serde_json::to_string(chunk).unwrap_or_default())
}
