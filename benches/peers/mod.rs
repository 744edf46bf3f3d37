//! Other ways to run a graph of tasks, with the same bodies, arguments and results: what ours is measured against.
//!
//! All get the edges for nothing, as arrays; counters are re-armed by one copy; bodies are called through a pointer
//! that the compiler cannot see through; results are stored per task and summed by the caller.

pub(crate) mod shapes;

use crossbeam_deque::{Steal, Stealer, Worker};
use rayon::{Scope, ThreadPool, ThreadPoolBuilder};
use shapes::Shape;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What every task does: nothing worth mentioning, but its result depends on its argument.
pub(crate) fn body(i: u64) -> u64 {
    i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}

/// A body and its argument.
type Record = (fn(u64) -> u64, u64);

/// A graph with bodies as flat records.
pub(crate) struct Prebuilt {
    pub(crate) shape: Shape,
    functions: Vec<Record>,
    counters: Vec<AtomicU32>,
    results: Vec<AtomicU64>,
}

impl Prebuilt {
    pub(crate) fn new(shape: Shape) -> Self {
        let n = shape.len();
        let function: fn(u64) -> u64 = black_box(body);
        Self {
            functions: (0..n as u64).map(|i| (function, i)).collect(),
            counters: shape.in_degree.iter().map(|d| AtomicU32::new(*d)).collect(),
            results: (0..n).map(|_| AtomicU64::new(0)).collect(),
            shape,
        }
    }

    #[inline(always)]
    fn execute(&self, task: u32) {
        let (function, argument) = self.functions[task as usize];
        self.results[task as usize].store(function(argument), Ordering::Relaxed);
    }

    #[inline(always)]
    fn arrive(&self, task: u32) -> bool {
        self.counters[task as usize].fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn arm(&self) {
        for (counter, degree) in self.counters.iter().zip(&self.shape.in_degree) {
            counter.store(*degree, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.results.iter().fold(0, |sum, r| sum.wrapping_add(r.load(Ordering::Relaxed)))
    }

    /// One thread, plain counters, a stack of ready tasks.
    pub(crate) fn serial(&self, counters: &mut Vec<u32>, results: &mut [u64]) -> u64 {
        counters.clear();
        counters.extend_from_slice(&self.shape.in_degree);
        let mut stack: Vec<u32> = Vec::with_capacity(64);
        for root in &self.shape.roots {
            stack.push(*root);
            while let Some(task) = stack.pop() {
                let (function, argument) = self.functions[task as usize];
                results[task as usize] = function(argument);
                for t in self.shape.targets(task) {
                    counters[*t as usize] -= 1;
                    if counters[*t as usize] == 0 {
                        stack.push(*t);
                    }
                }
            }
        }
        results.iter().fold(0, |sum, r| sum.wrapping_add(*r))
    }

    /// A rayon scope; every ready task is spawned.
    pub(crate) fn rayon(&self, pool: &ThreadPool) -> u64 {
        fn run<'s>(graph: &'s Prebuilt, scope: &Scope<'s>, task: u32) {
            graph.execute(task);
            for t in graph.shape.targets(task) {
                if graph.arrive(*t) {
                    let t = *t;
                    scope.spawn(move |scope| run(graph, scope, t));
                }
            }
        }
        self.arm();
        pool.scope(|scope| {
            for root in &self.shape.roots {
                let root = *root;
                scope.spawn(move |scope| run(self, scope, root));
            }
        });
        self.sum()
    }

    /// A rayon scope; the first target that becomes ready runs at once, the others are spawned.
    pub(crate) fn rayon_inline(&self, pool: &ThreadPool) -> u64 {
        fn run<'s>(graph: &'s Prebuilt, scope: &Scope<'s>, task: u32) {
            let mut next = Some(task);
            while let Some(task) = next.take() {
                graph.execute(task);
                for t in graph.shape.targets(task) {
                    if graph.arrive(*t) {
                        match next {
                            None => next = Some(*t),
                            Some(_) => {
                                let t = *t;
                                scope.spawn(move |scope| run(graph, scope, t));
                            }
                        }
                    }
                }
            }
        }
        self.arm();
        pool.scope(|scope| {
            for root in &self.shape.roots {
                let root = *root;
                scope.spawn(move |scope| run(self, scope, root));
            }
        });
        self.sum()
    }

    /// Threads that steal from each other's deques, ended tasks in one counter; plain, as its documents show it.
    pub(crate) fn crossbeam(&self, threads: usize) -> u64 {
        self.arm();
        let deques: Vec<Worker<u32>> = (0..threads).map(|_| Worker::new_lifo()).collect();
        let stealers: Vec<Stealer<u32>> = deques.iter().map(Worker::stealer).collect();
        for (i, root) in self.shape.roots.iter().enumerate() {
            deques[i * threads / self.shape.roots.len()].push(*root);
        }
        let left = AtomicUsize::new(self.shape.len());
        std::thread::scope(|scope| {
            for deque in deques {
                let (left, stealers) = (&left, &stealers);
                scope.spawn(move || self.crossbeam_worker(&deque, stealers, left));
            }
        });
        self.sum()
    }

    fn crossbeam_worker(&self, deque: &Worker<u32>, stealers: &[Stealer<u32>], left: &AtomicUsize) {
        while left.load(Ordering::Acquire) > 0 {
            let steal = || {
                stealers.iter().find_map(|s| match s.steal_batch_and_pop(deque) {
                    Steal::Success(task) => Some(task),
                    _ => None,
                })
            };
            let Some(task) = deque.pop().or_else(steal) else {
                std::thread::yield_now();
                continue;
            };
            self.execute(task);
            for t in self.shape.targets(task) {
                if self.arrive(*t) {
                    deque.push(*t);
                }
            }
            left.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What rayon needs to *declare*: a boxed closure per task, built in the timed work; edges and counters are given.
pub(crate) fn rayon_boxed(
    shape: &Shape,
    counters: &[AtomicU32],
    results: &[AtomicU64],
    pool: &ThreadPool,
) -> u64 {
    type Boxed<'a> = Box<dyn Fn() + Send + Sync + 'a>;
    struct Graph<'a> {
        shape: &'a Shape,
        counters: &'a [AtomicU32],
        tasks: Vec<Boxed<'a>>,
    }
    fn run<'s>(graph: &'s Graph<'s>, scope: &Scope<'s>, task: u32) {
        graph.tasks[task as usize]();
        for t in graph.shape.targets(task) {
            if graph.counters[*t as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
                let t = *t;
                scope.spawn(move |scope| run(graph, scope, t));
            }
        }
    }
    for (counter, degree) in counters.iter().zip(&shape.in_degree) {
        counter.store(*degree, Ordering::Relaxed);
    }
    let tasks = (0..shape.len())
        .map(|i| {
            let result = &results[i];
            Box::new(move || result.store(body(i as u64), Ordering::Relaxed)) as Boxed<'_>
        })
        .collect();
    let graph = Graph { shape, counters, tasks };
    pool.scope(|scope| {
        for root in &shape.roots {
            let (graph, root) = (&graph, *root);
            scope.spawn(move |scope| run(graph, scope, root));
        }
    });
    results.iter().fold(0, |sum, r| sum.wrapping_add(r.load(Ordering::Relaxed)))
}

/// A rayon pool of its own, so that nothing else runs in it.
pub(crate) fn rayon_pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads for the peer")
}
