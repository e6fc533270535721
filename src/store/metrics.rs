//! Series of numbers by step; where a step was repeated after a resume, the newer attempt's number stands.

use std::collections::BTreeMap;

use finetuned_protocol::{
    ids::{JobId, TenantId},
    metrics::TOKENS_PER_SECOND,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    convert::{count, int, small},
    jobs::require_job,
};

/// A number to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMetric {
    /// One of `finetuned_protocol::metrics`.
    pub name: String,
    pub step: u32,
    pub value: f64,
}

/// A number of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricPoint {
    pub step: u32,
    pub value: f64,
    pub time: OffsetDateTime,
}

/// Numbers of one name, by ascending step.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub points: Vec<MetricPoint>,
}

impl Store {
    /// The series of a job by name; all of them where `names` is empty.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn metrics(&self, tenant: TenantId, job: JobId, names: &[String]) -> Result<Vec<Series>, StoreError> {
        self.call("reading metrics", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let rows = sqlx::query!(
                "select name, step, value, recorded_at from metrics
                 where job_id = $1 and (cardinality($2::text[]) = 0 or name = any($2))
                 order by name, step",
                job.0,
                names,
            )
            .fetch_all(&mut *connection)
            .await?;
            let mut series: Vec<Series> = Vec::new();
            for row in rows {
                let point = MetricPoint { step: small(row.step), value: row.value, time: row.recorded_at };
                match series.last_mut() {
                    Some(last) if last.name == row.name => last.points.push(point),
                    _ => series.push(Series { name: row.name, points: vec![point] }),
                }
            }
            Ok(series)
        })
        .await
    }
}

/// How fast earlier jobs trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredSpeed {
    /// The median of their steps.
    pub tokens_per_second: f64,
    pub jobs: u64,
}

impl Store {
    /// What the tenant's succeeded jobs of a base model reached; `None` where there is none.
    ///
    /// # Errors
    /// The database.
    pub async fn measured_speed(
        &self,
        tenant: TenantId,
        base_model: &str,
    ) -> Result<Option<MeasuredSpeed>, StoreError> {
        self.call("reading the speed of earlier jobs", async {
            let row = sqlx::query!(
                r#"select percentile_cont(0.5) within group (order by m.value) as speed,
                          count(distinct j.id) as "jobs!"
                   from jobs j join metrics m on m.job_id = j.id
                   where j.tenant_id = $1 and j.base_model = $2 and j.status = 'succeeded' and m.name = $3"#,
                tenant.0,
                base_model,
                TOKENS_PER_SECOND,
            );
            let row = row.fetch_one(self.pool()).await?;
            Ok(row.speed.map(|tokens_per_second| MeasuredSpeed { tokens_per_second, jobs: count(row.jobs) }))
        })
        .await
    }
}

/// Writes numbers of an attempt; where a later attempt wrote the step before, its number stands.
pub(crate) async fn upsert(
    tx: &mut PgConnection,
    (tenant, job): (Uuid, Uuid),
    epoch: i64,
    metrics: &[NewMetric],
) -> Result<(), StoreError> {
    if metrics.is_empty() {
        return Ok(());
    }
    // One statement cannot write a row twice; the last number given for a step is the one meant.
    let newest: BTreeMap<(&str, u32), f64> =
        metrics.iter().map(|metric| ((metric.name.as_str(), metric.step), metric.value)).collect();
    let names: Vec<String> = newest.keys().map(|(name, _)| (*name).to_owned()).collect();
    let steps: Vec<i32> = newest.keys().map(|(_, step)| int(*step)).collect();
    let values: Vec<f64> = newest.into_values().collect();
    sqlx::query!(
        "insert into metrics (job_id, tenant_id, epoch, name, step, value)
         select $1, $2, $3, m.* from unnest($4::text[], $5::integer[], $6::double precision[]) m
         on conflict (job_id, name, step) do update
             set value = excluded.value, epoch = excluded.epoch, recorded_at = now()
             where metrics.epoch <= excluded.epoch",
        job,
        tenant,
        epoch,
        &names,
        &steps,
        &values,
    )
    .execute(tx)
    .await?;
    Ok(())
}
