//! What can be an argument, a variable's value or the input of a process: values, and what other tasks give.

use super::builder::Task;
use super::handle::Handle;
use super::input::Input;
use super::output::{Stream, Which};
use crate::error::Cause;
use crate::function::Data;
use crate::function::identity::{distance, word_at};
use crate::function::wire::{Decoder, Encoder, WireError};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One argument of a process.
#[doc(hidden)]
pub struct Word(pub(crate) Kind);

pub(crate) enum Kind {
    Text(OsString),
    /// A result, and how it is written.
    Result(Input, fn(&Input) -> Result<OsString, Cause>),
    /// A task's output, without trailing line ends.
    Output(Input, Stream),
}

impl Word {
    pub(crate) fn text(text: impl Into<OsString>) -> Self {
        Self(Kind::Text(text.into()))
    }

    pub(crate) fn input(&self) -> Option<&Input> {
        match &self.0 {
            Kind::Text(_) => None,
            Kind::Result(input, _) | Kind::Output(input, _) => Some(input),
        }
    }

    pub(crate) fn input_mut(&mut self) -> Option<&mut Input> {
        match &mut self.0 {
            Kind::Text(_) => None,
            Kind::Result(input, _) | Kind::Output(input, _) => Some(input),
        }
    }

    /// Writes it for another rank.
    pub(crate) fn encode(&self, out: &mut Encoder) -> Result<(), WireError> {
        match &self.0 {
            Kind::Text(text) => out.value(&(0u8, text.as_bytes())),
            Kind::Result(input, write) => {
                let gone = || WireError::Input("it is not on its way".into());
                let link = out.link(input.task).ok_or_else(gone)?;
                out.value(&(1u8, link, distance(*write as *const ())))
            }
            Kind::Output(input, stream) => match out.link(input.task) {
                Some(link) => out.value(&(2u8, link, stream.which())),
                // What it has written is text by now.
                None => {
                    let text = self.write().map_err(|cause| WireError::Input(cause.to_string()))?;
                    out.value(&(0u8, text.as_bytes()))
                }
            },
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        match from.value::<u8>()? {
            0 => Ok(Self::text(OsString::from_vec(from.value()?))),
            2 => {
                let (link, which) = from.value::<(u32, Which)>()?;
                Ok(Stream::new(from.linked(link)?, which).word())
            }
            _ => {
                let (link, write) = from.value::<(u32, i64)>()?;
                Ok(Self(Kind::Result(Input::new(from.linked(link)?), word_at(write)?)))
            }
        }
    }

    /// The word as people read it: what is another task's by the name of that task.
    pub(crate) fn shown(&self) -> String {
        match &self.0 {
            Kind::Text(text) => quoted(&text.to_string_lossy()),
            Kind::Result(input, _) => format!("$({})", input.task.name()),
            Kind::Output(_, stream) => format!("$({})", stream.name()),
        }
    }

    /// What the process gets; the tasks it comes from have ended.
    pub(crate) fn write(&self) -> Result<Cow<'_, OsStr>, Cause> {
        match &self.0 {
            Kind::Text(text) => Ok(Cow::Borrowed(text)),
            Kind::Result(input, write) => write(input).map(Cow::Owned),
            Kind::Output(input, stream) => {
                let mut text = input.text(stream)?;
                text.truncate(text.trim_end_matches(['\n', '\r']).len());
                Ok(Cow::Owned(text.into()))
            }
        }
    }
}

/// Text as a shell takes it for one word.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-+=./:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// What a process reads on its standard input.
#[doc(hidden)]
pub enum Feed {
    /// Nothing: end of file at once.
    Nothing,
    /// A file.
    File(PathBuf),
    /// Text.
    Word(Word),
}

impl Feed {
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Feed::File(path) => Some(path.clone()),
            _ => None,
        }
    }

    pub(crate) fn word(&self) -> Option<&Word> {
        match self {
            Feed::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn word_mut(&mut self) -> Option<&mut Word> {
        match self {
            Feed::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// What may be an argument of a process: text, paths, numbers, and the results and output of other tasks.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a process",
    label = "this argument",
    note = "use text, a path, a number, a `bool`, or the `result()`, `stdout()` or `stderr()` of another task"
)]
pub trait ProcessArg {
    /// What the task's record keeps.
    #[doc(hidden)]
    fn word(self) -> Word;
}

/// A result that can be written as an argument of a process.
#[diagnostic::on_unimplemented(
    message = "a result of type `{Self}` cannot be an argument of a process",
    note = "return text, a path, a number or a `bool`, or implement `ToWord`"
)]
pub trait ToWord {
    /// The argument's text.
    fn to_word(&self) -> OsString;
}

macro_rules! text {
    ($($t:ty)*) => {
        $(impl ProcessArg for $t {
            fn word(self) -> Word {
                Word::text(AsRef::<OsStr>::as_ref(&self))
            }
        })*
    };
}
text!(&str &String String OsString &OsString &OsStr PathBuf &PathBuf &Path);

macro_rules! to_word {
    ($($t:ty)*) => {
        $(impl ToWord for $t {
            fn to_word(&self) -> OsString {
                AsRef::<OsStr>::as_ref(self).to_owned()
            }
        })*
    };
}
to_word!(String OsString PathBuf);

macro_rules! displayed {
    ($($t:ty)*) => {
        $(
            impl ProcessArg for $t {
                fn word(self) -> Word {
                    Word::text(self.to_string())
                }
            }

            impl ProcessArg for &$t {
                fn word(self) -> Word {
                    Word::text(self.to_string())
                }
            }

            impl ToWord for $t {
                fn to_word(&self) -> OsString {
                    self.to_string().into()
                }
            }
        )*
    };
}
displayed!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char);

impl<T: Data + ToWord> ProcessArg for Handle<T> {
    fn word(self) -> Word {
        Word(Kind::Result(Input::new(self.task()), |input| Ok(input.look::<T>()?.to_word())))
    }
}

impl<T: Data + ToWord> ProcessArg for &Handle<T> {
    fn word(self) -> Word {
        self.clone().word()
    }
}

impl<T: Data + ToWord> ProcessArg for &Task<T> {
    fn word(self) -> Word {
        self.result().word()
    }
}

impl ProcessArg for Stream {
    fn word(self) -> Word {
        Word(Kind::Output(Input::of_output(&self), self))
    }
}

impl ProcessArg for &Stream {
    fn word(self) -> Word {
        self.clone().word()
    }
}

/// What a process may read on its standard input: a file, or what another task gives.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the standard input of a process",
    note = "use the path of a file, or the `stdout()`, `stderr()` or text `result()` of another task; \
            `stdin_text` takes text"
)]
pub trait ProcessInput {
    /// What the task's record keeps.
    #[doc(hidden)]
    fn feed(self) -> Feed;
}

macro_rules! file {
    ($($t:ty)*) => {
        $(impl ProcessInput for $t {
            fn feed(self) -> Feed {
                Feed::File(AsRef::<Path>::as_ref(&self).to_path_buf())
            }
        })*
    };
}
file!(&str &String String PathBuf &PathBuf &Path);

impl ProcessInput for Stream {
    fn feed(self) -> Feed {
        Feed::Word(self.word())
    }
}

impl ProcessInput for Handle<String> {
    fn feed(self) -> Feed {
        Feed::Word(self.word())
    }
}
