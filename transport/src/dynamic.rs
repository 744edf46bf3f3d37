//! Libraries that are loaded at run time, so that neither builds nor machines that lack them need them.
#![expect(unsafe_code, reason = "calls the system's loader")]

use std::ffi::{CStr, CString, c_void};

/// A library that was loaded, for as long as the process lives: libraries of this kind have threads of their own.
#[derive(Clone, Copy)]
pub(crate) struct Dynamic(*mut c_void);

impl Dynamic {
    /// Loads `file`: a path, or a name that the loader looks for. The error is what the loader says.
    ///
    /// Its symbols become visible to libraries loaded later: its own plug-ins, which are not linked with it, need them.
    pub(crate) fn load(file: &str) -> Result<Dynamic, String> {
        let Ok(name) = CString::new(file) else { return Err("its name has a zero byte".to_owned()) };
        // SAFETY: a string that ends; the library's initialisers are trusted as the library is, which the user names.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() { Err(last_error()) } else { Ok(Dynamic(handle)) }
    }

    /// What the program is linked with, and libraries that were loaded for all to see.
    pub(crate) fn program() -> Result<Dynamic, String> {
        // SAFETY: null stands for the program itself.
        let handle = unsafe { libc::dlopen(std::ptr::null(), libc::RTLD_NOW) };
        if handle.is_null() { Err(last_error()) } else { Ok(Dynamic(handle)) }
    }

    /// The address of a symbol, never null; an error names the one that is missing.
    pub(crate) fn symbol(self, name: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: a handle of `dlopen` that is never closed, and a string that ends.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if found.is_null() { Err(format!("it has no {}", name.to_string_lossy())) } else { Ok(found) }
    }
}

fn last_error() -> String {
    // SAFETY: takes nothing; answers with a string of this thread's, or null.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader says nothing".to_owned();
    }
    // SAFETY: not null, so it is a string that ends, valid until this thread's next call of the loader.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::Dynamic;

    #[test]
    fn what_is_missing_is_named() {
        let why = |file| Dynamic::load(file).err().unwrap();
        assert!(why("/nowhere/libnone.so.1").contains("/nowhere/libnone.so.1"));
        assert!(why("a\0b").contains("zero byte"));
        let library = Dynamic::load("libc.so.6").unwrap();
        assert!(library.symbol(c"getpid").is_ok());
        assert_eq!(library.symbol(c"no_such_function"), Err("it has no no_such_function".to_owned()));
    }
}
