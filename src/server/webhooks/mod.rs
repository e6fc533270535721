//! `/v1/webhook_endpoints` and `/v1/webhook_event_types`

mod deliveries;
mod endpoints;
mod probe;
mod wire;

pub use deliveries::{
    __path_list_webhook_deliveries, __path_replay_webhook_delivery, list_webhook_deliveries, replay_webhook_delivery,
};
pub use endpoints::{
    __path_create_webhook_endpoint, __path_delete_webhook_endpoint, __path_get_webhook_endpoint,
    __path_list_webhook_endpoints, __path_list_webhook_event_types, __path_rotate_webhook_secret,
    __path_update_webhook_endpoint, create_webhook_endpoint, delete_webhook_endpoint, get_webhook_endpoint,
    list_webhook_endpoints, list_webhook_event_types, rotate_webhook_secret, update_webhook_endpoint,
};
pub use probe::{__path_test_webhook_endpoint, test_webhook_endpoint};
