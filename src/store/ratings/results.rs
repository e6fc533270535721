//! What raters said.

use finetuned_protocol::{
    ids::{KeyId, RatingId, RatingItemId, RatingTaskId, TenantId},
    ratings::AnswerSource,
};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Given, NewRatingItem, Preferred, RatedItem, Rating, RatingItem, SourcedAnswer, tasks::require_task};
use crate::{
    Store, StoreError,
    convert::{count, named},
};

impl Store {
    /// Every item of a task in its order, with its ratings.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn rating_results(&self, tenant: TenantId, task: RatingTaskId) -> Result<Vec<RatedItem>, StoreError> {
        self.call("reading ratings", async {
            let mut connection = self.pool().acquire().await?;
            require_task(&mut connection, tenant, task).await?;
            let items = sqlx::query_as!(
                ItemRow,
                "select id, line, prompt, reference, input, first_source, first_answer, second_source, second_answer
                 from rating_items where task_id = $1 order by place",
                task.0,
            );
            let mut items: Vec<RatedItem> = items
                .fetch_all(&mut *connection)
                .await?
                .into_iter()
                .map(|row| Ok(RatedItem { item: row.read()?, ratings: Vec::new() }))
                .collect::<Result<_, StoreError>>()?;
            let ratings = sqlx::query_as!(
                RatingRow,
                r#"select id, item_id, api_key_id, swapped, skipped, preferred, score, comment, corrected_answer,
                          rated_at as "rated_at!"
                   from ratings where task_id = $1 and rated_at is not null order by id"#,
                task.0,
            );
            for row in ratings.fetch_all(&mut *connection).await? {
                let rating = row.read()?;
                if let Some(item) = items.iter_mut().find(|item| item.item.id == rating.item) {
                    item.ratings.push(rating);
                }
            }
            Ok(items)
        })
        .await
    }
}

pub(super) async fn fetch_item(connection: &mut PgConnection, item: Uuid) -> Result<RatingItem, StoreError> {
    let row = sqlx::query_as!(
        ItemRow,
        "select id, line, prompt, reference, input, first_source, first_answer, second_source, second_answer
         from rating_items where id = $1",
        item,
    );
    row.fetch_one(connection).await?.read()
}

pub(super) async fn fetch_rating(connection: &mut PgConnection, rating: Uuid) -> Result<Rating, StoreError> {
    let row = sqlx::query_as!(
        RatingRow,
        r#"select id, item_id, api_key_id, swapped, skipped, preferred, score, comment, corrected_answer,
                  rated_at as "rated_at!"
           from ratings where id = $1"#,
        rating,
    );
    row.fetch_one(connection).await?.read()
}

struct ItemRow {
    id: Uuid,
    line: i64,
    prompt: String,
    reference: String,
    input: Value,
    first_source: String,
    first_answer: String,
    second_source: Option<String>,
    second_answer: Option<String>,
}

impl ItemRow {
    fn read(self) -> Result<RatingItem, StoreError> {
        let source = |text: &str| named::<AnswerSource>("an answer's source", text);
        let second = match (self.second_source, self.second_answer) {
            (Some(name), Some(answer)) => Some(SourcedAnswer { source: source(&name)?, answer }),
            _ => None,
        };
        let first = SourcedAnswer { source: source(&self.first_source)?, answer: self.first_answer };
        let (line, prompt, reference, input) = (count(self.line), self.prompt, self.reference, self.input);
        let row = NewRatingItem { line, prompt, reference, input, first, second };
        Ok(RatingItem { id: RatingItemId(self.id), row })
    }
}

struct RatingRow {
    id: Uuid,
    item_id: Uuid,
    api_key_id: Option<Uuid>,
    swapped: bool,
    skipped: bool,
    preferred: Option<String>,
    score: Option<i32>,
    comment: Option<String>,
    corrected_answer: Option<String>,
    rated_at: OffsetDateTime,
}

impl RatingRow {
    fn read(self) -> Result<Rating, StoreError> {
        let given = match (self.skipped, self.preferred.as_deref(), self.score) {
            (true, ..) => Given::Skipped,
            (false, Some("first"), _) => Given::Preferred(Preferred::First),
            (false, Some("second"), _) => Given::Preferred(Preferred::Second),
            (false, Some("tie"), _) => Given::Preferred(Preferred::Tie),
            (false, None, Some(score)) => Given::Score(u8::try_from(score).unwrap_or_default()),
            (false, other, _) => {
                let reason = format!("it prefers {other:?}");
                return Err(StoreError::Unreadable { what: "a rating", reason });
            }
        };
        Ok(Rating {
            id: RatingId(self.id),
            item: RatingItemId(self.item_id),
            rater: self.api_key_id.map(KeyId),
            swapped: self.swapped,
            given,
            comment: self.comment,
            corrected_answer: self.corrected_answer,
            rated_at: self.rated_at,
        })
    }
}
