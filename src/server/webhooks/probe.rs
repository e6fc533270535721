//! `POST /v1/webhook_endpoints/{webhook_endpoint_id}/test`

use axum::{Json, extract::State};
use finetuned_outbound::WebhookMessage;
use finetuned_protocol::{
    ids::{WebhookEndpointId, WebhookEventId},
    webhooks::WebhookPayload,
};
use time::OffsetDateTime;

use super::wire::{TestWebhookEndpoint, WebhookEndpointTested};
use crate::{
    http::{
        auth::Authenticated,
        body::JsonBody,
        error::{ApiError, Code, ErrorResponse},
        found,
        path::{Id, PathId},
        query::{NoParameters, Query},
    },
    state::App,
};

/// Send an example event to an endpoint, once, and tell what it answered. The object that the event names does not exist.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{webhook_endpoint_id}/test", tag = "webhooks",
    params(("webhook_endpoint_id" = String, Path)), request_body = TestWebhookEndpoint,
    responses(
        (status = 200, body = WebhookEndpointTested),
        (status = 400, body = ErrorResponse, description = "The endpoint gave no answer"),
        (status = 404, body = ErrorResponse),
    ),
)]
pub async fn test_webhook_endpoint(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    Id(id): Id<WebhookEndpointId>,
    Query(NoParameters): Query<NoParameters>,
    JsonBody(TestWebhookEndpoint { event_type }): JsonBody<TestWebhookEndpoint>,
) -> Result<Json<WebhookEndpointTested>, ApiError> {
    let target = found(app.store.webhook_target(caller.tenant, id).await, WebhookEndpointId::KIND, id)?;
    let (event, now) = (WebhookEventId::generate(), OffsetDateTime::now_utc().unix_timestamp());
    let payload = WebhookPayload::new(event, now, event_type, event_type.example_object().to_owned());
    let body = serde_json::to_string(&payload).map_err(ApiError::internal)?;
    let message = WebhookMessage { url: &target.url, id: &event.to_string(), body, secrets: &target.secrets };
    match message.send(&app.outbound).await {
        Ok(status_code) => Ok(Json(WebhookEndpointTested {
            object: "webhook_endpoint.test",
            webhook_endpoint_id: id,
            event_type,
            status_code,
            success: true,
        })),
        Err(error) => {
            let message = format!("the endpoint could not be reached: {error}");
            Err(ApiError::new(Code::EndpointUnreachable, message).cause(error))
        }
    }
}
