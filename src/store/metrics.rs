//! Series of numbers by step; where a step was repeated after a resume, the newer attempt's number stands.

use std::collections::BTreeMap;

use finetuned_protocol::ids::{JobId, TenantId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    convert::{int, small},
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
