//! `/v1/organization/projects`

use axum::{Json, extract::State};
use finetuned_protocol::ids::ProjectId;
use finetuned_store::{Project, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, Code, ErrorResponse},
        found,
        paging::{ListPage, Listed},
        path::{Id, PathId},
        query::{Fields, FromQuery, NoParameters, Query},
    },
    state::App,
};

const MAX_NAME_CHARACTERS: usize = 64;

impl PathId for ProjectId {
    const KIND: &'static str = "project";
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// Lower-case letters, digits and `-`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9-]+$")]
    pub name: String,
}

/// A project: files, jobs and models that no other project sees.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectObject {
    #[schema(value_type = String)]
    pub id: ProjectId,
    /// Always `organization.project`.
    pub object: &'static str,
    /// `ORGANISATION.NAME`, or that of the organisation for its first one.
    pub name: String,
    pub created_at: i64,
    /// Always `active`.
    pub status: &'static str,
}

impl From<Project> for ProjectObject {
    fn from(Project { id, name, created_at }: Project) -> Self {
        Self { id, object: "organization.project", name, created_at: created_at.unix_timestamp(), status: "active" }
    }
}

impl Listed for ProjectObject {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// Which projects to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ProjectPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<ProjectId>,
    /// 1 to 100; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    limit: u32,
}

impl FromQuery for ProjectPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=100)? })
    }
}

/// Make a project of the organisation. `finetuned keys create` makes keys for it; a key of the organisation acts for it
/// with the header `OpenAI-Project`.
#[utoipa::path(
    post, path = "/v1/organization/projects", tag = "organization", request_body = CreateProject,
    responses(
        (status = 200, body = ProjectObject), (status = 400, body = ErrorResponse),
        (status = 403, body = ErrorResponse, description = "The key is not the organisation's"),
    ),
)]
pub async fn create_project(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(CreateProject { name }): JsonBody<CreateProject>,
) -> Result<Json<ProjectObject>, ApiError> {
    check_name(&name)?;
    let made = app.store.create_project(caller.tenant, &name).await.map_err(|error| match error {
        StoreError::NotFound { .. } => ApiError::new(
            Code::InsufficientScope,
            "this needs a key of the organisation, and yours is one of a project; a project has no projects",
        ),
        error => error.into(),
    })?;
    Ok(Json(made.into()))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME_CHARACTERS).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!("`name` must be 1 to {MAX_NAME_CHARACTERS} lower-case letters, digits and `-`");
    Err(ApiError::invalid("name", message))
}

/// List the organisation's projects, newest first; its first one, which it began with, comes last.
#[utoipa::path(
    get, path = "/v1/organization/projects", tag = "organization", params(ProjectPage),
    responses((status = 200, body = ListPage<ProjectObject>), (status = 400, body = ErrorResponse)),
)]
pub async fn list_projects(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(ProjectPage { after, limit }): Query<ProjectPage>,
) -> Result<Json<ListPage<ProjectObject>>, ApiError> {
    let page = app.store.projects(caller.tenant, after, limit).await?;
    Ok(Json(ListPage::new(page.data.into_iter().map(Into::into).collect(), page.has_more)))
}

/// Read a project.
#[utoipa::path(
    get, path = "/v1/organization/projects/{project_id}", tag = "organization",
    params(("project_id" = String, Path)),
    responses((status = 200, body = ProjectObject), (status = 404, body = ErrorResponse)),
)]
pub async fn get_project(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<ProjectId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<ProjectObject>, ApiError> {
    Ok(Json(found(app.store.get_project(caller.tenant, id).await, ProjectId::KIND, id)?.into()))
}
