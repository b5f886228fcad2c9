//! What is measured and tried for longer than a test may take: `lockstep soak`, random schedules (see
//! [`crate::testkit::soak`]), `lockstep bench-audit`, the audit's memory (see [`crate::testkit::drift`]), and `lockstep bench-large`, that of a long
//! text's ingestion (see [`crate::testkit::large`]).

use std::time::{Duration, Instant};

use crate::{
    failure::Failure,
    testkit::{
        drift, large,
        soak::{Size, Soak, Total},
    },
};

/// A round of half a minute or so on a machine with two cores, in which both stores die twice.
const ROUND: Size = Size { writes: 300, deaths: 2 };

/// The longest load of one round: then what is late is still within the grace that is meant for it.
const LOAD_MAX: Duration = Duration::from_secs(35);

/// Runs rounds until the time is over, or something is broken. The first one is drawn from `seed`, the next from the number
/// after it.
///
/// # Errors
/// When a promise was broken; what happened is printed before.
pub fn run(minutes: u64, seed: Option<u64>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::because("the runtime can not start"))?.block_on(rounds(minutes, seed))
}

/// The most that a process of the audit may hold, in KiB: 256 MiB.
const PEAK_KIB_MAX: u64 = 256 * 1024;

/// Measures the audit of so many points.
///
/// # Errors
/// When it takes more memory than it may.
pub fn bench_audit(points: u32) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("the runtime can not start"))?;
    let measured = runtime.block_on(drift::measure(points, |said| eprintln!("bench-audit: {said}")));
    for measured in &measured {
        println!("{measured}");
    }
    let peak = measured.iter().map(|measured| measured.peak_kib).max().unwrap_or_default();
    if peak > PEAK_KIB_MAX { Err(Failure::new(format!("{peak} KiB are more than {PEAK_KIB_MAX}"))) } else { Ok(()) }
}

/// The most that a function with half a gigabyte may hold beside the embedding model's quarter, in KiB.
const LARGE_PEAK_KIB_MAX: u64 = 256 * 1024;

/// Measures the ingestion of a text of so many megabytes, in pieces of a minute.
///
/// # Errors
/// When it takes more memory than it may.
pub fn bench_large(megabytes: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("the runtime can not start"))?;
    let measured = runtime.block_on(large::measure(megabytes, |said| eprintln!("bench-large: {said}")));
    println!("{measured}");
    let peak = measured.peak_kib;
    if peak > LARGE_PEAK_KIB_MAX { Err(Failure::new(format!("{peak} KiB are too many"))) } else { Ok(()) }
}

async fn rounds(minutes: u64, seed: Option<u64>) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let first = seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("soak: {minutes} minutes from seed {first}");
    let soak = Soak::start().await;
    let mut total = Total::default();
    for seed in first.. {
        let round = soak.round(seed, ROUND, LOAD_MAX).await;
        println!("{round}");
        total.add(&round);
        if !round.violations.is_empty() {
            println!("{}\n\n{}", round.history, round.violations.join("\n"));
            println!("\nAgain: make soak SEED={seed}");
            break;
        }
        if Instant::now() >= end {
            break;
        }
    }
    println!("soak: {total}");
    if total.violations > 0 { Err(Failure::new(format!("{} violations", total.violations))) } else { Ok(()) }
}
