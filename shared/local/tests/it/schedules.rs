//! P1 to P5 under random schedules: the short version of `make soak`.

use std::time::Duration;

use local::{
    settings,
    testkit::soak::{Size, Soak},
};

/// What is drawn unless `SCHEDULE_SEED` says otherwise.
const SEED: u64 = 1;

/// Hundreds of actions, and one death of both stores.
const SIZE: Size = Size { writes: 120, deaths: 1 };

/// What is drawn is done at most for so long: a busy machine does less of it, and not longer.
const LOAD_MAX: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_goes_wrong_in_whichever_order_readers_see_what_is_active_and_nothing_is_lost() {
    let seed = settings::var("SCHEDULE_SEED").map_or(SEED, |seed| seed.parse().expect("SCHEDULE_SEED is a number"));
    let soak = Soak::start().await;
    let round = soak.round(seed, SIZE, LOAD_MAX).await;
    println!("{round}");
    assert!(
        round.violations.is_empty(),
        "{}\n\n{}\n\nAgain: SCHEDULE_SEED={seed} cargo test --package local --test it schedules",
        round.history,
        round.violations.join("\n")
    );
    // It was worth something.
    assert!(round.steps > 50 && round.queries > 20, "{round}");
}
