//! What a rater is given next, and what a rater says of it.
//!
//! Both lock the task's row, so that of two raters who ask at once the second sees what the first was given.

use std::time::Duration;

use finetuned_protocol::{
    ids::{KeyId, RatingId, RatingItemId, RatingTaskId, TenantId},
    ratings::{Choice, RatingKind, Verdict},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    HeldItem, NewRating, NextItem, Rating, RatingTask,
    results::{fetch_item, fetch_rating},
    tasks::fetch,
};
use crate::{
    Store, StoreError,
    convert::{count, int, storable_text},
};

/// How long a rater holds an item before it may go to another.
const HOLD: Duration = Duration::from_secs(30 * 60);

impl Store {
    /// The item that a rater holds, or the next one for them: none that they rated or skipped, and none that has, or is
    /// about to get, all its ratings. Items that others have begun with come first, so that they are soon done.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn next_rating_item(
        &self,
        tenant: TenantId,
        rater: Option<KeyId>,
        task: RatingTaskId,
    ) -> Result<NextItem, StoreError> {
        let rater = rater.map(|key| key.0);
        self.call("finding what to rate next", async {
            let mut tx = self.begin().await?;
            lock(&mut tx, tenant, task).await?;
            let task = fetch(&mut tx, tenant, task).await?;
            sqlx::query!(
                "delete from ratings
                 where task_id = $1 and rated_at is null and expires_at < now() and api_key_id is distinct from $2",
                task.id.0,
                rater,
            )
            .execute(&mut *tx)
            .await?;
            let held = match renew(&mut tx, rater, &task).await? {
                Some(item) => Some(item),
                None => pick(&mut tx, rater, &task).await?,
            };
            let held = match held {
                Some(id) => Some(held_item(&mut tx, id).await?),
                None => None,
            };
            let figures = figures(&mut tx, rater, &task).await?;
            tx.commit().await?;
            Ok(NextItem { task, held, remaining: figures.0, rated: figures.1 })
        })
        .await
    }

    /// Records what a rater says of an item that they hold; or of one that they rated already, whose rating it replaces.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] for an item that is not theirs, or a verdict of the other kind.
    pub async fn give_rating(
        &self,
        tenant: TenantId,
        rater: Option<KeyId>,
        task: RatingTaskId,
        rating: &NewRating,
    ) -> Result<Rating, StoreError> {
        let rater = rater.map(|key| key.0);
        let NewRating { item, verdict, comment, corrected_answer } = rating;
        self.call("recording a rating", async {
            let mut tx = self.begin().await?;
            lock(&mut tx, tenant, task).await?;
            let task = fetch(&mut tx, tenant, task).await?;
            require_kind(task.kind, *verdict)?;
            let theirs = sqlx::query!(
                "select id, swapped from ratings
                 where task_id = $1 and item_id = $2 and api_key_id is not distinct from $3 and not skipped",
                task.id.0,
                item.0,
                rater,
            );
            let theirs = theirs.fetch_optional(&mut *tx).await?.ok_or_else(|| not_theirs(*item))?;
            let (preferred, score) = match verdict {
                Verdict::Choice(choice) => (Some(preferred(*choice, theirs.swapped)), None),
                Verdict::Score(score) => (None, Some(i32::from(*score))),
                Verdict::Skip => (None, None),
            };
            sqlx::query!(
                "update ratings
                 set rated_at = now(), expires_at = null, skipped = $2, preferred = $3, score = $4, comment = $5,
                     corrected_answer = $6
                 where id = $1",
                theirs.id,
                *verdict == Verdict::Skip,
                preferred,
                score,
                comment.as_deref().map(storable_text),
                corrected_answer.as_deref().map(storable_text),
            )
            .execute(&mut *tx)
            .await?;
            let given = fetch_rating(&mut tx, theirs.id).await?;
            tx.commit().await?;
            Ok(given)
        })
        .await
    }
}

async fn lock(tx: &mut PgConnection, tenant: TenantId, task: RatingTaskId) -> Result<(), StoreError> {
    let row = sqlx::query_scalar!(
        "select id from rating_tasks where id = $1 and tenant_id = $2 for update",
        task.0,
        tenant.0
    );
    row.fetch_optional(tx).await?.map(drop).ok_or(StoreError::NotFound { what: "rating task" })
}

