//! A multipart body read in bounded memory.
//!
//! The parser drains whatever its source has ready before it yields anything, so a fast client would be buffered
//! without limit. [`Paced`] hands over one piece a poll, and counts what went in and came out.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, BodyDataStream},
    extract::{FromRequest, Multipart, Request, multipart::MultipartError},
};
use bytes::Bytes;
use futures::Stream;

use super::error::{ApiError, Code};

/// Most bytes that may go in without coming out as content: names, headers, and what is being parsed.
const MAX_OVERHEAD_BYTES: u64 = 4 << 20;

/// Bytes that the parser holds or has thrown away.
#[derive(Debug, Clone, Default)]
pub struct Overhead(Arc<AtomicU64>);

impl Overhead {
    /// Content that left the parser.
    pub fn came_out(&self, bytes: usize) {
        self.0.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

struct Paced {
    body: BodyDataStream,
    overhead: Overhead,
    gave: bool,
}

impl Stream for Paced {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.gave) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.body).poll_next(context).map_err(io::Error::other);
        if let Poll::Ready(Some(Ok(piece))) = &next {
            self.gave = true;
            let before = self.overhead.0.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if before > MAX_OVERHEAD_BYTES {
                return Poll::Ready(Some(Err(io::Error::other("the parts of the body have too long headers"))));
            }
        }
        next
    }
}

/// Opens a multipart body; `fields` says in an error what it should hold.
///
/// # Errors
/// A 400 where the content type is another or has no boundary.
pub async fn open(request: Request, fields: &str) -> Result<(Multipart, Overhead), ApiError> {
    let overhead = Overhead::default();
    let paced = {
        let overhead = overhead.clone();
        request.map(|body| Body::from_stream(Paced { body: body.into_data_stream(), overhead, gave: false }))
    };
    let multipart = Multipart::from_request(paced, &()).await.map_err(|_| {
        let message = format!("the body must be `multipart/form-data` with a boundary, with {fields}");
        ApiError::new(Code::InvalidBody, message).param("content-type")
    })?;
    Ok((multipart, overhead))
}

/// Every fault of the body is the client's: it is cut off or not what it says.
pub fn damaged(error: MultipartError) -> ApiError {
    let message = format!("the body ended early or is not valid multipart/form-data: {}", error.body_text());
    ApiError::new(Code::InvalidBody, message).cause(error)
}
