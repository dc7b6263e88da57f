//! How long `check` takes: the demonstration, and generated layouts of growing size.
//!
//! Timed is the whole process of this program as `cargo xtask` starts it, guests built before: the median of five. How the
//! time grows is seen without the cost of starting a process, by compiling within this one, the shortest of nine, since
//! another program on the machine can only make it longer. Between sizes it may grow no faster than n log n, n being
//! domains and devices together.

use super::generate;
use super::{Bench, Figure, Value, folder};
use crate::exec;
use crate::files::Files;
use crate::guests::Guests;
use crate::pipeline::{self, Job, Options};
use crate::repo;
use crate::trouble::Trouble;
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// Domains; sixteen devices each.
const SIZES: [usize; 5] = [2, 4, 8, 16, 32];
/// Factor beyond n log n that a doubling may seem to take: the machine's noise.
const NOISE: f64 = 1.25;

/// The time figures.
pub(super) fn measure(_: &Bench) -> Result<Vec<Figure>, Trouble> {
    let demo = repo::root().join("layouts/demo.dts");
    let mut figures =
        vec![Figure::new("check of layouts/demo.dts", Value::Millis(median(&demo)?), Some(100.0), ["", "", ""])];
    let mut series = Vec::new();
    for domains in SIZES {
        let devices = 16 * domains;
        let (board, layout) = generate::board_and_layout(domains, devices);
        repo::write(&folder().join(format!("generated{domains}-board.dts")), board.as_bytes())?;
        let path = folder().join(format!("generated{domains}.dts"));
        repo::write(&path, layout.as_bytes())?;
        let time = median(&path)?;
        series.push(((domains + devices) as f64, shortest(&path)?));
        let goal = (domains == 32).then_some(1000.0);
        figures.push(Figure::new(
            format!("check of {domains} domains, {devices} devices"),
            Value::Millis(time),
            goal,
            ["", "", ""],
        ));
    }
    figures.push(Figure::new("  growth against n log n", Value::Words(growth(&series)), None, ["", "", ""]));
    Ok(figures)
}

/// Median of five runs in milliseconds, after one that warms the caches.
fn median(layout: &Path) -> Result<f64, Trouble> {
    let me = env::current_exe().map_err(Trouble::file(Path::new("/proc/self/exe"), "find"))?;
    let mut times = Vec::new();
    for round in 0..6 {
        let started = Instant::now();
        let output = exec::output(Command::new(&me).current_dir(repo::root()).arg("check").arg(layout), LIMIT)?;
        if !output.status.success() {
            return Err(Trouble::other(format!(
                "{} has errors:\n{}",
                layout.display(),
                String::from_utf8_lossy(&output.stdout).chars().take(4000).collect::<String>()
            )));
        }
        if round > 0 {
            times.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Shortest of nine compilations in milliseconds.
fn shortest(layout: &Path) -> Result<f64, Trouble> {
    let options = Options::default();
    let mut shortest = f64::INFINITY;
    for _ in 0..9 {
        let files = Files::default();
        let guests = Guests::new(layout, &[], false);
        let job = Job { layout, options: &options, hypervisors: None, guests: &guests, files: &files };
        let started = Instant::now();
        pipeline::compile(&job, |_| Ok(()))?;
        shortest = shortest.min(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(shortest)
}

/// How the time of each doubling compares with what n log n allows; at most 1 is within.
fn growth(series: &[(f64, f64)]) -> String {
    let weight = |n: f64| n * n.log2();
    let steps = series.windows(2).map(|pair| pair[1].1 / pair[0].1 / (weight(pair[1].0) / weight(pair[0].0)));
    let steps: Vec<f64> = steps.collect();
    let within = steps.iter().all(|step| *step <= NOISE);
    let all: Vec<_> = steps.iter().map(|step| format!("{step:.2}")).collect();
    let times: Vec<_> = series.iter().map(|(_, time)| format!("{time:.1}")).collect();
    format!(
        "{} ({} ms; per doubling, of n log n: {})",
        if within { "no worse" } else { "worse" },
        times.join(", "),
        all.join(", ")
    )
}
