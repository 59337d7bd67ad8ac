//! CPU time of this thread.

use std::hint::black_box;

/// CPU time that this thread has used, in seconds (Linux, `/proc/thread-self/schedstat`, nanoseconds on the CPU).
pub(crate) fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds: u64 = text
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number");
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// Runs of a piece between two looks at the clock: a thread that nobody interrupts is accounted for at each tick only, every 4 ms.
const RUNS: u32 = 20;

/// CPU seconds of each of several pieces of work, the least of `rounds`, taken in turns so that all meet the same weather.
pub(crate) fn least_seconds(rounds: u32, work: &mut [&mut dyn FnMut() -> usize]) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; work.len()];
    for _round in 0..rounds {
        for (piece, least) in work.iter_mut().zip(&mut least) {
            let start = thread_seconds();
            for _run in 0..RUNS {
                black_box(piece());
            }
            *least = least.min((thread_seconds() - start) / f64::from(RUNS));
        }
    }
    least
}
