//! One figure against its reference.

/// Largest differences in f32 on the CPU, measured between correct implementations that differ in attention, in order and
/// in precision, and tight enough that a missing weight decay or another epsilon shows.
pub mod tolerance {
    /// Absolute, of each logit.
    pub const LOGITS: f64 = 2e-5;
    /// Absolute, of a mean loss in nats.
    pub const LOSS: f64 = 2e-5;
    /// Relative, of the gradient norm of all weights.
    pub const FULL_NORM: f64 = 5e-5;
    /// The same where a token's experts are chosen: two of them may be a rounding apart.
    pub const FULL_NORM_OF_EXPERTS: f64 = 3e-4;
    /// Absolute, of an adapter's gradient norm.
    pub const ADAPTER_NORM: f64 = 1e-5;
    /// Absolute, of each logit after eight steps of all weights.
    pub const LOGITS_AFTER_FULL: f64 = 3e-4;
    /// Absolute, of each logit after eight steps of an adapter.
    pub const LOGITS_AFTER_ADAPTER: f64 = 1e-4;
    /// Absolute, of each element of an adapter after eight steps.
    pub const ADAPTER_TENSORS: f64 = 3e-4;
    /// Of what must be equal: tokens, names, and logits of the same weights read another way.
    pub const EQUAL: f64 = 0.0;
}

/// A check of one case.
#[derive(Debug)]
pub struct Check {
    pub name: &'static str,
    /// Largest deviation from the reference.
    pub largest: f64,
    pub tolerance: f64,
}

impl Check {
    pub fn new(name: &'static str, largest: f64, tolerance: f64) -> Self {
        Self { name, largest, tolerance }
    }

    /// What is not a number has not passed.
    pub fn passed(&self) -> bool {
        self.largest <= self.tolerance
    }

    /// Its line of the table.
    pub fn line(&self, case: &str) -> String {
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        row(case, self.name, &format!("{:.2e}", self.largest), &format!("{:.0e}", self.tolerance), verdict)
    }

    /// The line of a case that could not be run.
    pub fn broken_line(case: &str, reason: &str) -> String {
        row(case, "runs", "-", "-", &format!("FAILED: {reason}"))
    }
}

/// First line of the table.
pub fn heading() -> String {
    row("CASE", "CHECK", "LARGEST", "ALLOWED", "VERDICT")
}

fn row(case: &str, check: &str, largest: &str, tolerance: &str, verdict: &str) -> String {
    format!("{case:<24} {check:<34} {largest:>9} {tolerance:>8}  {verdict}")
}
