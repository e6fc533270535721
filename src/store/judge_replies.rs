//! Replies of judges, by what they were asked: a question that was answered once costs nothing the second time.

use finetuned_protocol::ids::TenantId;

use crate::{
    LeaseKey, Store, StoreError,
    convert::{big, count, storable_text},
};

/// A judge's words, and what they took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeReply {
    pub text: String,
    /// Of question and reply, as the judge counts them.
    pub tokens: u64,
}

impl Store {
    /// The reply to a question that a judge of the tenant was asked before; `key` is the hash of judge and question.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn judge_reply(&self, tenant: TenantId, key: &[u8; 32]) -> Result<Option<JudgeReply>, StoreError> {
        self.call("looking for a judge's reply", async {
            let row = sqlx::query!(
                "select reply, tokens from judge_replies where tenant_id = $1 and key = $2",
                tenant.0,
                key.as_slice(),
            );
            let row = row.fetch_optional(self.pool()).await?;
            Ok(row.map(|row| JudgeReply { text: row.reply, tokens: count(row.tokens) }))
        })
        .await
    }

    /// Keeps a reply; of two to the same question the first stays.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn record_judge_reply(
        &self,
        lease: &LeaseKey,
        key: &[u8; 32],
        reply: &JudgeReply,
    ) -> Result<(), StoreError> {
        self.call("keeping a judge's reply", async {
            let mut fenced = self.fence(lease).await?;
            sqlx::query!(
                "insert into judge_replies (tenant_id, key, reply, tokens) values ($1, $2, $3, $4)
                 on conflict (tenant_id, key) do nothing",
                fenced.tenant,
                key.as_slice(),
                storable_text(&reply.text),
                big(reply.tokens),
            )
            .execute(&mut *fenced.tx)
            .await?;
            fenced.tx.commit().await?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{TestDatabase, fixtures};

    #[tokio::test]
    async fn replies_are_the_tenants_own_and_the_first_stays() {
        let database = TestDatabase::create().await.unwrap();
        let store = &database.store;
        let tenant = fixtures::tenant(store, "acme").await.unwrap();
        let other = fixtures::tenant(store, "other").await.unwrap();
        let worker = fixtures::worker(store).await.unwrap();
        let lease = fixtures::training(store, tenant, &worker).await.unwrap().key;
        let key = [7; 32];
        let reply = |text: &str| JudgeReply { text: text.into(), tokens: 5 };
        assert_eq!(store.judge_reply(tenant, &key).await.unwrap(), None);
        store.record_judge_reply(&lease, &key, &reply("a\0")).await.unwrap();
        store.record_judge_reply(&lease, &key, &reply("b")).await.unwrap();
        assert_eq!(store.judge_reply(tenant, &key).await.unwrap(), Some(reply("a\u{fffd}")));
        assert_eq!(store.judge_reply(other, &key).await.unwrap(), None);
        assert_eq!(store.judge_reply(tenant, &[8; 32]).await.unwrap(), None);
        let stale = LeaseKey { epoch: lease.epoch - 1, ..lease };
        let refused = store.record_judge_reply(&stale, &[9; 32], &reply("c")).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    }
}
