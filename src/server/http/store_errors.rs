//! The store's errors, which know nothing of HTTP, as clients read them.

use std::{error::Error as StdError, fmt::Display, io};

use axum::http::{HeaderValue, header::RETRY_AFTER};
use finetuned_store::{Quota, StoreError};

use super::error::{ApiError, Code};

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what: "after" } => Self::invalid(
                "after",
                "`after` must be the id of an item of this list; give `last_id` of the page before",
            ),
            StoreError::NotFound { what } => Self::new(Code::NotFound, format!("no such {what}")),
            StoreError::Conflict { message } => Self::new(Code::InvalidState, message),
            StoreError::QuotaExceeded { quota, limit, used } => quota_exceeded(quota, limit, used),
            StoreError::IdempotencyMismatch => {
                let message = "this Idempotency-Key was used before with another request; use a fresh key";
                Self::new(Code::IdempotencyKeyReused, message).param("idempotency-key")
            }
            StoreError::TooLarge { limit_bytes } => Self::too_large(limit_bytes),
            StoreError::Unavailable { .. } => Self::unavailable(error),
            StoreError::Blob { .. } if is_full(&error) => {
                Self::new(Code::InsufficientStorage, "the server has no space left for this; nothing was kept")
                    .cause(error)
            }
            error => Self::internal(error),
        }
    }
}

/// What would help, and when to ask again where time alone helps.
fn quota_exceeded(quota: Quota, limit: u64, used: u64) -> ApiError {
    let message = match quota {
        Quota::OpenJobs => format!(
            "{used} of {limit} jobs are queued or running; wait for one to end, cancel one, or ask the operator for more \
             (`finetuned tenants limit --open-jobs`)"
        ),
        Quota::StoredBytes => format!(
            "{used} of {limit} bytes are stored; delete what is not needed (DELETE /v1/files/ID; room is made within \
             a day), or ask the operator for more (`finetuned tenants limit --stored-gb`)"
        ),
        Quota::TrainedTokens { resets_in } => {
            let message = format!(
                "{used} of {limit} tokens were trained this month; wait for the next one, which begins in {} hours, or \
                 ask the operator for more (`finetuned tenants limit --trained-tokens-a-month`)",
                resets_in.as_secs().div_ceil(3600)
            );
            let seconds = HeaderValue::from(resets_in.as_secs().max(1));
            return ApiError::new(Code::QuotaExceeded, message).header(RETRY_AFTER, seconds);
        }
    };
    ApiError::new(Code::QuotaExceeded, message)
}

/// Names the object that a lookup did not find.
pub fn found<T>(result: Result<T, StoreError>, kind: &str, id: impl Display) -> Result<T, ApiError> {
    result.map_err(|error| match error {
        StoreError::NotFound { what } if what != "after" => ApiError::not_found(kind, id),
        error => error.into(),
    })
}

/// Whether the disk or the quota is full, somewhere down the chain of causes.
fn is_full(error: &StoreError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn statuses_of_the_stores_errors() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        for (error, status) in [
            (StoreError::NotFound { what: "job" }, 404),
            (StoreError::NotFound { what: "after" }, 400),
            (StoreError::Conflict { message: "no".into() }, 400),
            (StoreError::IdempotencyMismatch, 422),
            (StoreError::TooLarge { limit_bytes: 1 }, 413),
            (StoreError::Unavailable { doing: "reading", reason: "away".into() }, 503),
            (StoreError::Blob { doing: "writing", source: Box::new(full) }, 507),
            (StoreError::Blob { doing: "writing", source: "broken".into() }, 500),
            (StoreError::LeaseLost, 500),
        ] {
            let text = error.to_string();
            assert_eq!(ApiError::from(error).into_response().status().as_u16(), status, "{text}");
        }
    }
}
