//! A task whose result may be of any type.

use tarragon_engine::{AnyTask, DataId, Error, Exit, Status, Stream, Task, TaskError};

/// A task of a workflow: of a process, a job, or a function with a result of any type. As `&dyn AnyTask` it is an
/// element of a list, and can be submitted.
pub trait ErasedTask: AnyTask + Send {
    /// As [`Task::read`].
    ///
    /// # Errors
    /// As that.
    fn read(&mut self, datum: DataId) -> Result<(), Error>;
    /// As [`Task::write`].
    ///
    /// # Errors
    /// As that.
    fn write(&mut self, datum: DataId) -> Result<(), Error>;
    /// As [`Task::wait`].
    ///
    /// # Errors
    /// As that.
    fn wait(&self) -> Result<(), TaskError>;
    /// As [`Task::status`].
    fn status(&self) -> Status;
    /// As [`Task::why_waiting`].
    fn why_waiting(&self) -> Option<String>;
    /// As [`Task::cancel`].
    fn cancel(&self);
    /// As [`Task::stdout`].
    fn stdout(&self) -> Stream;
    /// As [`Task::stderr`].
    fn stderr(&self) -> Stream;
    /// The task of a process or job, with all that such a one has.
    fn program(&self) -> Option<&Task<Exit>>;
}

impl<R: 'static> ErasedTask for Task<R> {
    fn read(&mut self, datum: DataId) -> Result<(), Error> {
        Task::read(self, datum).map(|_| ())
    }

    fn write(&mut self, datum: DataId) -> Result<(), Error> {
        Task::write(self, datum).map(|_| ())
    }

    fn wait(&self) -> Result<(), TaskError> {
        Task::wait(self)
    }

    fn status(&self) -> Status {
        Task::status(self)
    }

    fn why_waiting(&self) -> Option<String> {
        Task::why_waiting(self)
    }

    fn cancel(&self) {
        Task::cancel(self);
    }

    fn stdout(&self) -> Stream {
        Task::stdout(self)
    }

    fn stderr(&self) -> Stream {
        Task::stderr(self)
    }

    fn program(&self) -> Option<&Task<Exit>> {
        let any: &dyn std::any::Any = self;
        any.downcast_ref()
    }
}

impl std::fmt::Debug for dyn ErasedTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ErasedTask").finish_non_exhaustive()
    }
}
