//! What can be compiled: single tasks, vectors, slices, arrays, tuples, other compiled batches, nested at will.

use super::builder::Task;
use super::record::Ref;
use crate::compiled::Compiled;
use crate::plan::Owned;

/// One element of a list: a task, or the tasks of a compiled batch.
#[doc(hidden)]
pub struct Entry<'a>(pub(crate) Item<'a>);

/// Shows the elements of a list, one after the other.
pub(crate) type Each<'a> = &'a dyn Fn(&mut dyn FnMut(Entry<'_>));

pub(crate) enum Item<'a> {
    Task(Ref),
    Compiled(&'a Owned),
}

/// A task of any result type, or a compiled batch, which stands for its tasks.
pub trait AnyTask {
    /// The element.
    #[doc(hidden)]
    fn entry(&self) -> Entry<'_>;
}

impl<T> AnyTask for Task<T> {
    fn entry(&self) -> Entry<'_> {
        Entry(Item::Task(self.task()))
    }
}

impl AnyTask for Compiled {
    fn entry(&self) -> Entry<'_> {
        Entry(Item::Compiled(self.owned()))
    }
}

/// Tasks in the order in which a sequential program would run them.
///
/// Implemented for references to tasks and compiled batches, vectors, slices, arrays and tuples of them (to 12),
/// nested at will; [`tasks!`](crate::tasks) makes one of tasks with different results.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of tasks",
    note = "use `tasks![a, b, c]`, or a reference to a Vec, array or tuple of tasks"
)]
pub trait TaskList {
    /// Shows each element in order.
    #[doc(hidden)]
    fn each(&self, see: &mut dyn FnMut(Entry<'_>));

    /// About how many there are.
    #[doc(hidden)]
    fn size_hint(&self) -> usize {
        0
    }
}

impl<T> TaskList for Task<T> {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        see(self.entry());
    }
}

impl TaskList for Compiled {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        see(self.entry());
    }
}

impl TaskList for dyn AnyTask + '_ {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        see(self.entry());
    }
}

impl<L: TaskList + ?Sized> TaskList for &L {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        (**self).each(see);
    }

    fn size_hint(&self) -> usize {
        (**self).size_hint()
    }
}

impl<L: TaskList + ?Sized> TaskList for Box<L> {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        (**self).each(see);
    }
}

impl<L: TaskList> TaskList for [L] {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        self.iter().for_each(|l| l.each(see));
    }

    fn size_hint(&self) -> usize {
        self.len()
    }
}

impl<L: TaskList> TaskList for Vec<L> {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        self.as_slice().each(see);
    }

    fn size_hint(&self) -> usize {
        self.len()
    }
}

impl<L: TaskList, const N: usize> TaskList for [L; N] {
    fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
        self.as_slice().each(see);
    }

    fn size_hint(&self) -> usize {
        N
    }
}

macro_rules! tuple {
    ($($L:ident $i:tt)*) => {
        impl<$($L: TaskList),*> TaskList for ($($L,)*) {
            fn each(&self, see: &mut dyn FnMut(Entry<'_>)) {
                $(self.$i.each(see);)*
            }
        }
    };
}
tuple!(L1 0);
tuple!(L1 0 L2 1);
tuple!(L1 0 L2 1 L3 2);
tuple!(L1 0 L2 1 L3 2 L4 3);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5 L7 6);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5 L7 6 L8 7);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5 L7 6 L8 7 L9 8);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5 L7 6 L8 7 L9 8 L10 9);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5 L7 6 L8 7 L9 8 L10 9 L11 10);
tuple!(L1 0 L2 1 L3 2 L4 3 L5 4 L6 5 L7 6 L8 7 L9 8 L10 9 L11 10 L12 11);

/// One element of [`tasks!`](crate::tasks).
#[doc(hidden)]
pub fn list_element<L: TaskList>(element: &L) -> &dyn TaskList {
    element
}

/// A list of tasks with different results, for [`Batch::compile`](crate::Batch::compile): `tasks![a, b, more]`, where
/// each element is a task, a compiled batch, or a list of either; elements are borrowed.
#[macro_export]
macro_rules! tasks {
    () => {
        [] as [&dyn $crate::TaskList; 0]
    };
    ($($task:expr),* $(,)?) => {
        [$($crate::list_element(&$task)),*]
    };
}
