//! LMDB through its C interface, in a folder in memory: a memory map that is written to, no sync, one transaction per
//! write, and one read-only transaction that is reset and renewed for every read, so that each read sees the newest
//! value and holds no old pages. (Kept open it would read a snapshot.)
#![expect(unsafe_code, reason = "calls LMDB")]

use super::{Ends, Plan, Store};
use lmdb_master_sys as sys;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

/// A database, opened by this process.
pub(crate) struct Lmdb {
    env: *mut sys::MDB_env,
    db: sys::MDB_dbi,
    reader: *mut sys::MDB_txn,
}

impl Lmdb {
    /// The database in a folder, which is made if it is not there.
    pub(crate) fn open(folder: &Path, plan: Plan) -> Self {
        let path = CString::new(folder.to_str().expect("a name in UTF-8")).expect("no zero byte");
        let flags = sys::MDB_NOSYNC | sys::MDB_WRITEMAP | sys::MDB_NOMETASYNC | sys::MDB_NORDAHEAD;
        // Old versions stay until no reader sees them, and large values take whole pages.
        let size = plan.bytes() * 2 + plan.keys as usize * 256 + (256 << 20);
        let mut env = null_mut();
        // SAFETY: a place for the handle.
        done(unsafe { sys::mdb_env_create(&raw mut env) });
        // SAFETY: the handle was made above, and is not open.
        done(unsafe { sys::mdb_env_set_mapsize(env, size) });
        // SAFETY: the same, and the path ends with a zero byte.
        done(unsafe { sys::mdb_env_open(env, path.as_ptr(), flags, 0o600) });
        let txn = begin(env, 0);
        let mut db = 0;
        // SAFETY: the transaction was begun, and no other is open in this process.
        done(unsafe { sys::mdb_dbi_open(txn, null(), sys::MDB_INTEGERKEY | sys::MDB_CREATE, &raw mut db) });
        // SAFETY: the transaction was begun, and is not used again.
        done(unsafe { sys::mdb_txn_commit(txn) });
        let reader = begin(env, sys::MDB_RDONLY);
        // SAFETY: the transaction was begun and only reads.
        unsafe { sys::mdb_txn_reset(reader) };
        Self { env, db, reader }
    }

    /// Looks at values of one moment.
    fn read<R>(&mut self, look: impl FnOnce(&dyn Fn(u64) -> *const [u8]) -> R) -> R {
        // SAFETY: the transaction was reset.
        done(unsafe { sys::mdb_txn_renew(self.reader) });
        let found = look(&|key| find(self.reader, self.db, key).expect("every key is there"));
        // SAFETY: the transaction is open and only reads; `look` let go of what it has seen.
        unsafe { sys::mdb_txn_reset(self.reader) };
        found
    }

    /// Changes one key.
    fn write<R>(&mut self, change: impl FnOnce(*mut sys::MDB_txn, sys::MDB_dbi) -> R) -> R {
        let txn = begin(self.env, 0);
        let result = change(txn, self.db);
        // SAFETY: the transaction was begun, and is not used again.
        done(unsafe { sys::mdb_txn_commit(txn) });
        result
    }
}

impl Drop for Lmdb {
    fn drop(&mut self) {
        // SAFETY: the transaction is ours, and not used again.
        unsafe { sys::mdb_txn_abort(self.reader) };
        // SAFETY: no transaction is open any more.
        unsafe { sys::mdb_env_close(self.env) };
    }
}

fn done(code: i32) {
    assert_eq!(code, 0, "LMDB fails");
}

fn begin(env: *mut sys::MDB_env, flags: u32) -> *mut sys::MDB_txn {
    let mut txn = null_mut();
    // SAFETY: the environment is open, and this thread has no other transaction that writes.
    done(unsafe { sys::mdb_txn_begin(env, null_mut(), flags, &raw mut txn) });
    txn
}

fn bytes_of<T: ?Sized>(it: &T) -> sys::MDB_val {
    sys::MDB_val { mv_size: size_of_val(it), mv_data: std::ptr::from_ref(it).cast_mut().cast::<c_void>() }
}

/// The bytes of a value, which last as long as the transaction.
fn find(txn: *mut sys::MDB_txn, db: sys::MDB_dbi, key: u64) -> Option<*const [u8]> {
    let (mut key, mut value) = (bytes_of(&key), sys::MDB_val { mv_size: 0, mv_data: null_mut() });
    // SAFETY: the transaction is open, and both places live until the call returns.
    let code = unsafe { sys::mdb_get(txn, db, &raw mut key, &raw mut value) };
    (code == 0)
        .then(|| std::ptr::slice_from_raw_parts(value.mv_data.cast_const().cast::<u8>(), value.mv_size))
}

fn store(txn: *mut sys::MDB_txn, db: sys::MDB_dbi, key: u64, value: &[u8]) {
    let (mut key, mut value) = (bytes_of(&key), bytes_of(value));
    // SAFETY: the transaction is open and may write, and the bytes of both live until the call returns.
    done(unsafe { sys::mdb_put(txn, db, &raw mut key, &raw mut value, 0) });
}

/// The ends of a value of an open transaction.
fn ends(value: *const [u8]) -> Ends {
    // SAFETY: LMDB gave these bytes; nobody writes to them before the transaction is reset, which is after this.
    Ends::of(unsafe { &*value })
}

impl Store for Lmdb {
    fn get(&mut self, key: u64) -> u64 {
        self.read(|find| ends(find(key)).0)
    }

    fn set(&mut self, key: u64, value: u64) {
        self.put(key, &value.to_ne_bytes());
    }

    fn pinned(&mut self, key: u64) -> Ends {
        self.read(|find| ends(find(key)))
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        self.write(|txn, db| store(txn, db, key, value));
    }

    fn fetch_add(&mut self, key: u64) -> u64 {
        self.write(|txn, db| {
            let old = ends(find(txn, db, key).expect("every key is there")).0;
            store(txn, db, key, &(old + 1).to_ne_bytes());
            old
        })
    }

    fn multi_get(&mut self, keys: &[u64], values: &mut Vec<u64>) {
        self.read(|find| values.extend(keys.iter().map(|key| ends(find(*key)).0)));
    }
}
