//! Keeps message and place of a panic inside a body, instead of printing it.
//!
//! The place of a panic is known only to the panic hook, so the first batch puts a hook before the one that is there.
//! It acts only on threads that are inside a body at that moment; every other panic goes on to the earlier hook.

use super::inside;
use crate::error::Cause;
use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook once per process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !inside::is_running() {
                return before(info);
            }
            let place = info.location().map(|l| format!("{}:{}:{}", l.file(), l.line(), l.column()));
            PLACE.with_borrow_mut(|p| *p = place);
        }));
    });
}

/// What is known of the panic that `catch_unwind` returned on this thread.
pub(crate) fn cause(payload: Box<dyn Any + Send>) -> Cause {
    let message = match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => match other.downcast::<&'static str>() {
            Ok(text) => (*text).to_string(),
            Err(_) => "a value that is not text".to_string(),
        },
    };
    Cause::Panic { message, place: PLACE.take().unwrap_or_else(|| "unknown place".to_string()) }
}
