//! Where a job stands among those that wait for a worker, and when it is likely to start and to end.
//!
//! The order is that of claims (`tasks/claim.rs`): turns between tenants by virtual time, and within a tenant by priority
//! and time. Times are what jobs lately took, in proportion to their estimates.

use std::{collections::HashMap, time::Duration};

use finetuned_protocol::{
    ids::{JobId, TenantId},
    status::JobStatus,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Job;
use crate::{StoreError, convert::count};

/// Where a job that waits or runs stands; foreseen from what is so at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1; `None` once it runs.
    pub position: Option<u64>,
    /// Until it starts; `None` once it runs, and where no worker is alive.
    pub starts_in_seconds: Option<u64>,
    /// Until it ends.
    pub finishes_in_seconds: Option<u64>,
}

/// A tenant whose trainings wait.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Waiting {
    tenant: Uuid,
    weight: f64,
    tasks: u64,
    /// Virtual time at which its next task's turn is.
    tag: f64,
}

/// How fast trainings go.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Speed {
    workers: u64,
    /// Seconds that a job lately took, for each second of its estimate.
    ratio: f64,
    /// Of the waiting trainings' estimates.
    mean_estimate_seconds: f64,
    /// Of all trainings that run now, added up.
    running_seconds_left: f64,
}

/// Fills in the places of those jobs of the tenant that wait for a training or run one.
pub(crate) async fn find_places(
    connection: &mut PgConnection,
    tenant: TenantId,
    jobs: &mut [Job],
    expiry: Duration,
) -> Result<(), StoreError> {
    let waits = |job: &Job| job.status == JobStatus::Queued && !job.paused;
    let runs = |job: &Job| job.status == JobStatus::Running;
    if !jobs.iter().any(|job| waits(job) || runs(job)) {
        return Ok(());
    }
    let speed = speed(connection, expiry).await?;
    let ids: Vec<Uuid> = jobs.iter().filter(|job| waits(job)).map(|job| job.id.0).collect();
    let ranks = ranks(connection, tenant, &ids).await?;
    let line = if ranks.is_empty() { Vec::new() } else { line(connection).await? };
    for job in jobs {
        let estimate = job.estimate.as_ref().map(|estimate| estimate.seconds as f64 * speed.ratio);
        let progress = job.progress.as_ref().filter(|progress| progress.total_steps > 0);
        let undone = progress.map_or(1.0, |progress| 1.0 - f64::from(progress.step) / f64::from(progress.total_steps));
        let own = estimate.map(|seconds| seconds * undone.clamp(0.0, 1.0));
        if runs(job) {
            let measured = job.progress.as_ref().and_then(|progress| progress.remaining_seconds);
            let finishes_in_seconds = measured.or(own.map(whole));
            job.line = Some(Place { position: None, starts_in_seconds: None, finishes_in_seconds });
        } else if let Some(rank) = ranks.get(&job.id) {
            job.line = Some(foresee(position(tenant.0, *rank, &line), own, &speed));
        }
    }
    Ok(())
}

fn whole(seconds: f64) -> u64 {
    seconds.max(0.0).ceil() as u64
}

/// Tasks that start before and with the tenant's `rank`-th: its own, and of each other tenant those whose turn in virtual
/// time comes first.
fn position(tenant: Uuid, rank: u64, line: &[Waiting]) -> u64 {
    let Some(own) = line.iter().find(|waiting| waiting.tenant == tenant) else { return rank };
    let turn = own.tag + (rank.max(1) - 1) as f64 / own.weight;
    let before = |other: &Waiting| {
        // The k-th of theirs, counted from 0, has its turn at `tag + k / weight`; equal turns go by tenant.
        let turns = (turn - other.tag) * other.weight;
        let tied = other.tenant < tenant && turns >= 0.0 && turns.fract() == 0.0;
        (turns.max(0.0).ceil() as u64 + u64::from(tied)).min(other.tasks)
    };
    rank + line.iter().filter(|waiting| waiting.tenant != tenant).map(before).sum::<u64>()
}

fn foresee(position: u64, own_seconds: Option<f64>, speed: &Speed) -> Place {
    let ahead = position.saturating_sub(1) as f64 * speed.mean_estimate_seconds * speed.ratio;
    let starts = (speed.workers > 0).then(|| (speed.running_seconds_left + ahead) / speed.workers as f64);
    Place {
        position: Some(position),
        starts_in_seconds: starts.map(whole),
        finishes_in_seconds: starts.zip(own_seconds).map(|(starts, own)| whole(starts + own)),
    }
}

