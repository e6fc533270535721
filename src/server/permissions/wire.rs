//! Permissions as clients see and send them.

use finetuned_protocol::ids::{PermissionId, ProjectId};
use finetuned_store::{Permission, PermissionPage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::{
    error::ApiError,
    paging::Listed,
    query::{Fields, FromQuery},
};

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePermissions {
    /// Projects of the same organisation.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 100)]
    pub project_ids: Vec<ProjectId>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointPermission {
    #[schema(value_type = String)]
    pub id: PermissionId,
    /// Always `checkpoint.permission`.
    pub object: &'static str,
    pub created_at: i64,
    #[schema(value_type = String)]
    pub project_id: ProjectId,
}

impl From<Permission> for CheckpointPermission {
    fn from(permission: Permission) -> Self {
        let Permission { id, project, created_at } = permission;
        Self {
            id,
            object: "checkpoint.permission",
            created_at: created_at.unix_timestamp(),
            project_id: project.into(),
        }
    }
}

impl Listed for CheckpointPermission {
    fn id(&self) -> String {
        self.id.to_string()
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CheckpointPermissionDeleted {
    #[schema(value_type = String)]
    pub id: PermissionId,
    /// Always `checkpoint.permission`.
    pub object: &'static str,
    pub deleted: bool,
}

/// Which permissions to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub struct PermissionListParams {
    /// Those of one project.
    project_id: Option<String>,
    /// `last_id` of the page before.
    after: Option<String>,
    /// 1 to 100; default 10.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `ascending` or `descending` by creation; default `descending`.
    #[param(pattern = "^(ascending|descending)$")]
    order: Option<String>,
}

impl FromQuery for PermissionPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        let oldest_first = match fields.take("order")?.as_deref() {
            None | Some("descending") => false,
            Some("ascending") => true,
            Some(other) => {
                let message = format!("`order` must be `ascending` or `descending`; it is `{other}`");
                return Err(ApiError::invalid("order", message));
            }
        };
        Ok(Self {
            project: fields.take_parsed::<ProjectId>("project_id")?.map(Into::into),
            after: fields.take_parsed("after")?,
            limit: fields.take_number("limit", 10, 1..=100)?,
            oldest_first,
        })
    }
}
