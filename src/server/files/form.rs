//! The fields of an upload, in whatever order they come.

use std::{path::Path, time::Duration};

use axum::extract::{Multipart, Request, multipart::Field};
use finetuned_dataset::check_reading;
use finetuned_protocol::lint::{FileLayout, ReadingSpec};
use finetuned_store::Caller;

use super::intake::{self, Intake, Sink};
use crate::{
    http::{
        error::{ApiError, Code},
        multipart::{self, Overhead},
    },
    state::App,
};

const MAX_TEXT_BYTES: usize = 16 << 10;
pub const MAX_FILENAME_BYTES: usize = 512;
/// How long, and how much, is read on after a refusal so that the client reads it instead of a broken connection.
const LINGER: Duration = Duration::from_secs(3);
pub const LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 3600..=2_592_000;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    FineTune,
    /// Kept and given back; nothing here reads it.
    Other(&'static str),
}

impl Purpose {
    const OTHERS: [&'static str; 5] = ["assistants", "batch", "vision", "user_data", "evals"];

    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text == "fine-tune" {
            return Ok(Self::FineTune);
        }
        let other = Self::OTHERS.into_iter().find(|other| *other == text);
        other.map(Self::Other).ok_or_else(|| {
            let others = Self::OTHERS.join("`, `");
            ApiError::invalid("purpose", format!("`purpose` must be `fine-tune`, `{others}`; it is `{text}`"))
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::FineTune => "fine-tune",
            Self::Other(text) => text,
        }
    }

    pub fn is_linted(self) -> bool {
        self == Self::FineTune
    }
}

/// A file that came in whole.
pub struct Form {
    pub filename: String,
    pub purpose: Purpose,
    pub expires_after: Option<Duration>,
    pub reading: ReadingSpec,
    pub intake: Intake,
}

#[derive(Default)]
struct Parts {
    file: Option<(String, Intake)>,
    purpose: Option<Purpose>,
    anchor: Option<String>,
    seconds: Option<String>,
    reading: Option<ReadingSpec>,
}

/// Reads the whole body; its file goes to the blob store as it comes.
///
/// # Errors
/// A 400 that names the field, a 413, or what keeps the bytes from being stored. Nothing visible is left then.
pub async fn receive(app: &App, caller: &Caller, request: Request) -> Result<Form, ApiError> {
    let (mut body, overhead) = multipart::open(request, "the fields `file` and `purpose`").await?;
    let parts = match read(app, caller, &mut body, &overhead).await {
        Ok(parts) => parts,
        Err(refusal) => {
            linger(&mut body, &overhead).await;
            return Err(refusal);
        }
    };
    let expires_after = lifetime(parts.anchor, parts.seconds)?;
    let (filename, intake) = parts.file.ok_or_else(|| missing("file"))?;
    let purpose = parts.purpose.ok_or_else(|| missing("purpose"))?;
    let reading = reading(&filename, parts.reading);
    Ok(Form { filename, purpose, expires_after, reading, intake })
}

fn missing(field: &str) -> ApiError {
    ApiError::new(Code::MissingParameter, format!("the form must have the field `{field}`")).param(field)
}

async fn read(app: &App, caller: &Caller, body: &mut Multipart, overhead: &Overhead) -> Result<Parts, ApiError> {
    let mut parts = Parts::default();
    while let Some(field) = intake::in_time(app, body.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        let repeated = match name.as_str() {
            "file" => {
                let filename = filename(&field)?;
                let lint = parts.purpose.is_none_or(Purpose::is_linted);
                let reading = lint.then(|| reading(&filename, parts.reading.clone()));
                if parts.file.is_some() {
                    return Err(given_twice("file"));
                }
                let sink = Sink::open(app, caller.tenant, reading).await?;
                let intake = intake::take(app, field, overhead, sink, app.options.max_upload_bytes).await?;
                parts.file.replace((filename, intake)).is_some()
            }
            "purpose" => parts.purpose.replace(Purpose::parse(&text(app, field).await?)?).is_some(),
            "reading" if parts.file.is_some() => {
                let message = "`reading` must come before `file`, whose rows are looked at while they come in";
                return Err(ApiError::invalid("reading", message));
            }
            "reading" => parts.reading.replace(parse_reading(&text(app, field).await?)?).is_some(),
            "expires_after[anchor]" => parts.anchor.replace(text(app, field).await?).is_some(),
            "expires_after[seconds]" => parts.seconds.replace(text(app, field).await?).is_some(),
            unknown => {
                let message = format!(
                    "unknown form field `{unknown}`; there are `file`, `purpose`, `reading`, \
                     `expires_after[anchor]` and `expires_after[seconds]`"
                );
                return Err(ApiError::new(Code::UnknownParameter, message).param(unknown));
            }
        };
        if repeated {
            return Err(given_twice(&name));
        }
    }
    Ok(parts)
}

fn parse_reading(text: &str) -> Result<ReadingSpec, ApiError> {
    let reading: ReadingSpec = serde_json::from_str(text)
        .map_err(|error| ApiError::invalid("reading", format!("`reading` is not valid: {error}")))?;
    check_reading("reading", &reading)?;
    Ok(reading)
}

/// What was asked for, and what the name of the file adds: text and CSV do not always show in their content.
pub fn reading(filename: &str, asked: Option<ReadingSpec>) -> ReadingSpec {
    let reading = asked.unwrap_or_default();
    let mut name = Path::new(filename);
    if name.extension().is_some_and(|extension| extension == "gz" || extension == "zst") {
        name = Path::new(name.file_stem().unwrap_or_default());
    }
    let layout = match name.extension().and_then(|extension| extension.to_str()) {
        Some("txt" | "md") => Some(FileLayout::Text),
        Some("csv" | "tsv") => Some(FileLayout::Csv),
        _ => None,
    };
    ReadingSpec { layout: reading.layout.or(layout), ..reading }
}

fn given_twice(name: &str) -> ApiError {
    ApiError::invalid(name, format!("the form field `{name}` is given more than once"))
}

/// A name that clients see again; it is never the name of anything on a disk here.
fn filename(field: &Field<'_>) -> Result<String, ApiError> {
    let name = field.file_name().filter(|name| !name.is_empty()).unwrap_or("upload");
    if name.len() > MAX_FILENAME_BYTES || name.contains('\0') {
        let message = format!("the filename must have at most {MAX_FILENAME_BYTES} bytes and no U+0000");
        return Err(ApiError::invalid("file", message));
    }
    Ok(name.to_owned())
}

async fn text(app: &App, mut field: Field<'_>) -> Result<String, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    while let Some(piece) = intake::in_time(app, field.chunk()).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(ApiError::invalid(name.clone(), format!("`{name}` is longer than {MAX_TEXT_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid(name.clone(), format!("`{name}` is not UTF-8")))
}

fn lifetime(anchor: Option<String>, seconds: Option<String>) -> Result<Option<Duration>, ApiError> {
    let (anchor, seconds) = match (anchor, seconds) {
        (None, None) => return Ok(None),
        (anchor, seconds) => (
            anchor.ok_or_else(|| missing("expires_after[anchor]"))?,
            seconds.ok_or_else(|| missing("expires_after[seconds]"))?,
        ),
    };
    if anchor != "created_at" {
        let message = format!("`expires_after[anchor]` must be `created_at`; it is `{anchor}`");
        return Err(ApiError::invalid("expires_after[anchor]", message));
    }
    match seconds.parse::<u64>() {
        Ok(seconds) if LIFETIME_SECONDS.contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
        _ => {
            let (low, high) = (LIFETIME_SECONDS.start(), LIFETIME_SECONDS.end());
            let message = format!("`expires_after[seconds]` must be between {low} and {high}; it is `{seconds}`");
            Err(ApiError::invalid("expires_after[seconds]", message))
        }
    }
}

/// Reads on after a refusal.
pub async fn linger(body: &mut Multipart, overhead: &Overhead) {
    let drained = async {
        while let Ok(Some(mut field)) = body.next_field().await {
            while let Ok(Some(piece)) = field.chunk().await {
                overhead.came_out(piece.len());
            }
        }
    };
    // Either the client has sent all, or it has had its time.
    let _ = tokio::time::timeout(LINGER, drained).await;
}
