//! `GET /v1/files/{file_id}/statistics`: tokens of a file's rows.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use finetuned_dataset::{PrepareError, token_statistics};
use finetuned_protocol::{ids::FileId, inspection::TokenStatistics};
use utoipa::IntoParams;

use super::rows::{ModelView, Viewer};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        path::Id,
        query::{Fields, FromQuery, Query},
    },
    scratch::Scratch,
    state::App,
};

/// Longest time for the rows that are asked for.
const LONGEST: Duration = Duration::from_secs(300);

/// How many rows.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SampleSize {
    /// The first rows of the file, 1 to 1000000; default 20000.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    rows: u32,
}

/// Both sets of parameters.
pub struct Both(SampleSize, ModelView);

impl FromQuery for Both {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let rows = fields.take_number("rows", 20_000, 1..=1_000_000)?;
        Ok(Self(SampleSize { rows }, ModelView::from_query(fields)?))
    }
}

/// How many tokens the rows of a file have for a model, and what a length would cut off.
#[utoipa::path(
    get, path = "/v1/files/{file_id}/statistics", tag = "files",
    params(("file_id" = String, Path), SampleSize, ModelView),
    responses(
        (status = 200, body = TokenStatistics),
        (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn get_file_statistics(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(Both(sample, view)): Query<Both>,
) -> Result<Json<TokenStatistics>, ApiError> {
    let _place = app.upload_place().await?;
    let Viewer { file, spec, tokenizer } = view.open(&app, &caller, id).await?;
    let scratch = Scratch::new()?;
    let path = scratch.fetch(&app, &file, "rows").await?;
    let until = Instant::now() + LONGEST;
    let count = move || {
        let _scratch = scratch;
        let mut go_on = || if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        token_statistics(&spec, (&path, &file.reading), &tokenizer, sample.rows.into(), &mut go_on)
    };
    match tokio::task::spawn_blocking(count).await.map_err(ApiError::internal)? {
        Ok(statistics) => Ok(Json(statistics)),
        Err(PrepareError::Cancelled) => {
            let seconds = LONGEST.as_secs();
            Err(ApiError::invalid("rows", format!("so many rows take more than {seconds} seconds; ask for fewer")))
        }
        Err(error) => Err(ApiError::internal(error)),
    }
}
