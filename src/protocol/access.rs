//! What an API key may do.

use crate::status::named_enum;

named_enum!(
    /// Each scope stands for itself: a key has those that it was made with.
    Scope, "scope" {
        /// See files, jobs, models and what came of them.
        Read = "read",
        /// Make, change and delete them.
        Write = "write",
        /// Rate answers of a job's evaluation, without being able to change the job.
        Rate = "rate",
        /// Manage what reaches beyond one object, such as webhook endpoints.
        Admin = "admin",
    }
);
