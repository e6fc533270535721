//! `/v1/files`

mod content;
mod create;
mod diff;
mod edits;
pub mod form;
pub mod intake;
mod lint_report;
mod linting;
mod made;
mod model_lint;
mod read;
mod rows;
mod statistics;
mod versions;
pub mod wire;

pub use content::{__path_get_file_content, get_file_content};
pub use create::{__path_create_file, create_file, judged};
pub use diff::{__path_get_file_diff, get_file_diff};
pub use lint_report::{
    __path_get_file_findings, __path_get_file_lint, first_findings, get_file_findings, get_file_lint,
};
pub use made::keep_rows;
pub use read::{__path_delete_file, __path_get_file, __path_list_files, delete_file, get_file, list_files};
pub use rows::{__path_get_file_row, get_file_row};
pub use statistics::{__path_get_file_statistics, get_file_statistics};
pub use versions::{__path_create_file_version, create_file_version};
