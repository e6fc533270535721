//! What an organisation used, in buckets of time.

use finetuned_protocol::ids::{JobId, ProjectId, TenantId};
use time::OffsetDateTime;

use crate::{
    Store, StoreError,
    convert::{count, int},
};

/// Which jobs count: those of the organisation's projects that ended in the span.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageSpan {
    /// Inclusive.
    pub start: OffsetDateTime,
    pub bucket_seconds: u32,
    pub buckets: u32,
    /// `None` for all projects.
    pub projects: Option<Vec<ProjectId>>,
}

/// What has a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageGroups {
    pub by_project: bool,
    pub by_job: bool,
    pub by_model: bool,
}

/// One line of usage.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Counted from the start of the span.
    pub bucket: u32,
    pub project: Option<ProjectId>,
    pub job: Option<JobId>,
    /// The base model.
    pub model: Option<String>,
    pub jobs: u64,
    pub trained_tokens: u64,
    /// From the first start of the training to the end.
    pub training_seconds: f64,
}

impl Store {
    /// Sums by bucket and group; what has no job has no line.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn usage(
        &self,
        organization: TenantId,
        span: &UsageSpan,
        groups: UsageGroups,
    ) -> Result<Vec<Usage>, StoreError> {
        let projects = span.projects.as_ref().map(|projects| projects.iter().map(|id| id.0).collect::<Vec<_>>());
        self.call("summing usage", async {
            let rows = sqlx::query!(
                r#"with counted as (
                       select floor(extract(epoch from j.finished_at - $2)::float8 / $3::int)::int as bucket,
                              case when $5 then j.tenant_id end as project,
                              case when $6 then j.id end as job,
                              case when $7 then j.base_model end as model,
                              coalesce(j.trained_tokens, 0) as tokens,
                              coalesce(extract(epoch from j.finished_at - j.started_at), 0)::float8 as seconds
                       from jobs j join tenants n on n.id = j.tenant_id
                       where (n.id = $1 or n.organization_id = $1)
                         and j.finished_at >= $2
                         and j.finished_at < $2 + make_interval(secs => $3::int::float8 * $4::int)
                         and ($8::uuid[] is null or n.id = any($8))
                   )
                   select bucket as "bucket!", project as "project?", job as "job?", model as "model?",
                          count(*) as "jobs!", sum(tokens)::bigint as "tokens!", sum(seconds)::float8 as "seconds!"
                   from counted
                   group by bucket, project, job, model
                   order by bucket, project, job, model"#,
                organization.0,
                span.start,
                int(span.bucket_seconds),
                int(span.buckets),
                groups.by_project,
                groups.by_job,
                groups.by_model,
                projects.as_deref(),
            );
            let lines = rows.fetch_all(self.pool()).await?.into_iter().map(|row| Usage {
                bucket: crate::convert::small(row.bucket),
                project: row.project.map(ProjectId),
                job: row.job.map(JobId),
                model: row.model,
                jobs: count(row.jobs),
                trained_tokens: count(row.tokens),
                training_seconds: row.seconds,
            });
            Ok(lines.collect())
        })
        .await
    }
}