/// Places within the tenant, counted from 1.
async fn ranks(
    connection: &mut PgConnection,
    tenant: TenantId,
    jobs: &[Uuid],
) -> Result<HashMap<JobId, u64>, StoreError> {
    let rows = sqlx::query!(
        r#"select job_id, place as "place!"
           from (
               select job_id, row_number() over (order by priority desc, queued_at, id) as place
               from tasks where tenant_id = $1 and state = 'queued' and kind = 'train'
           ) line
           where job_id = any($2)"#,
        tenant.0,
        jobs,
    );
    let rows = rows.fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (JobId(row.job_id), count(row.place))).collect())
}

async fn line(connection: &mut PgConnection) -> Result<Vec<Waiting>, StoreError> {
    let rows = sqlx::query!(
        r#"select n.id, n.weight, q.tasks as "tasks!", greatest(clock.virtual_time, s.finish_tag) as "tag!"
           from (
               select tenant_id, count(*) as tasks from tasks where state = 'queued' and kind = 'train' group by tenant_id
           ) q
           join tenants n on n.id = q.tenant_id
           cross join (select coalesce(max(start_tag), 0) as virtual_time from tenant_shares) clock
           left join tenant_shares s on s.tenant_id = q.tenant_id"#
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    let waiting = rows.map(|row| Waiting { tenant: row.id, weight: row.weight, tasks: count(row.tasks), tag: row.tag });
    Ok(waiting.collect())
}

async fn speed(connection: &mut PgConnection, expiry: Duration) -> Result<Speed, StoreError> {
    let row = sqlx::query!(
        r#"with lately as (
               select extract(epoch from finished_at - started_at)::float8
                          / greatest((estimate->>'seconds')::float8, 1) as ratio
               from (
                   select status, finished_at, started_at, estimate from jobs
                   where finished_at is not null order by finished_at desc limit 50
               ) newest
               where status = 'succeeded' and estimate is not null
           ),
           speed as (select coalesce(percentile_cont(0.5) within group (order by ratio), 1) as ratio from lately)
           select speed.ratio as "ratio!",
                  (select count(*) from workers where seen_at > now() - make_interval(secs => $1)) as "workers!",
                  coalesce((
                      select avg((j.estimate->>'seconds')::float8)
                      from (select job_id from tasks where state = 'queued' and kind = 'train' limit 200) t
                      join jobs j on j.id = t.job_id
                  ), 0) as "mean!",
                  coalesce((
                      select sum(coalesce((l.progress->>'remaining_seconds')::float8,
                                          (j.estimate->>'seconds')::float8 * speed.ratio))
                      from tasks t join jobs j on j.id = t.job_id join job_live l on l.job_id = t.job_id
                      where t.state = 'running' and t.kind = 'train'
                  ), 0) as "left!"
           from speed"#,
        expiry.as_secs_f64(),
    )
    .fetch_one(connection)
    .await?;
    Ok(Speed {
        workers: count(row.workers),
        ratio: row.ratio,
        mean_estimate_seconds: row.mean,
        running_seconds_left: row.left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(tenant: u128, weight: f64, tasks: u64, tag: f64) -> Waiting {
        Waiting { tenant: Uuid::from_u128(tenant), weight, tasks, tag }
    }

    #[test]
    fn a_place_counts_own_jobs_and_the_turns_of_others() {
        let one = Uuid::from_u128(1);
        let two = Uuid::from_u128(2);
        let line = [waiting(1, 1.0, 10_000, 0.0), waiting(2, 1.0, 1, 0.0)];
        // Turns alternate; at equal turns the lower id goes first.
        assert_eq!((position(one, 1, &line), position(two, 1, &line), position(one, 2, &line)), (1, 2, 3));
        assert_eq!(position(one, 10_000, &line), 10_001, "the other has only one");
        // A weight of two is two turns for one of the other.
        let line = [waiting(1, 2.0, 100, 0.0), waiting(2, 1.0, 100, 0.0)];
        assert_eq!([1, 2, 3].map(|rank| position(one, rank, &line)), [1, 3, 4]);
        assert_eq!([1, 2].map(|rank| position(two, rank, &line)), [2, 5]);
        // Somebody whose share is used up comes later.
        let line = [waiting(1, 1.0, 5, 3.0), waiting(2, 1.0, 2, 0.0)];
        assert_eq!(position(one, 1, &line), 3);
        assert_eq!(position(one, 4, &[]), 4);
    }

    #[test]
    fn a_start_is_foreseen_from_what_jobs_took() {
        let speed = Speed { workers: 2, ratio: 3.0, mean_estimate_seconds: 10.0, running_seconds_left: 20.0 };
        let place = foresee(3, Some(15.0), &speed);
        assert_eq!((place.starts_in_seconds, place.finishes_in_seconds), (Some(40), Some(55)));
        let nobody = foresee(3, Some(15.0), &Speed { workers: 0, ..speed });
        assert_eq!((nobody.position, nobody.starts_in_seconds, nobody.finishes_in_seconds), (Some(3), None, None));
    }
}
