//! Programs that call MPI themselves, before they are a rank of a world or after: both are whole, and end well.
//!
//! Each test starts a launcher with this program, which runs the one test again in a role and loads the MPI of that
//! launcher. Every process has a watchdog.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(unsafe_code, reason = "calls MPI")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use tarragon_testbed::{Hosts, Launch, Slurm, lacks_mpich, lacks_mpirun, role, say};
use tarragon_transport::{Rank, World};

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;

// SAFETY: the system's loader, as its manual has it.
unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// What is called of an MPI.
struct Mpi {
    library: *mut c_void,
    /// `MPI_COMM_WORLD`: a number in MPICH, the place of an object in Open MPI.
    all: *mut c_void,
}

impl Mpi {
    fn load(is_mpich: bool) -> Mpi {
        let name = if is_mpich { c"libmpich.so.12" } else { c"libmpi.so.40" };
        // SAFETY: a text that ends with a zero.
        let library = unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
        assert!(!library.is_null(), "{name:?} cannot be loaded");
        let mut mpi = Mpi { library, all: null_mut() };
        mpi.all = if is_mpich {
            std::ptr::without_provenance_mut(0x4400_0000)
        } else {
            mpi.find(c"ompi_mpi_comm_world")
        };
        mpi
    }

    fn find(&self, name: &CStr) -> *mut c_void {
        // SAFETY: an open library, and a text that ends with a zero.
        let found = unsafe { dlsym(self.library, name.as_ptr()) };
        assert!(!found.is_null(), "no {name:?}");
        found
    }

    fn init(&self) {
        // SAFETY: MPI's own signature; null stands for no arguments.
        let init: extern "C" fn(*mut c_int, *mut *mut *mut c_char) -> c_int =
            unsafe { std::mem::transmute(self.find(c"MPI_Init")) };
        assert_eq!(init(null_mut(), null_mut()), 0);
    }

    /// `MPI_Comm_rank`, `MPI_Comm_size`.
    fn ask(&self, name: &CStr) -> u32 {
        // SAFETY: MPI's own signature; `all` is as wide as a word, of which MPICH takes half.
        let ask: extern "C" fn(*mut c_void, *mut c_int) -> c_int =
            unsafe { std::mem::transmute(self.find(name)) };
        let mut answer = -1;
        assert_eq!(ask(self.all, &raw mut answer), 0);
        answer.try_into().unwrap()
    }

    fn barrier(&self) {
        // SAFETY: MPI's own signature.
        let barrier: extern "C" fn(*mut c_void) -> c_int =
            unsafe { std::mem::transmute(self.find(c"MPI_Barrier")) };
        assert_eq!(barrier(self.all), 0);
    }

    fn finalize(&self) {
        // SAFETY: MPI's own signature.
        let finalize: extern "C" fn() -> c_int = unsafe { std::mem::transmute(self.find(c"MPI_Finalize")) };
        assert_eq!(finalize(), 0);
    }
}

/// A rank of both, in the order that the role says: which is first, and which is over first.
fn be_both(role: &str) {
    let mpi = Mpi::load(role.contains("mpich"));
    let is_mpi_first = role.contains("mpi-first");
    if is_mpi_first {
        mpi.init();
        mpi.barrier();
    }
    let world = World::from_environment().unwrap();
    world.barrier().unwrap();
    if !is_mpi_first {
        mpi.init();
    }
    for round in 0..20u8 {
        mpi.barrier();
        let mine = if world.rank() == Rank(0) { vec![round] } else { Vec::new() };
        assert_eq!(world.broadcast_bytes(Rank(0), &mine).unwrap(), [round]);
    }
    assert_eq!((mpi.ask(c"MPI_Comm_rank"), mpi.ask(c"MPI_Comm_size")), (world.rank().0, world.size()));
    let text = format!("rank {}: {world}", world.rank());
    if role.contains("mpi-over") {
        mpi.finalize();
        world.barrier().unwrap();
        assert_eq!(world.leave().unwrap(), []);
    } else {
        assert_eq!(world.leave().unwrap(), []);
        mpi.barrier();
        mpi.finalize();
    }
    say(&text);
}

/// In each order; `launch` is given the role.
fn in_each_order(mpi: &str, launch: impl Fn(&str) -> Launch) {
    for first in ["mpi-first", "world-first"] {
        for over in ["mpi-over", "world-over"] {
            let role = format!("{mpi} {first} {over}");
            let ended = launch(&role).ranks(3).run();
            assert!(ended.status.success(), "{role}: {}", ended.text);
            let said: Vec<String> =
                (0..3).map(|rank| format!("rank {rank}: ranks 3 nodes 1 fabric shm")).collect();
            assert_eq!(ended.said(), said, "{role}: {}", ended.text);
        }
    }
}

#[test]
fn open_mpi_is_called_by_its_ranks() {
    let test = "open_mpi_is_called_by_its_ranks";
    if let Some(role) = role() {
        return be_both(&role);
    }
    if !lacks_mpirun() {
        in_each_order("openmpi", |role| Launch::new(test, role));
    }
}

#[test]
fn mpich_is_called_by_its_ranks() {
    let test = "mpich_is_called_by_its_ranks";
    if let Some(role) = role() {
        return be_both(&role);
    }
    if !lacks_mpich() {
        in_each_order("mpich", |role| Launch::mpich(test, role));
    }
}

#[test]
fn open_mpi_is_called_by_ranks_of_srun() {
    let test = "open_mpi_is_called_by_ranks_of_srun";
    if let Some(role) = role() {
        return be_both(&role);
    }
    let Some(hosts) = Hosts::for_ranks(1) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    in_each_order("openmpi", |role| Launch::far(slurm.srun(1), test, role).with_mpirun_environment());
}
