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
    /// How many are recorded of those that were asked for; more than `points` where the series was thinned out.
    pub recorded: u64,
}

/// Which numbers of a job are read.
#[derive(Debug, Clone, Copy)]
pub struct MetricQuery<'a> {
    /// All names where empty.
    pub names: &'a [String],
    pub from_step: u32,
    /// Inclusive.
    pub to_step: u32,
    /// Most points of a series, at least 4; `None` for all. A series of more is thinned out: its first and last point
    /// stay, and of each of equally many points between them the lowest and the highest.
    pub max_points: Option<u32>,
}

impl MetricQuery<'static> {
    pub const ALL: Self = Self { names: &[], from_step: 0, to_step: u32::MAX, max_points: None };
}

impl Store {
    /// Series of a job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn metrics(
        &self,
        tenant: TenantId,
        job: JobId,
        query: MetricQuery<'_>,
    ) -> Result<Vec<Series>, StoreError> {
        let MetricQuery { names, from_step, to_step, max_points } = query;
        // Two of each bucket, and the ends.
        let buckets = max_points.map_or(i32::MAX, |most| int(most.saturating_sub(2) / 2).max(1));
        self.call("reading metrics", async {
            let mut connection = self.pool().acquire().await?;
            require_job(&mut connection, tenant, job).await?;
            let rows = sqlx::query!(
                r#"with chosen as (
                       select name, step, value, recorded_at, count(*) over (partition by name) as recorded,
                              row_number() over (partition by name order by step) as place,
                              ntile($6) over (partition by name order by step) as bucket
                       from metrics
                       where job_id = $1 and (cardinality($2::text[]) = 0 or name = any($2)) and step between $3 and $4
                   ),
                   ranked as (
                       select name, step, value, recorded_at, recorded, place,
                              row_number() over (partition by name, bucket order by value, step) as from_lowest,
                              row_number() over (partition by name, bucket order by value desc, step) as from_highest
                       from chosen
                   )
                   select name, step, value, recorded_at, recorded as "recorded!"
                   from ranked
                   where recorded <= $5 or place in (1, recorded) or from_lowest = 1 or from_highest = 1
                   order by name, step"#,
                job.0,
                names,
                int(from_step),
                int(to_step),
                max_points.map_or(i64::MAX, i64::from),
                buckets,
            )
            .fetch_all(&mut *connection)
            .await?;
            let mut series: Vec<Series> = Vec::new();
            for row in rows {
                let point = MetricPoint { step: small(row.step), value: row.value, time: row.recorded_at };
                match series.last_mut() {
                    Some(last) if last.name == row.name => last.points.push(point),
                    _ => series.push(Series { name: row.name, points: vec![point], recorded: count(row.recorded) }),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Report,
        testing::{TestDatabase, fixtures},
    };

    #[tokio::test]
    async fn a_thinned_series_keeps_its_ends_and_every_peak() {
        let database = TestDatabase::create().await.unwrap();
        let store = &database.store;
        let tenant = fixtures::tenant(store, "acme").await.unwrap();
        let worker = fixtures::worker(store).await.unwrap();
        let lease = fixtures::training(store, tenant, &worker).await.unwrap();
        let value = |step: u32| match step {
            333 => 100.0,
            777 => -100.0,
            step => f64::from(step % 7),
        };
        let new = |name: &str, step: u32| NewMetric { name: name.to_owned(), step, value: value(step) };
        let mut metrics: Vec<NewMetric> = (1..=1000).map(|step| new("train_loss", step)).collect();
        metrics.extend((1..=20).map(|step| new("valid_loss", step)));
        store.report(&lease.key, &Report { metrics, ..Report::default() }).await.unwrap();
        let read = async |query: MetricQuery<'_>| store.metrics(tenant, lease.job.id, query).await.unwrap();

        for most in [4, 5, 50, 333, 999] {
            let found = read(MetricQuery { max_points: Some(most), ..MetricQuery::ALL }).await;
            let steps: Vec<u32> = found[0].points.iter().map(|point| point.step).collect();
            assert!(steps.len() <= most as usize && steps.len() * 3 > most as usize, "{} of {most}", steps.len());
            assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
            for kept in [1, 333, 777, 1000] {
                assert!(steps.contains(&kept), "step {kept} of {most}");
            }
            assert!(found[0].points.iter().all(|point| point.value == value(point.step)));
            assert_eq!((found[0].recorded, found[1].recorded), (1000, 20), "each series by itself");
            assert!(most < 50 || found[1].points.len() == 20);
        }
        let whole = read(MetricQuery { max_points: Some(1000), ..MetricQuery::ALL }).await;
        assert_eq!(whole[0].points.len(), 1000);
        let part = read(MetricQuery { from_step: 10, to_step: 12, ..MetricQuery::ALL }).await;
        assert_eq!(part[0].points.iter().map(|point| point.step).collect::<Vec<_>>(), [10, 11, 12]);
        assert_eq!(part[0].recorded, 3);
    }
}
