#![allow(clippy::unwrap_used, clippy::expect_used)]
//! No rater gets an item twice, no two get the same one unasked, and what was said is kept with the blindfold off.

use std::{collections::BTreeSet, time::Instant};

use finetuned_protocol::ratings::Choice;
use serde_json::json;

use super::*;
use crate::{
    Idempotency, KeyGrant, Store, StoreError, fingerprint,
    testing::{TestDatabase, fixtures},
};

struct Stage {
    store: Store,
    tenant: TenantId,
    raters: Vec<KeyId>,
    task: RatingTask,
}

async fn stage(kind: RatingKind, items: u64, ratings_per_row: u32) -> Stage {
    let store = TestDatabase::create().await.unwrap().store;
    let tenant = fixtures::tenant(&store, "acme").await.unwrap();
    let mut raters = Vec::new();
    for name in ["one", "two", "three"] {
        raters.push(store.create_key("acme", name, &KeyGrant::default()).await.unwrap().id);
    }
    let job = fixtures::job(&store, tenant).await.unwrap().id;
    let answer = |source, answer: &str| SourcedAnswer { source, answer: answer.to_owned() };
    let item = |line| NewRatingItem {
        line,
        prompt: format!("prompt {line}\0"),
        reference: "reference".into(),
        input: json!([{"role": "user", "content": "prompt"}]),
        first: answer(AnswerSource::Base, "of base"),
        second: (kind == RatingKind::Preference).then(|| answer(AnswerSource::Tuned, "of tuned")),
    };
    let new = NewRatingTask {
        kind,
        job,
        with: None,
        instructions: Some("Be kind.".into()),
        show_reference: true,
        ratings_per_row,
        equal_rows: 3,
        items: (1..=items).map(item).collect(),
    };
    let task = store.create_rating_task(tenant, &new, &request(1)).await.unwrap().into_inner();
    let again = store.create_rating_task(tenant, &new, &request(1)).await.unwrap();
    assert!(!again.is_new() && again.into_inner() == task);
    Stage { store, tenant, raters, task }
}

/// A retry of an equal request.
fn request(retry_count: u32) -> Idempotency {
    let fingerprint = fingerprint(&[b"task"]);
    let route = "POST /v1/rating_tasks";
    Idempotency { caller: None, route, client_key: None, retry_count, fingerprint, received: Instant::now() }
}

impl Stage {
    async fn next(&self, rater: usize) -> NextItem {
        self.store.next_rating_item(self.tenant, Some(self.raters[rater]), self.task.id).await.unwrap()
    }

    async fn give(&self, rater: usize, item: RatingItemId, verdict: Verdict) -> Result<Rating, StoreError> {
        let rating = NewRating { item, verdict, comment: Some("because".into()), corrected_answer: None };
        self.store.give_rating(self.tenant, Some(self.raters[rater]), self.task.id, &rating).await
    }

    async fn results(&self) -> Vec<RatedItem> {
        self.store.rating_results(self.tenant, self.task.id).await.unwrap()
    }
}

fn held(next: &NextItem) -> Option<RatingItemId> {
    next.held.as_ref().map(|held| held.item.id)
}

#[tokio::test]
async fn raters_share_the_items_and_nobody_gets_one_twice() {
    let stage = stage(RatingKind::Preference, 4, 1).await;
    let mut given = BTreeSet::new();
    // All three ask at once.
    let (one, two, three) = tokio::join!(stage.next(0), stage.next(1), stage.next(2));
    let first: Vec<_> = [&one, &two, &three].into_iter().filter_map(held).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "two raters hold one item");
    assert_eq!(held(&stage.next(0).await), held(&one), "asking again gives what is held");
    for (rater, item) in first.iter().enumerate() {
        assert!(given.insert(*item));
        stage.give(rater, *item, Verdict::Choice(Choice::Tie)).await.unwrap();
    }
    let last = stage.next(1).await;
    assert!(given.insert(held(&last).unwrap()));
    assert_eq!((last.remaining, last.rated), (1, 1));
    let nothing = stage.next(2).await;
    assert_eq!((held(&nothing), nothing.remaining), (None, 1), "another holds what is left");
    stage.give(1, held(&last).unwrap(), Verdict::Choice(Choice::A)).await.unwrap();
    let end = stage.next(2).await;
    assert_eq!((held(&end), end.remaining), (None, 0));
    assert_eq!((end.task.items, end.task.rated_items, end.task.ratings, end.task.raters), (4, 4, 4, 3));
}

