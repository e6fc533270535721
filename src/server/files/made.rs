//! Files of rows that the service itself made, stored and linted like an upload.

use bytes::Bytes;
use finetuned_protocol::lint::ReadingSpec;
use finetuned_store::{Caller, Created, File, Idempotency};

use super::{
    create::judged,
    form::{Form, Purpose},
    intake::Sink,
};
use crate::{http::error::ApiError, state::App};

/// Keeps JSON lines as a file for fine-tuning.
///
/// # Errors
/// No room, or a store that is away.
pub async fn keep_rows(
    app: &App,
    caller: &Caller,
    (filename, rows): (String, Bytes),
    idempotency: &Idempotency,
) -> Result<Created<File>, ApiError> {
    app.store.check_stored_bytes(caller.tenant).await?;
    let reading = ReadingSpec::default();
    let mut sink = Sink::open(app, caller.tenant, Some(reading.clone())).await?;
    sink.push(rows).await?;
    let intake = sink.finish().await?;
    let form = Form { filename, purpose: Purpose::FineTune, expires_after: None, reading, intake };
    Ok(app.store.create_file(caller.tenant, judged(form), Some(idempotency)).await?)
}
