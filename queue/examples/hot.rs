//! Temporary.
#![allow(clippy::all, missing_docs, unused)]
use tarragon_queue::Queue;
fn cpu() -> f64 { let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime); t.tv_sec as f64 * 1e9 + t.tv_nsec as f64 }
fn main() {
    let n: u64 = 2_000_000;
    for strict in [false, true] {
        let q = Queue::<u64>::builder().strict(strict).create().unwrap();
        let b = Queue::<Vec<u8>>::builder().strict(strict).create().unwrap();
        let mut best = [f64::MAX; 2];
        for _ in 0..7 {
            let t = cpu();
            for i in 0..n { q.put(i).unwrap(); assert_eq!(q.get().unwrap(), i); }
            best[0] = best[0].min((cpu() - t) / n as f64);
            let t = cpu();
            for i in 0..n {
                let mut l = b.loan(64).unwrap(); l.copy_from_slice(&[i as u8; 64]); l.send().unwrap();
                let r = b.get_ref().unwrap(); assert_eq!(r[63], i as u8);
            }
            best[1] = best[1].min((cpu() - t) / n as f64);
        }
        println!("strict {strict}: u64 put+get {:.1} ns, loan64+get_ref {:.1} ns", best[0], best[1]);
    }
}
