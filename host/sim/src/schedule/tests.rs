//! Turns, time, and what happens when nobody can go on.

use std::sync::Arc;

use storage::sync::{Condvar, Mutex, channel};

use super::*;

/// Who got the lock in which order, and when it was over.
fn race(seed: u64) -> (Vec<u32>, Duration) {
    run(seed, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let order = order.clone();
                let body = move || {
                    for _ in 0..5 {
                        order.lock().push(number);
                        sleep(Duration::from_millis(u64::from(number)));
                    }
                };
                spawn(format!("racer {number}"), body).unwrap()
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        (order.lock().clone(), now().unwrap())
    })
    .unwrap()
}

#[test]
fn a_seed_gives_one_order_and_others_give_others() {
    let orders: Vec<_> = (0..20).map(race).collect();
    assert_eq!(orders, (0..20).map(race).collect::<Vec<_>>());
    assert!(orders.iter().any(|(order, _)| *order != orders[0].0));
    assert!(orders.iter().all(|(_, time)| *time == Duration::from_millis(15)), "only the slowest counts");
}

#[test]
fn who_waits_for_what_never_comes_is_told() {
    let stuck = run(1, || {
        let (lock, arrived) = (Mutex::new(()), Condvar::new());
        arrived.wait(&mut lock.lock());
    });
    assert!(stuck.unwrap_err().what.contains("`main` is Waiting"));
}

#[test]
fn two_locks_taken_in_two_orders_are_found() {
    let dead = |seed| {
        run(seed, || {
            let (a, b) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
            let other = {
                let (a, b) = (a.clone(), b.clone());
                spawn("other", move || {
                    let _b = b.lock();
                    let _a = a.lock();
                })
            };
            {
                let _a = a.lock();
                let _b = b.lock();
            }
            other.unwrap().join().unwrap();
        })
        .is_err()
    };
    let count = (0..100).filter(|seed| dead(*seed)).count();
    assert!((1..100).contains(&count), "some orders are well: {count}");
}

#[test]
fn a_channel_wakes_whoever_waits_and_ends_with_its_sender() {
    let sum = run(7, || {
        let (sender, receiver) = channel();
        let adder = spawn("adder", move || {
            let mut sum = 0;
            while let Ok(number) = receiver.recv() {
                sum += number;
            }
            sum
        });
        for number in 1..=10 {
            sender.send(number).unwrap();
        }
        drop(sender);
        adder.unwrap().join().unwrap()
    });
    assert_eq!(sum, Ok(55));
}

#[test]
fn a_lock_held_by_a_sleeper_is_waited_for() {
    let waited = run(3, || {
        let lock = Arc::new(Mutex::new(()));
        let held = lock.clone();
        let sleeper = spawn("sleeper", move || {
            let _held = held.lock();
            sleep(Duration::from_secs(60));
        });
        sleep(Duration::from_secs(1));
        drop(lock.lock());
        sleeper.unwrap().join().unwrap();
        now().unwrap()
    });
    assert_eq!(waited, Ok(Duration::from_secs(60)));
}

#[test]
#[should_panic(expected = "as it is meant to")]
fn a_panic_of_the_program_is_passed_on() {
    let _ = run(1, || panic!("as it is meant to"));
}
