//! Typed ids in paths. The router matches the raw path, so `%2F` stays within its segment and is decoded here.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use finetuned_protocol::ids::{FileId, JobId};

use super::error::ApiError;

/// An id that can stand in a path.
pub trait PathId: FromStr {
    /// What a person calls the object.
    const KIND: &'static str;
}

impl PathId for FileId {
    const KIND: &'static str = "file";
}

impl PathId for JobId {
    const KIND: &'static str = "fine-tuning job";
}

/// The first parameter of the path as an id. Text that is no id names nothing: a 404, like an id nobody gave out.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: PathId> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = segment(parts, state, 0).await?;
        text.parse().map(Self).map_err(|_| ApiError::not_found(T::KIND, text))
    }
}

/// The last parameter of the path as text: the name of a model or of an artifact.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = raw(parts, state).await?;
        let last = params.iter().last().map(|(_, value)| value.to_owned());
        // Postgres cannot even be asked for a text with U+0000.
        if last.as_ref().is_some_and(|name| name.contains('\0')) {
            return Err(ApiError::not_found("object", parts.uri.path()));
        }
        last.map(Self).ok_or_else(|| ApiError::internal("a route without parameters asks for a name"))
    }
}

/// The first parameter of the path as text, where others follow.
pub struct FirstName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for FirstName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = segment(parts, state, 0).await?;
        if name.contains('\0') {
            return Err(ApiError::not_found("object", parts.uri.path()));
        }
        Ok(Self(name))
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, index: usize) -> Result<String, ApiError> {
    let params = raw(parts, state).await?;
    let value = params.iter().nth(index).map(|(_, value)| value.to_owned());
    value.ok_or_else(|| ApiError::internal("a route without parameters asks for an id"))
}

async fn raw<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, ApiError> {
    RawPathParams::from_request_parts(parts, state)
        .await
        // Only text that is not UTF-8 after decoding is refused, and no object is called so.
        .map_err(|_| ApiError::not_found("object", parts.uri.path()))
}
