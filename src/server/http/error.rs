//! What a client reads when a request cannot be served. Errors below HTTP know nothing of this; they become an
//! [`ApiError`] at the edge.

use std::{error::Error as StdError, fmt, sync::Arc};

use axum::{
    Json,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use finetuned_protocol::error::FieldError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// The `code` of an error: part of the contract, so codes are added and never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A field or parameter has a value that is not allowed.
    InvalidValue,
    /// A field or parameter that nobody knows.
    UnknownParameter,
    /// A field or parameter that must be there is not.
    MissingParameter,
    /// The body is not what its content type says, or ended early.
    InvalidBody,
    /// The training file does not exist, has another purpose, or has rows that cannot be used.
    InvalidTrainingFile,
    /// The same of the validation file.
    InvalidValidationFile,
    /// No model of this name.
    ModelNotFound,
    /// No such object, or one of another tenant.
    NotFound,
    /// No such route.
    UnknownUrl,
    /// The route exists, but not for this method.
    MethodNotAllowed,
    /// No API key, or one that is wrong, expired or revoked.
    InvalidApiKey,
    /// The API key was not made for this.
    InsufficientScope,
    /// A webhook endpoint gave no answer to a test.
    EndpointUnreachable,
    /// The tenant has used up what the operator gives it.
    QuotaExceeded,
    /// The tenant asks more often than the operator lets it.
    RateLimitExceeded,
    /// The URL is longer than any that is of use.
    UriTooLong,
    /// The headers are longer than any that are of use.
    HeadersTooLarge,
    /// The object's state does not allow this.
    InvalidState,
    /// The body is larger than the server takes.
    BodyTooLarge,
    /// The range does not lie in the object.
    RangeNotSatisfiable,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The database or the disk cannot be reached, or all places are taken, for the moment.
    Unavailable,
    /// No space is left for what was sent.
    InsufficientStorage,
    /// A fault of this service.
    InternalError,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidValue => "invalid_value",
            Self::UnknownParameter => "unknown_parameter",
            Self::MissingParameter => "missing_required_parameter",
            Self::InvalidBody => "invalid_body",
            Self::InvalidTrainingFile => "invalid_training_file",
            Self::InvalidValidationFile => "invalid_validation_file",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::UnknownUrl => "unknown_url",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::InvalidApiKey => "invalid_api_key",
            Self::InsufficientScope => "insufficient_scope",
            Self::EndpointUnreachable => "endpoint_unreachable",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::InvalidState => "invalid_state",
            Self::BodyTooLarge => "body_too_large",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::RequestTimeout => "request_timeout",
            Self::Unavailable => "unavailable",
            Self::InsufficientStorage => "insufficient_storage",
            Self::InternalError => "internal_error",
        }
    }

    /// Never 409, which clients repeat by themselves.
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidValue
            | Self::UnknownParameter
            | Self::MissingParameter
            | Self::InvalidBody
            | Self::InvalidTrainingFile
            | Self::InvalidValidationFile
            | Self::EndpointUnreachable
            | Self::InvalidState => StatusCode::BAD_REQUEST,
            Self::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope => StatusCode::FORBIDDEN,
            Self::QuotaExceeded | Self::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ModelNotFound | Self::NotFound | Self::UnknownUrl => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "authentication_error",
            Self::InsufficientScope => "permission_error",
            Self::QuotaExceeded | Self::RateLimitExceeded => "rate_limit_error",
            Self::IdempotencyKeyReused => "idempotency_error",
            Self::Unavailable | Self::InsufficientStorage | Self::InternalError => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// Seconds after which a client may try again, where trying again helps.
    const fn retry_after_seconds(self) -> Option<u16> {
        match self {
            Self::Unavailable => Some(5),
            Self::RateLimitExceeded => Some(1),
            // Something must end or be deleted first, so that no client should wait for it by itself.
            Self::QuotaExceeded => Some(60),
            _ => None,
        }
    }

    /// Clients repeat 408, 409, 429 and 5xx by themselves; this says whether that is of use.
    const fn worth_retrying(self) -> bool {
        matches!(self, Self::Unavailable | Self::RequestTimeout | Self::RateLimitExceeded | Self::InternalError)
    }
}

/// An error on its way to the client. The cause goes to the log only.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    status: StatusCode,
    message: String,
    param: Option<String>,
    details: Vec<Value>,
    details_total: Option<u64>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// Why a request failed, travelling beside the response to the log line.
#[derive(Debug, Clone)]
pub struct Cause(pub Arc<dyn StdError + Send + Sync>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(inner) = source {
            write!(f, ": {inner}")?;
            source = inner.source();
        }
        Ok(())
    }
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            status: code.status(),
            message: message.into(),
            param: None,
            details: Vec::new(),
            details_total: None,
            header: None,
            cause: None,
        }))
    }

    /// A 400 that names the field to blame.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidValue, message).param(param)
    }

    pub fn not_found(kind: &str, id: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("no such {kind}: `{id}`"))
    }

    /// A body, or a file in it, beyond what the server takes.
    pub fn too_large(limit_bytes: u64) -> Self {
        Self::new(Code::BodyTooLarge, format!("what was sent is larger than the limit of {limit_bytes} bytes"))
    }

    /// A fault of ours: the body is constant, the cause is logged.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::InternalError, "the server had an error while processing your request; it has been logged")
            .cause(cause)
    }

    /// What the service stands on is away for the moment.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Unavailable, "the service cannot reach its database or storage for the moment; try again soon")
            .cause(cause)
    }

    /// All places for such work are taken.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Another code under the same status: a model that a request names and nobody has is a 400 there.
    pub fn code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Particulars, and how many there are where these are only the first.
    pub fn details(mut self, details: Vec<Value>, total: u64) -> Self {
        self.0.details = details;
        self.0.details_total = Some(total);
        self
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    pub fn cause(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(Cause(Arc::from(cause.into())));
        self
    }
}

impl From<FieldError> for ApiError {
    fn from(FieldError { param, message }: FieldError) -> Self {
        Self::invalid(param, message)
    }
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorResponse {
    pub error: ErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong and what is allowed, for a person.
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// For a program; stable.
    pub code: &'static str,
    /// The field, parameter or header to blame, where one is.
    pub param: Option<String>,
    /// Rows or other particulars, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub details: Vec<Value>,
    /// How many particulars there are in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details_total: Option<u64>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts { code, status, message, param, details, details_total, header, cause } = *self.0;
        let body = ErrorBody { message, kind: code.kind(), code: code.as_str(), param, details, details_total };
        let mut response = (status, Json(ErrorResponse { error: body })).into_response();
        let headers = response.headers_mut();
        headers
            .insert("x-should-retry", HeaderValue::from_static(if code.worth_retrying() { "true" } else { "false" }));
        if let Some((name, value)) = header {
            headers.insert(name, value);
        }
        if let Some(seconds) = code.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(cause) = cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_500_never_carries_its_cause() {
        let response = ApiError::internal("password=hunter2").into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let cause = response.extensions().get::<Cause>().unwrap().to_string();
        assert_eq!(cause, "password=hunter2");
        let body = futures::executor::block_on(axum::body::to_bytes(response.into_body(), 1 << 16)).unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
    }

    #[test]
    fn clients_are_told_when_to_come_back() {
        let response = ApiError::unavailable("away").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "5");
        assert_eq!(response.headers()["x-should-retry"], "true");
        let refused = ApiError::new(Code::InvalidState, "no").into_response();
        assert_eq!(refused.headers()["x-should-retry"], "false");
    }
}
