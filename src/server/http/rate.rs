//! Requests a second of each tenant, counted by this process: a bucket that holds one second's worth (a burst of that
//! size passes) and fills at the tenant's rate.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use finetuned_protocol::ids::TenantId;

/// Buckets that are full again are forgotten beyond so many.
const MOST_BUCKETS: usize = 10_000;

#[derive(Debug, Default)]
pub struct Rates {
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    requests: f64,
    at: Instant,
}

impl Rates {
    /// Takes one request out of the tenant's bucket; how long to wait where it is empty.
    pub fn take(&self, tenant: TenantId, per_second: u32) -> Result<(), Duration> {
        self.take_at(tenant, per_second, Instant::now())
    }

    fn take_at(&self, tenant: TenantId, per_second: u32, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(per_second);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_BUCKETS {
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < Duration::from_secs(1));
        }
        let bucket = buckets.entry(tenant).or_insert(Bucket { requests: rate, at: now });
        let filled = bucket.requests + now.duration_since(bucket.at).as_secs_f64() * rate;
        *bucket = Bucket { requests: filled.min(rate), at: now };
        if bucket.requests < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.requests) / rate));
        }
        bucket.requests -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_burst_pass_and_fills_at_its_rate() {
        let (rates, start) = (Rates::default(), Instant::now());
        let (mine, other) = (TenantId::generate(), TenantId::generate());
        let passed = |at: Duration| (0..20).filter(|_| rates.take_at(mine, 5, start + at).is_ok()).count();
        assert_eq!(passed(Duration::ZERO), 5);
        assert_eq!(rates.take_at(mine, 5, start), Err(Duration::from_millis(200)));
        assert!(rates.take_at(other, 5, start).is_ok(), "one tenant's rush is not another's");
        assert_eq!(passed(Duration::from_millis(400)), 2);
        assert_eq!(passed(Duration::from_secs(60)), 5, "a rest does not save up");
    }
}
