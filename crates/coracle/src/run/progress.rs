//! Bars for images that are being fetched, where there is somebody to see them.

use std::collections::HashMap;
use std::io::IsTerminal;

use coracle_core::kuberuntime::PullReport;
use coracle_provider::PullProgress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

/// Shows pulls until the senders are gone.
pub(super) async fn show(mut reports: mpsc::Receiver<PullReport>) {
    let bars = MultiProgress::new();
    let mut by_image: HashMap<String, ProgressBar> = HashMap::new();
    while let Some(report) = reports.recv().await {
        let bar = by_image.entry(report.image.clone()).or_insert_with(|| bars.add(new_bar(&report.image)));
        match report.progress {
            Some(PullProgress::Resolved { total_bytes }) => bar.set_length(total_bytes),
            Some(PullProgress::Fetched { bytes }) => bar.set_position(bytes),
            Some(PullProgress::Preparing) => bar.set_message("compiling"),
            None => {
                bar.finish_and_clear();
                by_image.remove(&report.image);
            }
        }
    }
}

/// Whether somebody would see them.
pub(super) fn is_wanted() -> bool {
    std::io::stderr().is_terminal()
}

fn new_bar(image: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(image.to_owned());
    bar
}
