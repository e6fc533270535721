//! JSON bodies, read strictly: every refusal names the field and what is allowed.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::error::{ApiError, Code};

/// Largest JSON body; the longest legal one is a job with a template of 64 KB.
pub const MAX_JSON_BYTES: usize = 1 << 20;

/// The extractor of a JSON body: `JsonBody(request): JsonBody<CreateJobRequest>`.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Serialize> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        require_json(request.headers())?;
        let bytes = read(request.into_body(), MAX_JSON_BYTES).await?;
        parse(&bytes).map(Self)
    }
}

/// A JSON body that may be left out.
pub struct OptionalJsonBody<T>(pub Option<T>);

impl<S: Send + Sync, T: DeserializeOwned + Serialize> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, MAX_JSON_BYTES).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        require_json(&parts.headers)?;
        parse(&bytes).map(|value| Self(Some(value)))
    }
}

/// For operations without a body. Clients send a content type all the same, so only bytes are refused.
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), MAX_JSON_BYTES).await?;
        // Some clients send an empty object for an empty body.
        if bytes.is_empty() || bytes.trim_ascii() == b"{}" {
            return Ok(Self);
        }
        Err(ApiError::new(Code::InvalidBody, "this operation takes no body"))
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("the body must be JSON with `content-type: application/json`; it is `{content_type}`");
    Err(ApiError::new(Code::InvalidBody, message).param("content-type"))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.to_string().contains("length limit exceeded"));
        if too_large {
            ApiError::too_large(limit as u64)
        } else {
            ApiError::new(Code::InvalidBody, "the body ended early").cause(error)
        }
    })
}

/// Reads one JSON object.
fn parse<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        refusal(&path, error.inner())
    })?;
    json.end().map_err(|error| ApiError::new(Code::InvalidBody, format!("the body is not one JSON value: {error}")))?;
    let given: Value = serde_json::from_slice(bytes).map_err(ApiError::internal)?;
    let read = serde_json::to_value(&value).map_err(ApiError::internal)?;
    refuse_lists_for_objects(&given, &read, "")?;
    // Postgres cannot hold it in a text.
    if has_nul(&given) {
        let message = "the body has a text with the character U+0000, which none may have";
        return Err(ApiError::new(Code::InvalidBody, message));
    }
    Ok(value)
}

/// Deserialisation takes a list of values for an object's fields in their order; the wire format does not.
fn refuse_lists_for_objects(given: &Value, read: &Value, path: &str) -> Result<(), ApiError> {
    match (given, read) {
        (Value::Array(_), Value::Object(_)) if path.is_empty() => {
            Err(ApiError::new(Code::InvalidBody, "the body must be a JSON object; it is a list"))
        }
        (Value::Array(_), Value::Object(_)) => {
            Err(ApiError::invalid(path, format!("`{path}` must be an object; it is a list")))
        }
        (Value::Object(given), Value::Object(read)) => given.iter().try_for_each(|(name, given)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            read.get(name).map_or(Ok(()), |read| refuse_lists_for_objects(given, read, &path))
        }),
        _ => Ok(()),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(pairs) => pairs.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let plain = text.split(" at line ").next().unwrap_or(&text);
    if !error.is_data() {
        return ApiError::new(Code::InvalidBody, format!("the body is not JSON: {text}"));
    }
    let within = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    if let Some(field) = quoted_after(plain, "unknown field `") {
        // The path ends at the unknown field itself or at its parent, depending on where it was met.
        let param = if path == field || path.ends_with(&format!(".{field}")) { path.to_owned() } else { within(field) };
        return ApiError::new(Code::UnknownParameter, format!("`{param}`: {plain}")).param(param);
    }
    if let Some(field) = quoted_after(plain, "missing field `") {
        let param = within(field);
        return ApiError::new(Code::MissingParameter, format!("`{param}` must be given")).param(param);
    }
    if path.is_empty() {
        return ApiError::new(Code::InvalidBody, format!("the body is not what is wanted: {plain}"));
    }
    ApiError::invalid(path, format!("`{path}`: {plain}"))
}

fn quoted_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.split('`').next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::response::IntoResponse;
    use finetuned_protocol::request::CreateJobRequest;

    use super::*;

    fn refused(body: &str) -> (u16, Value) {
        let response = parse::<CreateJobRequest>(body.as_bytes()).err().map(IntoResponse::into_response).unwrap();
        let status = response.status().as_u16();
        let bytes = futures::executor::block_on(axum::body::to_bytes(response.into_body(), 1 << 16)).unwrap();
        (status, serde_json::from_slice::<Value>(&bytes).unwrap()["error"].clone())
    }

    #[test]
    fn refusals_name_the_field() {
        for (body, param, code) in [
            (r#"{"training_file": "x"}"#, "model", "missing_required_parameter"),
            (r#"{"model": 3, "training_file": "x"}"#, "model", "invalid_value"),
            (r#"{"model": "m", "training_file": "x", "lora": {"rank": 3}}"#, "lora.rank", "unknown_parameter"),
            (r#"{"model": "m", "training_file": "x", "epochs": 3}"#, "epochs", "unknown_parameter"),
            (r#"{"model": "m", "training_file": "x", "lora": {"r": -1}}"#, "lora.r", "invalid_value"),
            (r#"{"model": "m", "training_file": "x", "batch_size": "big"}"#, "batch_size", "invalid_value"),
            (
                r#"{"model": "m", "training_file": "x", "optimizer": {"betas": [1]}}"#,
                "optimizer.betas",
                "invalid_value",
            ),
            (
                r#"{"model": "m", "training_file": "x", "method": {"type": "supervised", "supervised": {"x": 1}}}"#,
                "method.supervised.x",
                "unknown_parameter",
            ),
        ] {
            let (status, error) = refused(body);
            assert_eq!(
                (status, &error["param"], &error["code"]),
                (400, &param.into(), &code.into()),
                "{body}: {error}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_said_to_be_none() {
        let list = r#"["m", "x"]"#;
        for body in ["", "{", list, "3", r#"{"model": "m"} x"#, r#"{"model": "a\u0000", "training_file": "x"}"#] {
            let (status, error) = refused(body);
            assert_eq!(status, 400, "{body}: {error}");
        }
        let (_, error) = refused(r#"{"model": "m", "training_file": "x", "lora": [8]}"#);
        assert_eq!(error["param"], "lora", "{error}");
        // A backslash before `u0000` is six harmless characters.
        assert!(parse::<CreateJobRequest>(br#"{"model": "a\\u0000", "training_file": "x"}"#).is_ok());
    }
}
