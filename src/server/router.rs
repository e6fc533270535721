//! Every route, in the order of the documentation; and what surrounds them.

use std::time::Duration;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    description, files, health,
    http::{access::require_scope, audit::audit, auth::require_caller, context, limits::limit_head},
    jobs, models, organization, permissions, preparing, ratings, serving,
    state::App,
    uploads, webhooks,
};

/// Routes whose handlers end soon.
fn prompt() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(files::list_files))
        .routes(routes!(files::get_file, files::delete_file))
        .routes(routes!(files::get_file_content))
        .routes(routes!(files::get_file_findings))
        .routes(routes!(preparing::get_file_manifest))
        .routes(routes!(uploads::create_upload))
        .routes(routes!(uploads::get_upload))
        .routes(routes!(uploads::cancel_upload))
        .routes(routes!(jobs::create_job, jobs::list_jobs))
        .routes(routes!(jobs::get_job, jobs::update_job))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::pause_job))
        .routes(routes!(jobs::resume_job))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(jobs::start_job))
        .routes(routes!(jobs::list_events))
        .routes(routes!(jobs::get_logs))
        .routes(routes!(jobs::list_checkpoints))
        .routes(routes!(jobs::get_metrics))
        .routes(routes!(jobs::get_evaluation, jobs::create_evaluation))
        .routes(routes!(jobs::list_evaluations))
        .routes(routes!(jobs::list_evaluation_rows))
        .routes(routes!(jobs::compare_job))
        .routes(routes!(jobs::list_artifacts))
        .routes(routes!(jobs::get_artifact))
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model, models::delete_model))
        .routes(routes!(permissions::create_permissions, permissions::list_permissions))
        .routes(routes!(permissions::delete_permission))
        .routes(routes!(organization::list_audit_logs))
        .routes(routes!(organization::get_limits))
        .routes(routes!(organization::create_project, organization::list_projects))
        .routes(routes!(organization::get_project))
        .routes(routes!(organization::get_usage))
        .routes(routes!(ratings::create_rating_task, ratings::list_rating_tasks))
        .routes(routes!(ratings::get_rating_task, ratings::delete_rating_task))
        .routes(routes!(ratings::next_rating_item))
        .routes(routes!(ratings::give_rating, ratings::list_ratings))
        .routes(routes!(ratings::get_rating_agreement))
        .routes(routes!(webhooks::list_webhook_event_types))
        .routes(routes!(webhooks::create_webhook_endpoint, webhooks::list_webhook_endpoints))
        .routes(routes!(
            webhooks::get_webhook_endpoint,
            webhooks::update_webhook_endpoint,
            webhooks::delete_webhook_endpoint
        ))
        .routes(routes!(webhooks::rotate_webhook_secret))
        .routes(routes!(webhooks::test_webhook_endpoint))
        .routes(routes!(webhooks::list_webhook_deliveries))
        .routes(routes!(webhooks::replay_webhook_delivery))
}

/// Routes whose handlers take as long as there are bytes.
fn long() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(files::create_file))
        .routes(routes!(preparing::prepare_files))
        .routes(routes!(uploads::list_upload_parts, uploads::add_upload_part))
        .routes(routes!(uploads::complete_upload))
        .routes(routes!(files::get_file_row))
        .routes(routes!(files::get_file_statistics))
        .routes(routes!(files::get_file_lint))
        .routes(routes!(files::get_file_diff))
        .routes(routes!(jobs::list_rows_to_mend))
        .routes(routes!(files::create_file_version))
        .routes(routes!(jobs::get_adapter))
        .routes(routes!(jobs::estimate_job))
        .routes(routes!(ratings::export_ratings))
        .routes(routes!(jobs::get_merged))
        .routes(routes!(serving::create_chat_completion))
        .routes(routes!(serving::create_completion))
        // The framework's own limit is 2 MB; an upload counts for itself.
        .layer(DefaultBodyLimit::disable())
}

/// Routes that ask nobody for a key.
fn open() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::prometheus))
        .routes(routes!(health::openapi_json))
}

/// The whole service.
pub fn router(app: App) -> Router {
    let deadline = |limit: Duration| middleware::from_fn_with_state(limit, context::deadline);
    let limit = app.options.request_timeout;
    let authenticated = prompt()
        .layer(deadline(limit))
        .merge(long())
        // From the last to the first: who calls, that it is written down, whether the key was made for it.
        .layer(middleware::from_fn(require_scope))
        .layer(middleware::from_fn_with_state(app.clone(), audit))
        .layer(middleware::from_fn_with_state(app.clone(), require_caller));
    let (routes, _) = authenticated.merge(open().layer(deadline(limit))).split_for_parts();
    routes
        .fallback(context::unknown_url)
        .method_not_allowed_fallback(context::method_not_allowed)
        .layer(middleware::from_fn(limit_head))
        .layer(CatchPanicLayer::custom(context::panicked))
        .layer(middleware::from_fn(context::observe))
        .with_state(app)
}

/// What the service answers, as generated from its handlers.
pub fn openapi() -> OpenApi {
    let mut document = prompt().merge(long()).merge(open()).into_openapi();
    description::complete(&mut document);
    document
}
