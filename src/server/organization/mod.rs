//! `/v1/organization`: what reaches beyond one object. A key of the organisation sees all of its projects, a key of a
//! project sees that one.

mod audit_logs;
mod limits;
mod projects;
mod usage;

pub use audit_logs::{__path_list_audit_logs, list_audit_logs};
pub use limits::{__path_get_limits, get_limits};
pub use projects::{
    __path_create_project, __path_get_project, __path_list_projects, create_project, get_project, list_projects,
};
pub use usage::{__path_get_usage, get_usage};
