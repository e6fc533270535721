//! Bytes on their way out: entity tags, digests and single byte ranges (RFC 9110 §13 and §14, RFC 9530).

use std::{fmt::Write, ops::Range};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
            IF_RANGE, RANGE,
        },
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use finetuned_store::{BlobId, Store};
use futures::Stream;

use super::error::{ApiError, Code};

/// The sha256 of the whole representation in hexadecimal digits, for `sha256sum`.
const SHA256_HEADER: HeaderName = HeaderName::from_static("x-content-sha256");

/// What is downloaded, before its bytes are opened.
pub struct Download {
    pub bytes: u64,
    /// Of the whole, in hexadecimal digits; also the entity tag.
    pub sha256: String,
    pub content_type: &'static str,
    pub filename: String,
}

/// Which bytes a client is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    Part(Range<u64>),
    /// The client has them.
    Nothing,
}

impl Wanted {
    /// The bytes to open, or `None` where the client has them.
    pub fn range(&self, bytes: u64) -> Option<Range<u64>> {
        match self {
            Self::Whole => Some(0..bytes),
            Self::Part(range) => Some(range.clone()),
            Self::Nothing => None,
        }
    }
}

impl Download {
    fn etag(&self) -> String {
        format!("\"{}\"", self.sha256)
    }

    /// What the request's conditions and range ask for.
    ///
    /// # Errors
    /// A 416 where the range lies outside.
    pub fn wanted(&self, headers: &HeaderMap) -> Result<Wanted, ApiError> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let etag = self.etag();
        let matches = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == etag;
        if text(IF_NONE_MATCH).is_some_and(|tags| tags.split(',').map(str::trim).any(matches)) {
            return Ok(Wanted::Nothing);
        }
        if text(IF_RANGE).is_some_and(|tag| tag.trim() != etag) {
            return Ok(Wanted::Whole);
        }
        match text(RANGE).and_then(|range| parse_range(range, self.bytes)) {
            None => Ok(Wanted::Whole),
            Some(Ok(range)) => Ok(Wanted::Part(range)),
            Some(Err(OutOfRange)) => {
                let bytes = self.bytes;
                let mut error = ApiError::new(Code::RangeNotSatisfiable, format!("the object has {bytes} bytes"));
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{bytes}")) {
                    error = error.header(CONTENT_RANGE, value);
                }
                Err(error.param("range"))
            }
        }
    }

    /// The answer from a blob that holds the whole.
    ///
    /// # Errors
    /// A 416, or a blob that cannot be opened.
    pub async fn respond_with_blob(
        self,
        store: &Store,
        blob: BlobId,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let wanted = self.wanted(headers)?;
        let content = match wanted.range(self.bytes) {
            // A blob without bytes has no range that could be asked for.
            Some(range) if !range.is_empty() => store.get_blob(blob, Some(range)).await?,
            _ => Box::pin(futures::stream::empty()),
        };
        self.respond(&wanted, content)
    }

    /// The answer; `content` yields exactly the wanted bytes.
    ///
    /// # Errors
    /// A header that cannot be written, which is a fault of ours.
    pub fn respond<S, E>(self, wanted: &Wanted, content: S) -> Result<Response, ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<axum::BoxError> + 'static,
    {
        let mut response = match wanted {
            Wanted::Nothing => StatusCode::NOT_MODIFIED.into_response(),
            Wanted::Whole => Body::from_stream(content).into_response(),
            Wanted::Part(_) => (StatusCode::PARTIAL_CONTENT, Body::from_stream(content)).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, value(self.etag())?);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(SHA256_HEADER, value(&self.sha256)?);
        if let Some(range) = wanted.range(self.bytes) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
            headers.insert(CONTENT_DISPOSITION, value(attachment(&self.filename))?);
        }
        if let Wanted::Part(range) = wanted {
            let (first, last, all) = (range.start, range.end - 1, self.bytes);
            headers.insert(CONTENT_RANGE, value(format!("bytes {first}-{last}/{all}"))?);
        }
        Ok(response)
    }
}

fn value(text: impl AsRef<str>) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text.as_ref()).map_err(ApiError::internal)
}

/// Always an attachment: what clients upload is never shown by a browser as a page of this origin.
fn attachment(filename: &str) -> String {
    let mut encoded = String::new();
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("attachment; filename*=UTF-8''{encoded}")
}

struct OutOfRange;

/// One range in bytes. Other units and several ranges may be ignored (RFC 9110 §14.2), and are.
fn parse_range(text: &str, bytes: u64) -> Option<Result<Range<u64>, OutOfRange>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let range = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(bytes),
        (Some(first), None) => first..bytes,
        (None, Some(suffix)) => bytes.saturating_sub(suffix)..bytes,
        (None, None) => return None,
    };
    Some(if range.start < range.end { Ok(range) } else { Err(OutOfRange) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(headers: &[(HeaderName, &str)]) -> Option<Wanted> {
        let download = Download {
            bytes: 100,
            sha256: "ab".into(),
            content_type: "application/octet-stream",
            filename: "a".into(),
        };
        let headers = headers.iter().map(|(name, text)| (name.clone(), HeaderValue::from_str(text).unwrap())).collect();
        download.wanted(&headers).ok()
    }

    #[test]
    fn ranges_of_rfc_9110() {
        assert_eq!(wanted(&[(RANGE, "bytes=0-9")]), Some(Wanted::Part(0..10)));
        assert_eq!(wanted(&[(RANGE, "bytes=90-")]), Some(Wanted::Part(90..100)));
        assert_eq!(wanted(&[(RANGE, "bytes=-30")]), Some(Wanted::Part(70..100)));
        assert_eq!(wanted(&[(RANGE, "bytes=-300")]), Some(Wanted::Part(0..100)));
        assert_eq!(wanted(&[(RANGE, "bytes=50-1000")]), Some(Wanted::Part(50..100)));
        assert_eq!(wanted(&[(RANGE, "bytes=100-")]), None);
        assert_eq!(wanted(&[(RANGE, "bytes=-0")]), None);
        // What may be ignored is.
        for ignored in ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=+1-3", "bytes=-"] {
            assert_eq!(wanted(&[(RANGE, ignored)]), Some(Wanted::Whole), "{ignored}");
        }
    }

    #[test]
    fn conditions() {
        assert_eq!(wanted(&[(IF_NONE_MATCH, "\"x\", W/\"ab\"")]), Some(Wanted::Nothing));
        assert_eq!(wanted(&[(RANGE, "bytes=0-9"), (IF_RANGE, "\"ab\"")]), Some(Wanted::Part(0..10)));
        assert_eq!(wanted(&[(RANGE, "bytes=0-9"), (IF_RANGE, "\"old\"")]), Some(Wanted::Whole));
    }

    #[test]
    fn names_cannot_break_out_of_their_header() {
        assert_eq!(attachment("a b\"\r\n.é"), "attachment; filename*=UTF-8''a%20b%22%0D%0A.%C3%A9");
    }
}
