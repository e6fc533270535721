//! `GET /v1/rating_tasks/{rating_task_id}/agreement`: what raters found, and how far they agree.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use finetuned_evaluation::{Level, cohen_kappa, krippendorff_alpha};
use finetuned_protocol::{
    ids::{KeyId, RatingTaskId},
    ratings::{Agreement, AnswerSource, PairAgreement, RatingKind},
};
use finetuned_store::{Given, Preferred, RatedItem};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{PreferredSource, preferred_source};
use crate::{
    http::{
        auth::Authenticated,
        error::{ApiError, ErrorResponse},
        found,
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
};

/// How two raters agree.
#[derive(Debug, Serialize, ToSchema)]
pub struct RaterPair {
    /// API keys of both; null for the caller of a service without keys.
    #[schema(value_type = Vec<Option<String>>)]
    pub raters: [Option<KeyId>; 2],
    #[serde(flatten)]
    pub agreement: PairAgreement,
}

/// What raters said of one kind of answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceScore {
    pub source: AnswerSource,
    pub ratings: u64,
    /// Mean score, 1 to 5.
    pub mean: f64,
}

/// How often each answer was preferred.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreferenceCount {
    pub preferred: PreferredSource,
    pub ratings: u64,
    /// Of all ratings (0 to 1).
    pub share: f64,
}

/// What raters found, and how far they agree.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingAgreement {
    /// Always `rating_task.agreement`.
    pub object: &'static str,
    #[schema(value_type = String)]
    pub rating_task_id: RatingTaskId,
    pub kind: RatingKind,
    /// Without those skipped.
    pub ratings: u64,
    /// Of the kind `preference`.
    pub preferences: Vec<PreferenceCount>,
    /// Of the kind `scale`.
    pub scores: Vec<SourceScore>,
    /// Of the ratings that chose one of two answers, the share that chose what stood as `a` (0 to 1). Far from 0.5, raters
    /// go by the place.
    pub first_place_share: Option<f64>,
    /// Cohen's kappa of each two raters with items in common.
    pub cohen_kappa: Vec<RaterPair>,
    /// Krippendorff's alpha of all raters: nominal for preferences, ordinal for scores. Null where no item has two ratings.
    pub krippendorff_alpha: Option<Agreement>,
}

/// What a task's raters found, and how far they agree beyond chance.
#[utoipa::path(
    get, path = "/v1/rating_tasks/{rating_task_id}/agreement", tag = "ratings",
    params(("rating_task_id" = String, Path)),
    responses((status = 200, body = RatingAgreement), (status = 404, body = ErrorResponse)),
)]
pub async fn get_rating_agreement(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<RatingTaskId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<RatingAgreement>, ApiError> {
    let task = found(app.store.get_rating_task(caller.tenant, id).await, RatingTaskId::KIND, id)?;
    let items = found(app.store.rating_results(caller.tenant, id).await, RatingTaskId::KIND, id)?;
    let votes: Vec<Votes> = items.iter().map(votes).collect();
    let level = if task.kind == RatingKind::Scale { Level::Ordinal } else { Level::Nominal };
    let values: Vec<Vec<u8>> = votes.iter().map(|votes| votes.iter().map(|(_, vote)| *vote).collect()).collect();
    Ok(Json(RatingAgreement {
        object: "rating_task.agreement",
        rating_task_id: id,
        kind: task.kind,
        ratings: values.iter().map(|values| values.len() as u64).sum(),
        preferences: preferences(&items),
        scores: scores(&items),
        first_place_share: first_place_share(&items),
        cohen_kappa: pairs(&votes),
        krippendorff_alpha: krippendorff_alpha(&values, level),
    }))
}

/// Who said what of an item, as a number: a score, or which answer is better.
type Votes = Vec<(Option<KeyId>, u8)>;

fn votes(item: &RatedItem) -> Votes {
    let vote = |given| match given {
        Given::Preferred(Preferred::First) => Some(0),
        Given::Preferred(Preferred::Second) => Some(1),
        Given::Preferred(Preferred::Tie) => Some(2),
        Given::Score(score) => Some(score),
        Given::Skipped => None,
    };
    item.ratings.iter().filter_map(|rating| Some((rating.rater, vote(rating.given)?))).collect()
}

fn pairs(items: &[Votes]) -> Vec<RaterPair> {
    let mut together: BTreeMap<[Option<KeyId>; 2], Vec<(u8, u8)>> = BTreeMap::new();
    for votes in items {
        for (one, vote) in votes {
            for (other, theirs) in votes.iter().filter(|(other, _)| other > one) {
                together.entry([*one, *other]).or_default().push((*vote, *theirs));
            }
        }
    }
    let pair = |(raters, values): (_, Vec<(u8, u8)>)| Some(RaterPair { raters, agreement: cohen_kappa(&values)? });
    together.into_iter().filter_map(pair).collect()
}

fn preferences(items: &[RatedItem]) -> Vec<PreferenceCount> {
    let mut counts: Vec<(PreferredSource, u64)> = Vec::new();
    for item in items {
        for rating in &item.ratings {
            let Given::Preferred(preferred) = rating.given else { continue };
            let source = preferred_source(item, preferred);
            match counts.iter_mut().find(|(known, _)| *known == source) {
                Some((_, count)) => *count += 1,
                None => counts.push((source, 1)),
            }
        }
    }
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let count = |(preferred, ratings)| PreferenceCount { preferred, ratings, share: ratings as f64 / all as f64 };
    counts.into_iter().map(count).collect()
}

fn scores(items: &[RatedItem]) -> Vec<SourceScore> {
    let mut sums: BTreeMap<AnswerSource, (u64, u64)> = BTreeMap::new();
    for item in items {
        for rating in &item.ratings {
            if let Given::Score(score) = rating.given {
                let sum = sums.entry(item.item.row.first.source).or_default();
                *sum = (sum.0 + u64::from(score), sum.1 + 1);
            }
        }
    }
    let mean = |(source, (sum, ratings))| SourceScore { source, ratings, mean: sum as f64 / ratings as f64 };
    sums.into_iter().map(mean).collect()
}

fn first_place_share(items: &[RatedItem]) -> Option<f64> {
    let choices: Vec<bool> = items
        .iter()
        .flat_map(|item| &item.ratings)
        .filter_map(|rating| match rating.given {
            Given::Preferred(Preferred::First) => Some(!rating.swapped),
            Given::Preferred(Preferred::Second) => Some(rating.swapped),
            _ => None,
        })
        .collect();
    let first = choices.iter().filter(|first| **first).count();
    (!choices.is_empty()).then(|| first as f64 / choices.len() as f64)
}
