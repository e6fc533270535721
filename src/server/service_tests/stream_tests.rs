//! Events as a stream: no gap, no duplicate, in order, whoever writes and however often the reader is cut off.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request},
};
use finetuned_protocol::{ids::JobId, status::EventLevel};
use finetuned_store::{NewEvent, Report};
use futures::StreamExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{service::Service, training};

const EVENTS: usize = 10_000;
const WRITERS: usize = 8;

/// The events of a part of a stream, and whether it told of its end.
fn read(text: &str) -> (Vec<(u64, Value)>, bool) {
    let mut events = Vec::new();
    let mut done = false;
    for block in text.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        match (field("id:"), field("event:"), field("data:")) {
            (Some(id), None, Some(data)) => {
                events.push((id.parse().expect("a number"), serde_json::from_str(data).expect("JSON")));
            }
            (None, Some("done"), _) => done = true,
            _ => {}
        }
    }
    (events, done)
}

/// Reads from `last` on, at most `bytes` of the stream; whole events only.
async fn part(service: &Service, path: &str, last: u64, bytes: usize) -> (u16, Vec<(u64, Value)>, bool) {
    let request = Request::builder().method(Method::GET).uri(format!("{path}/events?stream=true"));
    let request = request.header("last-event-id", last.to_string()).body(Body::empty()).expect("a request");
    let response = service.router.clone().oneshot(request).await.expect("infallible");
    let status = response.status().as_u16();
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.len() < bytes {
        match tokio::time::timeout(Duration::from_secs(20), body.next()).await.expect("nothing comes any more") {
            Some(chunk) => text.push_str(std::str::from_utf8(&chunk.expect("a chunk")).expect("UTF-8")),
            None => break,
        }
    }
    let (events, done) = read(&text[..text.rfind("\n\n").map_or(0, |end| end + 2)]);
    (status, events, done)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_every_event_once_in_order_however_often_it_is_cut() {
    let service = Service::start().await;
    let lease = training::claimed(&service).await;
    let path = format!("/v1/fine_tuning/jobs/{}", lease.job.id);
    let writers = (0..WRITERS).map(|writer| {
        let (store, key) = (service.database.store.clone(), lease.key);
        tokio::spawn(async move {
            for number in 0..EVENTS / WRITERS / 25 {
                let note = |place| NewEvent::message(EventLevel::Info, format!("{writer}:{number}:{place}"));
                let mut events: Vec<NewEvent> = (0..25).map(note).collect();
                if number % 5 == 4 {
                    // Refused after the numbers were drawn: a zero byte in a key. They must not leave a gap.
                    let broken = NewEvent { once: Some("a\0b".to_owned()), ..note(25) };
                    let report = Report { events: vec![note(0), broken], ..Report::default() };
                    assert!(store.report(&key, &report).await.is_err());
                }
                events.truncate(25);
                store.report(&key, &Report { events, ..Report::default() }).await.expect("a report");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let ending = {
        let (store, tenant, job) = (service.database.store.clone(), lease.job.tenant, lease.job.id);
        tokio::spawn(async move {
            for writer in writers {
                writer.await.expect("a writer");
            }
            store.cancel_job(tenant, job).await.expect("a cancel");
        })
    };
    let mut last = 0;
    let mut cuts = 0;
    loop {
        let (status, events, done) = part(&service, &path, last, 100_000).await;
        assert_eq!(status, 200);
        for (id, event) in events {
            assert_eq!((id, event["sequence"].as_u64()), (last + 1, Some(id)), "after {last}");
            last = id;
        }
        if done {
            break;
        }
        cuts += 1;
    }
    ending.await.expect("the end");
    assert!(cuts > 10, "only {cuts} cuts");
    let listed = service.get(&format!("{path}/events?limit=1")).await.ok();
    assert_eq!(listed["data"][0]["sequence"], last);
    assert!(last as usize > EVENTS, "{last} events");
    let (status, events, _) = part(&service, &path, last, 1).await;
    assert_eq!((status, events.len()), (204, 0), "an ended job has no more to tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_dropped_and_can_come_back() {
    let service = Service::start().await;
    let lease = training::claimed(&service).await;
    let path = format!("/v1/fine_tuning/jobs/{}", lease.job.id);
    let request = Request::builder().uri(format!("{path}/events?stream=true")).body(Body::empty()).expect("a request");
    let response = service.router.clone().oneshot(request).await.expect("infallible");
    let mut slow = response.into_body().into_data_stream();
    // More passes than a reader may be behind, each with something new.
    for number in 0..90 {
        let events = vec![NewEvent::message(EventLevel::Info, format!("{number}"))];
        service.database.store.report(&lease.key, &Report { events, ..Report::default() }).await.expect("a report");
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    let mut text = String::new();
    while let Some(chunk) = slow.next().await {
        text.push_str(std::str::from_utf8(&chunk.expect("a chunk")).expect("UTF-8"));
    }
    let (events, done) = read(&text);
    assert!(!done && events.len() < 60, "{} events came", events.len());
    let last = events.last().map_or(0, |(id, _)| *id);
    service.database.store.cancel_job(lease.job.tenant, lease.job.id).await.expect("a cancel");
    let (_, rest, done) = part(&service, &path, last, usize::MAX).await;
    assert_eq!((rest.first().map(|(id, _)| *id), done), (Some(last + 1), true));
}

#[tokio::test]
async fn a_stream_refuses_what_it_does_not_know() {
    let service = Service::start().await;
    let path = format!("/v1/fine_tuning/jobs/{}/events?stream=true", JobId::generate());
    assert_eq!(service.get(&path).await.status, 404);
    let job = service.job().await;
    let path = format!("/v1/fine_tuning/jobs/{}/events?stream=true", job["id"].as_str().unwrap_or_default());
    let refused = service.header("last-event-id", "abc").get(&path).await;
    assert_eq!(refused.refusal(), (400, "last-event-id", "invalid_value"));
    assert_eq!(service.get(&format!("{path}&after=ftevent-1")).await.status, 400);
    assert_eq!(service.get(&path.replace("true", "maybe")).await.status, 400);
}
