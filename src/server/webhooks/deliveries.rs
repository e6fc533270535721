//! The log of an endpoint's deliveries, and sending one again.

use axum::{Json, extract::State};
use finetuned_protocol::ids::{WebhookDeliveryId, WebhookEndpointId};
use utoipa::IntoParams;

use super::wire::WebhookDeliveryObject;
use crate::{
    http::{
        auth::Authenticated,
        body::NoBody,
        error::{ApiError, ErrorResponse},
        found,
        paging::ListPage,
        path::{Id, Name, PathId},
        query::{Fields, FromQuery, NoParameters, Query},
    },
    state::App,
};

/// Which deliveries to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveryPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<WebhookDeliveryId>,
    /// 1 to 100; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    limit: u32,
}

impl FromQuery for DeliveryPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=100)? })
    }
}

/// List what was sent to an endpoint, and what it answered, newest first. Kept for 30 days.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path), DeliveryPage),
    responses((status = 200, body = ListPage<WebhookDeliveryObject>), (status = 404, body = ErrorResponse)),
)]
pub async fn list_webhook_deliveries(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<WebhookEndpointId>,
    Query(DeliveryPage { after, limit }): Query<DeliveryPage>,
) -> Result<Json<ListPage<WebhookDeliveryObject>>, ApiError> {
    let page = app.store.list_webhook_deliveries(caller.tenant, id, after, limit).await;
    let page = found(page, WebhookEndpointId::KIND, id)?;
    Ok(Json(ListPage::new(page.data.into_iter().map(Into::into).collect(), page.has_more)))
}

/// Send a delivery again, whatever became of it, under the same event id.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{delivery_id}/replay", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path), ("delivery_id" = String, Path)),
    responses((status = 200, body = WebhookDeliveryObject), (status = 404, body = ErrorResponse)),
)]
pub async fn replay_webhook_delivery(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(endpoint): Id<WebhookEndpointId>,
    Name(delivery): Name,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<WebhookDeliveryObject>, ApiError> {
    let missing = || ApiError::not_found("webhook delivery", &delivery);
    let id: WebhookDeliveryId = delivery.parse().map_err(|_| missing())?;
    let replayed =
        found(app.store.replay_webhook_delivery(caller.tenant, endpoint, id).await, "webhook delivery", &delivery)?;
    Ok(Json(replayed.into()))
}
