//! Lists: `after` is the id of the last item seen, `has_more` is exact.

use serde::Serialize;
use utoipa::ToSchema;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListPage<T> {
    /// Always `list`.
    pub object: &'static str,
    pub data: Vec<T>,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
}

/// What a list is made of.
pub trait Listed {
    /// The cursor of the item.
    fn id(&self) -> String;
}

impl<T: Listed> ListPage<T> {
    pub fn new(data: Vec<T>, has_more: bool) -> Self {
        let first_id = data.first().map(Listed::id);
        let last_id = data.last().map(Listed::id);
        Self { object: "list", data, first_id, last_id, has_more }
    }
}
