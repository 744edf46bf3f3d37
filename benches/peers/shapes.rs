//! The graphs that benches run: who depends on whom, and which reads and writes say so.

/// A graph in list order, edges by source, and for each task the data it reads and writes (dense integer keys).
pub(crate) struct Shape {
    first: Vec<u32>,
    targets: Vec<u32>,
    pub(crate) in_degree: Vec<u32>,
    pub(crate) roots: Vec<u32>,
    pub(crate) reads: Vec<Vec<u64>>,
    pub(crate) writes: Vec<u64>,
}

/// Names of all shapes.
pub(crate) const NAMES: [&str; 6] = ["independent", "chain", "stencil", "wavefront", "tree", "random"];

impl Shape {
    /// The shape of this name with about `n` tasks.
    pub(crate) fn new(name: &str, n: usize) -> Self {
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); n];
        match name {
            "independent" => {}
            "chain" => (1..n).for_each(|i| sources[i].push(i as u32 - 1)),
            "stencil" => stencil(&mut sources),
            "wavefront" => wavefront(&mut sources),
            "tree" => tree(&mut sources),
            "random" => random(&mut sources),
            other => panic!("no shape is called {other}"),
        }
        Self::from_sources(name, &sources)
    }

    fn from_sources(name: &str, sources: &[Vec<u32>]) -> Self {
        let n = sources.len();
        let mut first = vec![0u32; n + 1];
        sources.iter().flatten().for_each(|s| first[*s as usize + 1] += 1);
        (0..n).for_each(|i| first[i + 1] += first[i]);
        let mut fill = first.clone();
        let mut targets = vec![0; first[n] as usize];
        for (i, list) in sources.iter().enumerate() {
            for s in list {
                targets[fill[*s as usize] as usize] = i as u32;
                fill[*s as usize] += 1;
            }
        }
        let in_degree: Vec<u32> = sources.iter().map(|s| s.len() as u32).collect();
        let roots = (0..n as u32).filter(|i| in_degree[*i as usize] == 0).collect();
        let reads = sources.iter().map(|s| s.iter().map(|s| datum(name, n, *s as usize)).collect()).collect();
        let writes = (0..n).map(|i| datum(name, n, i)).collect();
        Self { first, targets, in_degree, roots, reads, writes }
    }

    pub(crate) fn len(&self) -> usize {
        self.in_degree.len()
    }

    #[inline(always)]
    pub(crate) fn targets(&self, task: u32) -> &[u32] {
        &self.targets[self.first[task as usize] as usize..self.first[task as usize + 1] as usize]
    }
}

/// The datum that task `i` writes: one for a chain, one per task elsewhere.
fn datum(name: &str, _: usize, i: usize) -> u64 {
    if name == "chain" { 0 } else { i as u64 }
}

/// Rows of 100 cells; each cell needs itself and its two neighbours of the row before.
fn stencil(sources: &mut [Vec<u32>]) {
    let width = 100.min(sources.len());
    for (i, list) in sources.iter_mut().enumerate().skip(width) {
        let (row, x) = (i / width - 1, i % width);
        for x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
            list.push((row * width + x) as u32);
        }
    }
}

/// A square; each cell needs the one above and the one to the left.
fn wavefront(sources: &mut [Vec<u32>]) {
    let width = (sources.len() as f64).sqrt() as usize;
    for (i, list) in sources.iter_mut().enumerate() {
        if i >= width {
            list.push((i - width) as u32);
        }
        if i % width > 0 {
            list.push(i as u32 - 1);
        }
    }
}

/// A binary tree from one root out to the leaves, and another from leaves in to one root.
fn tree(sources: &mut [Vec<u32>]) {
    let n = sources.len();
    let half = n / 2;
    for (i, list) in sources.iter_mut().enumerate().take(half).skip(1) {
        list.push((i as u32 - 1) / 2);
    }
    for (i, list) in sources.iter_mut().enumerate().skip(half) {
        // Task n-1-k of the inner half is node k of a tree numbered from its root.
        let k = n - 1 - i;
        for child in [2 * k + 2, 2 * k + 1] {
            if child < n - half {
                list.push((n - 1 - child) as u32);
            }
        }
    }
}

/// Three sources each, anywhere among the 1000 tasks before.
fn random(sources: &mut [Vec<u32>]) {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    for (i, list) in sources.iter_mut().enumerate().skip(1) {
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let s = i - 1 - (state % i.min(1000) as u64) as usize;
            if !list.contains(&(s as u32)) {
                list.push(s as u32);
            }
        }
    }
}
