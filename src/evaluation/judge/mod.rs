//! What a judge is asked, how its replies are read, and what they say together. Who asks it is elsewhere.

mod length;
mod questions;
mod summary;
mod verdict;

pub use questions::{PROMPT_VERSION, Question, Seen};
pub use summary::{majority, outcome, summarise};
pub use verdict::{Comparison, NoVerdict, Points, Verdict, Winner, YesNo, read_verdict};
