//! `/v1/rating_tasks`

mod agreement;
mod export;
mod give;
mod items;
mod rows;
mod tasks;
mod wire;

pub use agreement::{__path_get_rating_agreement, get_rating_agreement};
pub use export::{__path_export_ratings, export_ratings};
pub use give::{
    __path_give_rating, __path_list_ratings, __path_next_rating_item, give_rating, list_ratings, next_rating_item,
};
pub use tasks::{
    __path_create_rating_task, __path_delete_rating_task, __path_get_rating_task, __path_list_rating_tasks,
    create_rating_task, delete_rating_task, get_rating_task, list_rating_tasks,
};
