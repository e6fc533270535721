//! What requests to models are answered with, and by whom.

use finetuned_protocol::{
    export::is_of_the_adapter,
    ids::{JobId, TenantId, WorkerId},
    precision::BasePrecision,
    serving::ServedCheckpoint,
    tuning::TuningSpec,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{BaseModel, Job, Model, Store, StoreError, StoredFile, checkpoints::fetch, convert::int};

/// Stands between a tuned model's name and a step in the name of a checkpoint.
const CHECKPOINT: &str = ":ckpt-step-";

/// A worker that answers.
#[derive(Debug, Clone)]
pub struct ServingEndpoint {
    pub worker: WorkerId,
    /// Such as `http://127.0.0.1:40001`.
    pub url: String,
    pub secret: SecretString,
}

/// What a model's name stands for when it is asked something.
#[derive(Debug, Clone)]
pub struct ServedModel {
    pub base: BaseModel,
    /// How the base's weights were stored when the adapter was trained, and are to be stored now.
    pub precision: BasePrecision,
    pub weights: ServedWeights,
}

/// What stands on a base model, or in its place.
#[derive(Debug, Clone)]
pub enum ServedWeights {
    Base,
    /// Files in peft's layout.
    Adapter {
        key: String,
        files: Vec<StoredFile>,
    },
    /// Files of a checkpoint, with what they are nothing without.
    Checkpoint {
        key: String,
        files: Vec<StoredFile>,
        meaning: Box<ServedCheckpoint>,
    },
    /// Files of a whole model that was trained itself.
    Whole {
        key: String,
        files: Vec<StoredFile>,
    },
}

impl Store {
    /// Says where a worker answers; to be called about once a heartbeat.
    ///
    /// # Errors
    /// The worker is not registered, or the store's.
    pub async fn announce_serving(&self, endpoint: &ServingEndpoint) -> Result<(), StoreError> {
        self.call("announcing where a worker answers", async {
            sqlx::query!(
                "insert into serving_endpoints as known (worker_id, url, secret) values ($1, $2, $3)
                 on conflict (worker_id) do update set url = excluded.url, secret = excluded.secret
                 where (known.url, known.secret) is distinct from (excluded.url, excluded.secret)",
                endpoint.worker.0,
                endpoint.url,
                endpoint.secret.expose_secret(),
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    /// Living workers that answer and have the base model of this hash.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn serving_endpoints(&self, base_model_sha256: &str) -> Result<Vec<ServingEndpoint>, StoreError> {
        self.call("looking for workers that answer", async {
            let rows = sqlx::query!(
                "select e.worker_id, e.url, e.secret
                 from serving_endpoints e join workers w on w.id = e.worker_id
                 where w.seen_at > now() - make_interval(secs => $2) and $1 = any(w.models)
                 order by e.worker_id",
                base_model_sha256,
                self.timings().expiry.as_secs_f64(),
            );
            let rows = rows.fetch_all(self.pool()).await?.into_iter().map(|row| ServingEndpoint {
                worker: WorkerId(row.worker_id),
                url: row.url,
                secret: SecretString::from(row.secret),
            });
            Ok(rows.collect())
        })
        .await
    }

    /// What a name stands for: a base model, a tuned one of the tenant, or a checkpoint of one of its jobs.
    ///
    /// # Errors
    /// `NotFound { what: "model" }`.
    pub async fn served_model(&self, tenant: TenantId, name: &str) -> Result<ServedModel, StoreError> {
        if let Some((tuned, step)) = name.rsplit_once(CHECKPOINT)
            && let Ok(step) = step.parse::<u32>()
        {
            return self.served_checkpoint(tenant, tuned, step).await;
        }
        let job = match self.get_model(tenant, name).await? {
            Model::Base(base) => {
                return Ok(ServedModel { base, precision: BasePrecision::Auto, weights: ServedWeights::Base });
            }
            Model::Tuned(tuned) => self.get_job(tenant, tuned.job).await?,
        };
        let mut files = self.artifacts(tenant, job.id).await?;
        files.retain(|file| is_of_the_adapter(&file.name));
        let key = job.id.to_string();
        let spec = job.effective.as_ref();
        let weights = match spec.map(|spec| &spec.tuning) {
            Some(TuningSpec::Full { .. }) => ServedWeights::Whole { key, files },
            _ => ServedWeights::Adapter { key, files },
        };
        let precision = spec.map_or(BasePrecision::Auto, |spec| spec.base_precision);
        Ok(ServedModel { base: self.base_of(&job).await?, precision, weights })
    }

    async fn served_checkpoint(&self, tenant: TenantId, tuned: &str, step: u32) -> Result<ServedModel, StoreError> {
        let missing = StoreError::NotFound { what: "model" };
        let Some(job) = self.job_called(tenant, tuned).await? else { return Err(missing) };
        let (Some(spec), true) = (&job.effective, step < i32::MAX as u32) else { return Err(missing) };
        let TuningSpec::Adapter(adapter) = &spec.tuning else {
            return Err(StoreError::conflict("checkpoints of a job that trained the model itself are not served"));
        };
        let found = self.call("reading a checkpoint", async {
            let mut connection = self.pool().acquire().await?;
            fetch(&mut connection, job.id, int(step) + 1, 1).await
        });
        let Some(checkpoint) = found.await?.into_iter().find(|checkpoint| checkpoint.step == step) else {
            return Err(missing);
        };
        let meaning = ServedCheckpoint { spec: adapter.clone(), template: spec.preparation.template.clone() };
        let weights = ServedWeights::Checkpoint {
            // One that is made again has another id.
            key: checkpoint.id.to_string(),
            files: checkpoint.files,
            meaning: Box::new(meaning),
        };
        Ok(ServedModel { base: self.base_of(&job).await?, precision: spec.base_precision, weights })
    }

    /// The base of a job, with the weights that it began with.
    async fn base_of(&self, job: &Job) -> Result<BaseModel, StoreError> {
        match self.get_model(job.tenant, &job.base_model).await? {
            Model::Base(base) if base.sha256 == job.base_model_sha256 => Ok(base),
            _ => Err(StoreError::NotFound { what: "model" }),
        }
    }

    /// The tenant's job whose model is, or is to be, called so.
    async fn job_called(&self, tenant: TenantId, name: &str) -> Result<Option<Job>, StoreError> {
        let tail = name.rsplit(':').next().unwrap_or_default();
        let ids = self.call("looking for a job by its model's name", async {
            let ids = sqlx::query_scalar!(
                "select id from jobs where tenant_id = $1 and right(replace(id::text, '-', ''), 8) = $2",
                tenant.0,
                tail,
            );
            Ok(ids.fetch_all(self.pool()).await?)
        });
        for id in ids.await? {
            let job = self.get_job(tenant, JobId(id)).await?;
            if job.tuned_model_name() == name {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::testing::{TestDatabase, fixtures};

    #[tokio::test]
    async fn names_stand_for_base_models_tuned_ones_and_checkpoints() {
        let store = TestDatabase::create().await.unwrap().store;
        let tenant = fixtures::tenant(&store, "acme").await.unwrap();
        let other = fixtures::tenant(&store, "other").await.unwrap();
        let worker = fixtures::worker(&store).await.unwrap();
        let lease = fixtures::training(&store, tenant, &worker).await.unwrap();
        store.finish_training(&lease.key, &fixtures::trained(&store, tenant).await.unwrap()).await.unwrap();
        let name = lease.job.tuned_model_name();
        let base = store.served_model(other, fixtures::MODEL).await.unwrap();
        assert!(matches!(base.weights, ServedWeights::Base));
        let tuned = store.served_model(tenant, &name).await.unwrap();
        assert_eq!(tuned.base.name, fixtures::MODEL);
        let ServedWeights::Adapter { key, files } = tuned.weights else { panic!("{:?}", tuned.weights) };
        assert_eq!((key, files.len()), (lease.job.id.to_string(), 1));
        for (tenant, name) in [(other, name.clone()), (tenant, format!("{name}:ckpt-step-7")), (tenant, "x".into())] {
            let missing = store.served_model(tenant, &name).await;
            assert!(matches!(missing, Err(StoreError::NotFound { what: "model" })), "{name}: {missing:?}");
        }
    }

    #[tokio::test]
    async fn endpoints_are_those_of_living_workers_with_the_model() {
        let store = TestDatabase::create().await.unwrap().store;
        let worker = fixtures::worker(&store).await.unwrap();
        let endpoint = ServingEndpoint {
            worker: worker.id,
            url: "http://127.0.0.1:1".into(),
            secret: SecretString::from("s".repeat(64)),
        };
        for _ in 0..2 {
            store.announce_serving(&endpoint).await.unwrap();
        }
        let found = async |sha256: &str| store.serving_endpoints(sha256).await.unwrap();
        let model = worker.models.first().unwrap();
        assert_eq!(found(model).await[0].url, endpoint.url);
        assert!(found(&"0".repeat(64)).await.is_empty());
        sqlx::query("update workers set seen_at = now() - interval '21 s'").execute(store.pool()).await.unwrap();
        assert!(found(model).await.is_empty());
        store.worker_gone(worker.id).await.unwrap();
        assert!(store.announce_serving(&endpoint).await.is_err(), "a worker that is not registered");
    }
}
