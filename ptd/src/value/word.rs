//! A value → what a program gets of it: text, or what another task gives.

use super::produced::Produced;
use super::{Kind, Mismatch, Value};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use tarragon_engine::{Exit, Stream, Task};

/// One argument of a program.
#[derive(Clone)]
pub(crate) enum Word {
    Text(Arc<str>),
    Os(Arc<Path>),
    Result(Arc<dyn Produced>),
    Output(Stream),
}

impl Word {
    /// Gives it to a process: as an argument, or as this variable of its environment.
    pub(crate) fn give(&self, task: Task<Exit>, variable: Option<&str>) -> Result<Task<Exit>, Mismatch> {
        Ok(match (self, variable) {
            (Word::Text(text), None) => task.arg(&**text),
            (Word::Text(text), Some(name)) => task.env(name, &**text),
            (Word::Os(path), None) => task.arg(&**path),
            (Word::Os(path), Some(name)) => task.env(name, &**path),
            (Word::Output(stream), None) => task.arg(stream),
            (Word::Output(stream), Some(name)) => task.env(name, stream),
            (Word::Result(result), variable) => return result.give(task, variable),
        })
    }

    /// Its text, if it is text now.
    pub(crate) fn text(&self) -> Option<&OsStr> {
        match self {
            Word::Text(text) => Some(OsStr::new(&**text)),
            Word::Os(path) => Some(path.as_os_str()),
            Word::Result(_) | Word::Output(_) => None,
        }
    }

    /// It as people read it.
    pub(crate) fn shown(&self) -> OsString {
        match self {
            Word::Result(result) => format!("$(result of type {})", result.type_name()).into(),
            Word::Output(_) => "$(output)".into(),
            word => word.text().unwrap_or_default().to_owned(),
        }
    }
}

impl Value {
    /// What programs get of it, one or several words; a list gives those of its elements.
    pub(crate) fn words(&self, out: &mut Vec<Word>) -> Result<(), Mismatch> {
        match &self.0 {
            Kind::List(values) => values.iter().try_for_each(|value| value.words(out)),
            _ => {
                out.push(self.word()?);
                Ok(())
            }
        }
    }

    /// What a program gets of it.
    pub(crate) fn word(&self) -> Result<Word, Mismatch> {
        Ok(match &self.0 {
            Kind::Path(path) => Word::Os(Arc::clone(path)),
            Kind::Result(result) => Word::Result(Arc::clone(result)),
            Kind::Output(stream) => Word::Output(stream.clone()),
            _ => Word::Text(self.text()?),
        })
    }

    /// It as text.
    pub(crate) fn text(&self) -> Result<Arc<str>, Mismatch> {
        Ok(match &self.0 {
            Kind::Text(text) => Arc::clone(text),
            Kind::Written(written) => written.1.as_ref().into(),
            Kind::Bool(it) => it.to_string().into(),
            Kind::Int(it) => it.to_string().into(),
            Kind::Float(it) => it.to_string().into(),
            Kind::Dictionary(dictionary) => dictionary.descriptor_text().into(),
            Kind::Path(path) => path.to_str().ok_or_else(|| Mismatch("the path is no UTF-8".into()))?.into(),
            Kind::Shared(shared) => {
                return Err(Mismatch(format!("a value of type {} is no text", shared.type_name())));
            }
            _ => return Err(Mismatch(format!("{} is no text", self.kind()))),
        })
    }

    /// It as a path.
    pub(crate) fn path(&self) -> Result<Arc<Path>, Mismatch> {
        match &self.0 {
            Kind::Path(path) => Ok(Arc::clone(path)),
            Kind::Null => Err(Mismatch("nothing is no path".into())),
            Kind::Shared(_) | Kind::Dictionary(_) => Err(Mismatch(format!("{} is no path", self.kind()))),
            _ => Ok(Path::new(&*self.text()?).into()),
        }
    }
}