#[tokio::test]
async fn an_item_gets_as_many_raters_as_it_wants() {
    let stage = stage(RatingKind::Scale, 2, 2).await;
    let mut pairs = BTreeSet::new();
    for _ in 0..2 {
        for rater in 0..2 {
            let item = held(&stage.next(rater).await).unwrap();
            assert!(pairs.insert((rater, item)));
            stage.give(rater, item, Verdict::Score(4)).await.unwrap();
        }
    }
    assert_eq!(held(&stage.next(2).await), None, "both items have two ratings");
    let task = stage.store.get_rating_task(stage.tenant, stage.task.id).await.unwrap();
    assert_eq!((task.rated_items, task.ratings, task.raters), (2, 4, 2));
    assert_eq!(stage.results().await[0].ratings.len(), 2);
}

#[tokio::test]
async fn what_is_skipped_or_held_too_long_goes_to_another() {
    let stage = stage(RatingKind::Scale, 1, 1).await;
    let item = held(&stage.next(0).await).unwrap();
    stage.give(0, item, Verdict::Skip).await.unwrap();
    assert_eq!(held(&stage.next(0).await), None, "skipped items do not come again");
    assert_eq!(held(&stage.next(1).await), Some(item));
    assert_eq!(held(&stage.next(2).await), None);
    sqlx::query("update ratings set expires_at = now() - interval '1 second' where rated_at is null")
        .execute(stage.store.pool())
        .await
        .unwrap();
    assert_eq!(held(&stage.next(2).await), Some(item));
    for rater in [0, 1] {
        let refused = stage.give(rater, item, Verdict::Score(1)).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Conflict { message } if message.contains("is not yours")), "{refused}");
    }
    stage.give(2, item, Verdict::Score(5)).await.unwrap();
    let changed = stage.give(2, item, Verdict::Score(2)).await.unwrap();
    assert_eq!(changed.given, Given::Score(2));
    let results = stage.results().await;
    let given: Vec<_> = results[0].ratings.iter().map(|rating| rating.given).collect();
    assert_eq!(given, [Given::Skipped, Given::Score(2)]);
}

#[tokio::test]
async fn a_choice_is_kept_by_whose_answer_it_is() {
    let stage = stage(RatingKind::Preference, 40, 1).await;
    let mut orders = BTreeSet::new();
    for _ in 0..40 {
        let next = stage.next(0).await;
        let HeldItem { item, swapped, .. } = next.held.unwrap();
        orders.insert(swapped);
        assert_eq!(item.row.prompt, format!("prompt {}\u{fffd}", item.row.line));
        let rating = stage.give(0, item.id, Verdict::Choice(Choice::A)).await.unwrap();
        let expected = if swapped { Preferred::Second } else { Preferred::First };
        assert_eq!((rating.given, rating.swapped), (Given::Preferred(expected), swapped));
    }
    assert_eq!(orders.len(), 2, "the order of the answers does not vary");
    let scored = stage.give(0, stage.results().await[0].item.id, Verdict::Score(3)).await.unwrap_err();
    assert!(scored.to_string().contains("send `choice`"), "{scored}");
}

#[tokio::test]
async fn tasks_are_the_tenants_own_and_go_with_their_job() {
    let stage = stage(RatingKind::Scale, 1, 1).await;
    let other = fixtures::tenant(&stage.store, "other").await.unwrap();
    let task = stage.task.id;
    assert!(matches!(stage.store.get_rating_task(other, task).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(stage.store.next_rating_item(other, None, task).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(stage.store.rating_results(other, task).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(stage.store.delete_rating_task(other, task).await, Err(StoreError::NotFound { .. })));
    let page = stage.store.list_rating_tasks(stage.tenant, Some(stage.task.job), None, 10).await.unwrap();
    assert_eq!((page.data, page.has_more), (vec![stage.task.clone()], false));
    assert!(stage.store.list_rating_tasks(other, None, None, 10).await.unwrap().data.is_empty());
    stage.next(0).await;
    stage.store.delete_rating_task(stage.tenant, task).await.unwrap();
    assert!(matches!(stage.store.get_rating_task(stage.tenant, task).await, Err(StoreError::NotFound { .. })));
}
