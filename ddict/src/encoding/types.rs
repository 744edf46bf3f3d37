//! Names of types, and the hash by which both ends of a dictionary know that they speak of the same ones.
//!
//! Numbers, texts and `Vec`s of numbers have names that never change, as their encodings. The name of any other type is
//! what the compiler calls it, without the paths of modules: both ends are usually built by one toolchain, and a type
//! that moves to another module keeps its name. So two types of one name are taken for the same: what their bytes say
//! decides then, as it does for two versions of one type.

use super::plain::for_numbers;
use std::any::{TypeId, type_name as compiler_name};
use xxhash_rust::xxh3::xxh3_64;

/// Raised when an encoding changes.
const ENCODING_VERSION: u32 = 1;

/// The name of a type as people and descriptors see it.
pub(crate) fn type_name<T: 'static>() -> String {
    macro_rules! known {
        ($($number:ty, $npy:expr, $add:expr;)*) => {
            $(
                if TypeId::of::<T>() == TypeId::of::<$number>() {
                    return stringify!($number).to_owned();
                }
                if TypeId::of::<T>() == TypeId::of::<Vec<$number>>() {
                    return concat!("Vec<", stringify!($number), ">").to_owned();
                }
            )*
        };
    }
    for_numbers! { known }
    if TypeId::of::<T>() == TypeId::of::<String>() {
        return "String".to_owned();
    }
    without_paths(compiler_name::<T>())
}

/// "K to V".
pub(crate) fn pair_name(key: &str, value: &str) -> String {
    format!("{key} to {value}")
}

/// What both ends compare.
pub(crate) fn types_hash(key: &str, value: &str) -> u64 {
    xxh3_64(format!("{ENCODING_VERSION}\0{key}\0{value}").as_bytes())
}

/// `alloc::vec::Vec<a::b::C>` is `Vec<C>`.
fn without_paths(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    let mut word = 0;
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::") {
            short.truncate(word);
            rest = after;
            continue;
        }
        short.push(c);
        if !(c.is_alphanumeric() || c == '_') {
            word = short.len();
        }
        rest = &rest[c.len_utf8()..];
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_paths() {
        assert_eq!(without_paths("alloc::vec::Vec<(a::b::C_1, [d::E; 3])>"), "Vec<(C_1, [E; 3])>");
        assert_eq!(without_paths("&str"), "&str");
        assert_eq!(type_name::<Vec<f64>>(), "Vec<f64>");
        assert_eq!(type_name::<Option<std::path::PathBuf>>(), "Option<PathBuf>");
    }

    #[test]
    fn hashes_tell_keys_from_values() {
        assert_ne!(types_hash("a", "bc"), types_hash("ab", "c"));
        assert_ne!(types_hash("u64", "String"), types_hash("String", "u64"));
    }
}
