//! What no request needs: long heads. And headers that tell browsers to keep their hands off.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::{ApiError, Code};

/// Longest path with its query; the longest legal one has sixteen pairs of metadata.
const MAX_URI_BYTES: usize = 32 << 10;
/// All headers together.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// Where a handler has not said otherwise: nothing here is a page, and nothing is to be kept by anyone on the way.
const SECURITY: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

/// Refuses what no client of ours sends.
pub async fn limit_head(request: Request, next: Next) -> Response {
    let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if uri > MAX_URI_BYTES {
        let message = format!("the URL has more than {MAX_URI_BYTES} bytes");
        return ApiError::new(Code::UriTooLong, message).into_response();
    }
    if headers > MAX_HEADER_BYTES {
        let message = format!("the headers have more than {MAX_HEADER_BYTES} bytes together");
        return ApiError::new(Code::HeadersTooLarge, message).into_response();
    }
    next.run(request).await
}

/// Adds the headers of every answer.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(value);
    }
    // What has an ETag may be kept by who asked for it, who then asks whether it is still so.
    let keeping = if headers.contains_key(header::ETAG) { "private, no-cache" } else { "no-store" };
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(keeping));
}
