//! What a person sees while something takes time: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;

/// How long plain output stays silent at least.
const QUIET: Duration = Duration::from_secs(10);

/// Standard output, shared by lines and bars.
#[derive(Clone)]
pub struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// Bars where standard output is a terminal, plain lines otherwise.
    pub fn detect() -> Self {
        let bars = std::io::stdout().is_terminal();
        Self { bars: bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(8))) }
    }

    /// Whether bars can be drawn.
    pub fn has_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// Plain lines alone.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { bars: None }
    }

    pub fn line(&self, text: impl AsRef<str>) {
        match &self.bars {
            Some(bars) => bars.suspend(|| println!("{}", text.as_ref())),
            None => println!("{}", text.as_ref()),
        }
    }

    pub fn lines<T: AsRef<str>>(&self, lines: impl IntoIterator<Item = T>) {
        lines.into_iter().for_each(|line| self.line(line));
    }

    pub fn heading(&self, text: &str) {
        self.line(format!("\n== {text}"));
    }

    /// A count of `total` things.
    pub fn progress(&self, label: &str, total: u64, unit: Unit) -> Progress {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            bar.set_style(unit.style());
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Progress { screen: self.clone(), label: label.to_owned(), total, unit, bar, spoken: Instant::now(), said: 0 }
    }
}

/// What a bar counts.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Bytes,
    Steps,
}

impl Unit {
    fn shown(self, count: u64) -> String {
        match self {
            Self::Bytes => format::bytes(count),
            Self::Steps => count.to_string(),
        }
    }

    fn style(self) -> ProgressStyle {
        let template = match self {
            Self::Bytes => "{prefix} [{bar:32}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {msg}",
            Self::Steps => "{prefix} [{bar:32}] {pos}/{len} {msg} {elapsed} gone, {eta} left",
        };
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
    }
}

/// One running count.
pub struct Progress {
    screen: Screen,
    label: String,
    total: u64,
    unit: Unit,
    bar: Option<ProgressBar>,
    /// When plain output last said something, and at what count.
    spoken: Instant,
    said: u64,
}

impl Progress {
    /// Moves the count to `done` and shows `message` beside it.
    pub fn to(&mut self, done: u64, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(message.to_owned());
            }
            None => self.speak(done, message),
        }
    }

    fn speak(&mut self, done: u64, message: &str) {
        let tenth = (self.total / 10).max(1);
        // Steps tell something by their loss; bytes only that they go on.
        let is_step = matches!(self.unit, Unit::Steps);
        let moved = is_step && (done >= self.said + tenth || (done >= self.total && self.said < self.total));
        if done > self.said && (moved || self.spoken.elapsed() >= QUIET) {
            let (shown, total) = (self.unit.shown(done), self.unit.shown(self.total));
            self.screen.line(format!("{} {shown}/{total} {message}", self.label).trim_end());
            self.said = done;
            self.spoken = Instant::now();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_output_speaks_at_each_tenth_and_at_the_end() {
        let mut progress = Screen::plain().progress("training", 40, Unit::Steps);
        let mut said = Vec::new();
        for done in 0..=40 {
            progress.to(done, "");
            said.push(progress.said);
        }
        said.dedup();
        assert_eq!(said, [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]);
    }

    #[test]
    fn plain_output_is_silent_about_a_quick_transfer() {
        let mut progress = Screen::plain().progress("uploading", 40, Unit::Bytes);
        (0..=40).for_each(|done| progress.to(done, ""));
        assert_eq!(progress.said, 0);
        progress.spoken -= QUIET;
        progress.to(41, "");
        assert_eq!(progress.said, 41);
    }
}
