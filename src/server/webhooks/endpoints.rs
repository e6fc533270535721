//! Making, reading, changing and deleting webhook endpoints.

use axum::{Json, extract::State};
use finetuned_outbound::new_signing_secret;
use finetuned_protocol::{ids::WebhookEndpointId, webhooks::WebhookEventType};
use finetuned_store::{NewWebhookEndpoint, WebhookEndpointPatch};
use secrecy::ExposeSecret;
use utoipa::IntoParams;

use super::wire::{
    CreateWebhookEndpoint, RotateWebhookSecret, UpdateWebhookEndpoint, WebhookEndpointDeleted, WebhookEndpointObject,
    WebhookEventTypeList, check_name, check_url, checked_types,
};
use crate::{
    http::{
        auth::Authenticated,
        body::{JsonBody, NoBody, OptionalJsonBody},
        error::{ApiError, ErrorResponse},
        found,
        paging::ListPage,
        path::{Id, PathId},
        query::{Fields, FromQuery, NoParameters, Query},
    },
    state::App,
};

impl PathId for WebhookEndpointId {
    const KIND: &'static str = "webhook endpoint";
}

/// Which endpoints to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EndpointPage {
    /// `last_id` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<WebhookEndpointId>,
    /// 1 to 100; default 20.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    limit: u32,
}

impl FromQuery for EndpointPage {
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { after: fields.take_parsed("after")?, limit: fields.take_number("limit", 20, 1..=100)? })
    }
}

/// List the event types that an endpoint can be told of.
#[utoipa::path(
    get, path = "/v1/webhook_event_types", tag = "webhooks", responses((status = 200, body = WebhookEventTypeList)),
)]
pub async fn list_webhook_event_types(Query(NoParameters): Query<NoParameters>) -> Json<WebhookEventTypeList> {
    Json(WebhookEventTypeList { object: "list", data: WebhookEventType::ALL })
}

/// Make a webhook endpoint. The answer holds its signing secret, this once.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints", tag = "webhooks", request_body = CreateWebhookEndpoint,
    responses((status = 200, body = WebhookEndpointObject), (status = 400, body = ErrorResponse)),
)]
pub async fn create_webhook_endpoint(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<CreateWebhookEndpoint>,
) -> Result<Json<WebhookEndpointObject>, ApiError> {
    let CreateWebhookEndpoint { name, url, event_types } = request;
    check_name(&name)?;
    check_url(&app.outbound, &url)?;
    let secret = new_signing_secret();
    let new = NewWebhookEndpoint { name, url, event_types: checked_types(&event_types)?, secret: secret.clone() };
    let made = app.store.create_webhook_endpoint(caller.tenant, &new).await?;
    let signing_secret = Some(secret.expose_secret().to_owned());
    Ok(Json(WebhookEndpointObject { signing_secret, ..made.into() }))
}

/// List webhook endpoints, newest first.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints", tag = "webhooks", params(EndpointPage),
    responses((status = 200, body = ListPage<WebhookEndpointObject>), (status = 400, body = ErrorResponse)),
)]
pub async fn list_webhook_endpoints(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Query(EndpointPage { after, limit }): Query<EndpointPage>,
) -> Result<Json<ListPage<WebhookEndpointObject>>, ApiError> {
    let page = app.store.list_webhook_endpoints(caller.tenant, after, limit).await?;
    Ok(Json(ListPage::new(page.data.into_iter().map(Into::into).collect(), page.has_more)))
}

/// Read a webhook endpoint.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints/{webhook_endpoint_id}", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path)),
    responses((status = 200, body = WebhookEndpointObject), (status = 404, body = ErrorResponse)),
)]
pub async fn get_webhook_endpoint(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<WebhookEndpointId>,
    Query(NoParameters): Query<NoParameters>,
) -> Result<Json<WebhookEndpointObject>, ApiError> {
    let endpoint = found(app.store.get_webhook_endpoint(caller.tenant, id).await, WebhookEndpointId::KIND, id)?;
    Ok(Json(endpoint.into()))
}

/// Change a webhook endpoint.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path)), request_body = UpdateWebhookEndpoint,
    responses(
        (status = 200, body = WebhookEndpointObject), (status = 400, body = ErrorResponse),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn update_webhook_endpoint(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<WebhookEndpointId>,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(request): JsonBody<UpdateWebhookEndpoint>,
) -> Result<Json<WebhookEndpointObject>, ApiError> {
    let UpdateWebhookEndpoint { name, url, event_types } = request;
    name.as_deref().map_or(Ok(()), check_name)?;
    url.as_deref().map_or(Ok(()), |url| check_url(&app.outbound, url))?;
    let event_types = event_types.as_deref().map(checked_types).transpose()?;
    let patch = WebhookEndpointPatch { name, url, event_types };
    let changed = app.store.update_webhook_endpoint(caller.tenant, id, &patch).await;
    Ok(Json(found(changed, WebhookEndpointId::KIND, id)?.into()))
}

/// Delete a webhook endpoint; what was still to be delivered to it is dropped.
#[utoipa::path(
    delete, path = "/v1/webhook_endpoints/{webhook_endpoint_id}", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path)),
    responses((status = 200, body = WebhookEndpointDeleted), (status = 404, body = ErrorResponse)),
)]
pub async fn delete_webhook_endpoint(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<WebhookEndpointId>,
    Query(NoParameters): Query<NoParameters>,
    _: NoBody,
) -> Result<Json<WebhookEndpointDeleted>, ApiError> {
    found(app.store.delete_webhook_endpoint(caller.tenant, id).await, WebhookEndpointId::KIND, id)?;
    Ok(Json(WebhookEndpointDeleted { id, object: "webhook_endpoint.deleted", deleted: true }))
}

/// Give a webhook endpoint another signing secret; the answer holds it, this once.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path)), request_body = Option<RotateWebhookSecret>,
    responses((status = 200, body = WebhookEndpointObject), (status = 404, body = ErrorResponse)),
)]
pub async fn rotate_webhook_secret(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<WebhookEndpointId>,
    Query(NoParameters): Query<NoParameters>,
    OptionalJsonBody(request): OptionalJsonBody<RotateWebhookSecret>,
) -> Result<Json<WebhookEndpointObject>, ApiError> {
    let keep = request.is_some_and(|request| request.keep_old_secret_active_for_24_hours);
    let secret = new_signing_secret();
    let changed = app.store.rotate_webhook_secret(caller.tenant, id, &secret, keep).await;
    let changed = found(changed, WebhookEndpointId::KIND, id)?;
    let signing_secret = Some(secret.expose_secret().to_owned());
    Ok(Json(WebhookEndpointObject { signing_secret, ..changed.into() }))
}