fn require_kind(kind: RatingKind, verdict: Verdict) -> Result<(), StoreError> {
    match (kind, verdict) {
        (RatingKind::Preference, Verdict::Score(_)) => {
            Err(StoreError::conflict("this task asks which answer is better: send `choice`, not `score`"))
        }
        (RatingKind::Scale, Verdict::Choice(_)) => {
            Err(StoreError::conflict("this task asks for a score from 1 to 5: send `score`, not `choice`"))
        }
        _ => Ok(()),
    }
}

fn not_theirs(item: RatingItemId) -> StoreError {
    StoreError::conflict(format!(
        "`{item}` is not yours to rate: it was skipped, given to another rater after half an hour, or never given to you; \
         ask for the next one"
    ))
}

fn preferred(choice: Choice, swapped: bool) -> &'static str {
    match (choice, swapped) {
        (Choice::A, false) | (Choice::B, true) => "first",
        (Choice::B, false) | (Choice::A, true) => "second",
        (Choice::Tie, _) => "tie",
    }
}

/// Holds what the rater holds for longer. Their own hold that has expired is theirs until somebody else asks.
async fn renew(tx: &mut PgConnection, rater: Option<Uuid>, task: &RatingTask) -> Result<Option<Uuid>, StoreError> {
    let held = sqlx::query_scalar!(
        "update ratings set expires_at = now() + make_interval(secs => $3)
         where task_id = $1 and api_key_id is not distinct from $2 and rated_at is null
         returning id",
        task.id.0,
        rater,
        HOLD.as_secs_f64(),
    );
    Ok(held.fetch_optional(tx).await?)
}

async fn pick(tx: &mut PgConnection, rater: Option<Uuid>, task: &RatingTask) -> Result<Option<Uuid>, StoreError> {
    // Each rater sees the two answers in an order drawn anew.
    let swapped = task.kind == RatingKind::Preference && rand::random::<bool>();
    let held = sqlx::query_scalar!(
        "insert into ratings (id, item_id, task_id, tenant_id, api_key_id, swapped, expires_at)
         select $1, i.id, i.task_id, i.tenant_id, $3, $4, now() + make_interval(secs => $5)
         from rating_items i
         left join lateral (
             select count(*) filter (where not r.skipped) as taken,
                    coalesce(bool_or(r.api_key_id is not distinct from $3), false) as theirs
             from ratings r where r.item_id = i.id
         ) so_far on true
         where i.task_id = $2 and not so_far.theirs and so_far.taken < $6
         order by so_far.taken desc, i.place
         limit 1
         returning id",
        RatingId::generate().0,
        task.id.0,
        rater,
        swapped,
        HOLD.as_secs_f64(),
        i64::from(int(task.ratings_per_row)),
    );
    Ok(held.fetch_optional(tx).await?)
}

async fn held_item(tx: &mut PgConnection, rating: Uuid) -> Result<HeldItem, StoreError> {
    let row = sqlx::query!(
        r#"select item_id, swapped, expires_at as "expires_at!" from ratings where id = $1 and rated_at is null"#,
        rating,
    );
    let row = row.fetch_one(&mut *tx).await?;
    let item = fetch_item(tx, row.item_id).await?;
    Ok(HeldItem { item, swapped: row.swapped, expires_at: row.expires_at })
}

/// What the rater can still rate, with what they hold; and what they have rated.
async fn figures(tx: &mut PgConnection, rater: Option<Uuid>, task: &RatingTask) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query!(
        r#"select (select count(*) from rating_items i
                   where i.task_id = $1
                     and not exists (select from ratings r
                                     where r.item_id = i.id and r.api_key_id is not distinct from $2
                                       and r.rated_at is not null)
                     and (select count(*) from ratings r
                          where r.item_id = i.id and not r.skipped and r.rated_at is not null
                            and r.api_key_id is distinct from $2) < $3)
                      as "remaining!",
                  (select count(*) from ratings r
                   where r.task_id = $1 and r.api_key_id is not distinct from $2 and r.rated_at is not null
                     and not r.skipped) as "rated!""#,
        task.id.0,
        rater,
        i64::from(int(task.ratings_per_row)),
    );
    let row = row.fetch_one(tx).await?;
    Ok((count(row.remaining), count(row.rated)))
}
