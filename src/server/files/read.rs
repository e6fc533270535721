//! `GET /v1/files`, `GET` and `DELETE /v1/files/{file_id}`

use axum::{Json, extract::State};
use finetuned_protocol::ids::FileId;
use finetuned_store::{FileOrder, FilePage};
use utoipa::IntoParams;

use super::wire::{FileDeleted, FileObject};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        paging::ListPage,
        path::Id,
        query::{Fields, FromQuery, NoParameters, Query},
    },
    state::App,
};

/// Which files to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub struct FileListParams {
    /// Only files of this purpose.
    purpose: Option<String>,
    /// `last_id` of the page before.
    after: Option<String>,
    /// 1 to 10000; default 10000.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// `asc` or `desc` (default) by creation.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
}

impl FromQuery for FilePage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let order = match fields.take("order")?.as_deref() {
            None | Some("desc") => FileOrder::NewestFirst,
            Some("asc") => FileOrder::OldestFirst,
            Some(_) => return Err(ApiError::invalid("order", "`order` must be `asc` or `desc`")),
        };
        Ok(Self {
            purpose: fields.take("purpose")?,
            after: fields.take_parsed("after")?,
            limit: fields.take_number("limit", 10_000, 1..=10_000)?,
            order,
        })
    }
}

/// List files.
#[utoipa::path(
    get, path = "/v1/files", tag = "files", params(FileListParams),
    responses((status = 200, body = ListPage<FileObject>), (status = 400, body = ErrorResponse)),
)]
pub async fn list_files(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(page): Query<FilePage>,
) -> Result<Json<ListPage<FileObject>>, ApiError> {
    let page = app.store.list_files(caller.tenant, &page).await?;
    let mut list = ListPage::new(page.data.into_iter().map(FileObject::from).collect(), page.has_more);
    // The published specification wants a text here even where there is no file.
    list.first_id.get_or_insert_default();
    list.last_id.get_or_insert_default();
    Ok(Json(list))
}

/// Read a file's description.
#[utoipa::path(
    get, path = "/v1/files/{file_id}", tag = "files",
    params(("file_id" = String, Path)),
    responses((status = 200, body = FileObject), (status = 404, body = ErrorResponse)),
)]
pub async fn get_file(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<FileObject>, ApiError> {
    let file = found(app.store.get_file(caller.tenant, id).await, "file", id)?;
    Ok(Json(FileObject::from(file)))
}

/// Delete a file. Jobs made from it go on.
#[utoipa::path(
    delete, path = "/v1/files/{file_id}", tag = "files",
    params(("file_id" = String, Path)),
    responses((status = 200, body = FileDeleted), (status = 404, body = ErrorResponse)),
)]
pub async fn delete_file(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<FileId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<FileDeleted>, ApiError> {
    found(app.store.delete_file(caller.tenant, id).await, "file", id)?;
    Ok(Json(FileDeleted { id, object: "file", deleted: true }))
}
