//! What raters are given, what they say, and the list of it.

use axum::{Json, extract::State};
use finetuned_protocol::ids::{RatingId, RatingTaskId};
use utoipa::IntoParams;

use super::wire::{GiveRating, NextRatingItem, RatingGiven, RatingObject};
use crate::{
    http::{
        auth::Authenticated,
        body::{JsonBody, NoBody},
        error::{ApiError, ErrorResponse},
        found,
        paging::ListPage,
        path::{Id, PathId},
        query::{Fields, FromQuery, NoParameters, Query},
    },
    state::App,
};

/// Ask for the next item to rate.
///
/// It is the caller's for half an hour: asking again gives the same one, and no other rater gets it meanwhile but as many
/// as `ratings_per_row` asks for. Nobody gets an item again that they rated or skipped.
#[utoipa::path(
    post, path = "/v1/rating_tasks/{rating_task_id}/next", tag = "ratings", params(("rating_task_id" = String, Path)),
    responses((status = 200, body = NextRatingItem), (status = 404, body = ErrorResponse)),
)]
pub async fn next_rating_item(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<RatingTaskId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<NextRatingItem>, ApiError> {
    let next = app.store.next_rating_item(caller.tenant, caller.key, id).await;
    Ok(Json(found(next, RatingTaskId::KIND, id)?.into()))
}

/// Rate an item that `next` gave, or change what the caller said of it before.
#[utoipa::path(
    post, path = "/v1/rating_tasks/{rating_task_id}/ratings", tag = "ratings",
    params(("rating_task_id" = String, Path)), request_body = GiveRating,
    responses(
        (status = 200, body = RatingGiven),
        (status = 400, body = ErrorResponse, description = "A rating of the other kind, or an item that is not the caller's"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn give_rating(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<RatingTaskId>,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<GiveRating>,
) -> Result<Json<RatingGiven>, ApiError> {
    let given = app.store.give_rating(caller.tenant, caller.key, id, &request.checked()?).await;
    let given = found(given, RatingTaskId::KIND, id)?;
    let rated_at = given.rated_at.unix_timestamp();
    Ok(Json(RatingGiven { id: given.id, object: "rating.given", item_id: given.item, rated_at }))
}

/// Which ratings to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RatingPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<RatingId>,
    /// 1 to 256; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 256)]
    limit: u32,
}

impl FromQuery for RatingPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=256)? })
    }
}

/// List a task's ratings with whose answers they were about, item by item.
#[utoipa::path(
    get, path = "/v1/rating_tasks/{rating_task_id}/ratings", tag = "ratings",
    params(("rating_task_id" = String, Path), RatingPage),
    responses(
        (status = 200, body = ListPage<RatingObject>), (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn list_ratings(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<RatingTaskId>,
    Query(page): Query<RatingPage>,
) -> Result<Json<ListPage<RatingObject>>, ApiError> {
    let items = found(app.store.rating_results(caller.tenant, id).await, RatingTaskId::KIND, id)?;
    let of_item = |item| move |rating| RatingObject::new(item, rating);
    let mut ratings: Vec<RatingObject> = items.iter().flat_map(|item| item.ratings.iter().map(of_item(item))).collect();
    if let Some(after) = page.after {
        let place = ratings.iter().position(|rating| rating.id == after);
        let place = place.ok_or_else(|| ApiError::invalid("after", format!("no rating of this task is `{after}`")))?;
        ratings.drain(..=place);
    }
    let has_more = ratings.len() > page.limit as usize;
    ratings.truncate(page.limit as usize);
    Ok(Json(ListPage::new(ratings, has_more)))
}
