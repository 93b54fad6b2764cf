//! Many simulations on all processors at once.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// What `work` makes of each task, in the order of the tasks. `each` is told of each that is done: how
/// many are, and which it was.
pub(super) fn map<T: Sync, R: Send>(
    tasks: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut each: impl FnMut(usize, &T),
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let (sender, done) = mpsc::channel();
    let workers = thread::available_parallelism().map_or(1, usize::from).min(tasks.len());
    let mut results: Vec<Option<R>> = tasks.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { return };
                    if sender.send((at, work(task))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (count, (at, result)) in done.iter().enumerate() {
            each(count + 1, &tasks[at]);
            results[at] = Some(result);
        }
    });
    // A worker that has panicked has ended the scope.
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_tasks_and_each_is_told_of_once() {
        let tasks: Vec<u64> = (0..100).collect();
        let mut told = Vec::new();
        let squares = map(&tasks, |n| n * n, |count, n| told.push((count, *n)));
        assert!(squares.iter().zip(&tasks).all(|(square, n)| *square == n * n));
        assert!(told.iter().zip(1..).all(|((count, _), expected)| *count == expected));
        let mut which: Vec<u64> = told.into_iter().map(|(_, n)| n).collect();
        which.sort_unstable();
        assert_eq!(which, tasks);
    }
}
