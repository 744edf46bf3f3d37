//! From the bytes of a client's list to tasks of the batch.

use crate::clients::message::{CodeName, Head, TaskHead};
use crate::data::DataId;
use crate::function::identity::named;
use crate::function::wire::{Decoder, WireError};
use crate::function::{Code, Travel};
use crate::shared::Shared;
use crate::task::Task;
use crate::task::command::PROCESS;
use crate::task::record::Ref;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The client's data by its numbers.
#[derive(Default)]
pub(super) struct Data(HashMap<u32, DataId>);

/// Finds a task of an earlier list.
type Outside<'a> = &'a dyn Fn(u64, u32) -> Option<Ref>;

/// The tasks of a list in order, and whether the client has a handle of each.
pub(super) fn unpack(
    shared: &Arc<Shared>,
    shares_code: bool,
    data: &mut Data,
    outside: Outside<'_>,
    bytes: &[u8],
) -> Result<Vec<(Task<()>, bool)>, WireError> {
    let mut from = Decoder::new(bytes);
    let head = from.value::<Head>()?;
    data.0.extend(head.data.into_iter().map(|(number, name)| (number, name.datum(shared))));
    let codes = head.codes.into_iter().map(|name| match name {
        CodeName::Process => Ok(&PROCESS),
        CodeName::Function(name) if shares_code => named(name),
        CodeName::Function(_) => Err(WireError::Malformed("a client of another executable sends a function")),
    });
    let codes = codes.collect::<Result<Vec<&'static Code>, _>>()?;
    // By link: tasks of the list, as far as they are there, and those of earlier ones.
    let count = head.tasks as usize;
    if count > bytes.len() {
        return Err(WireError::Malformed("fewer tasks than it says"));
    }
    let mut links = vec![None; count];
    for (number, place) in head.outside {
        let task = outside(number, place);
        links.push(Some(task.ok_or(WireError::Malformed("takes something of a list that has not started"))?));
    }
    let mut tasks = Vec::with_capacity(count);
    for place in 0..count {
        let (task, is_wanted) = task(shared, shares_code, data, &codes, &links, &mut from)?;
        links[place] = Some(task.task());
        tasks.push((task, is_wanted));
    }
    Ok(tasks)
}

fn task(
    shared: &Arc<Shared>,
    shares_code: bool,
    data: &Data,
    codes: &[&'static Code],
    links: &[Option<Ref>],
    from: &mut Decoder<'_>,
) -> Result<(Task<()>, bool), WireError> {
    let head = from.value::<TaskHead>()?;
    let travel: Option<&Travel> = codes.get(head.code as usize).and_then(|code| code.travel.as_ref());
    let travel = travel.ok_or(WireError::Malformed("names code that is not there"))?;
    let mut arguments = Decoder::linking(from.bytes_of()?, links);
    // What serde does for the user's types is the user's code. A task whose arguments it cannot read fails.
    let made = catch_unwind(AssertUnwindSafe(|| (travel.unpack)(shared, &mut arguments)));
    let record = made.ok().and_then(Result::ok).unwrap_or_else(|| (travel.place)(shared));
    let mut task = Task::<()>::adopt(record);
    for (number, writes) in head.accesses {
        let datum = data.0.get(&number).ok_or(WireError::Malformed("a datum without a name"))?;
        task = if writes { task.writes(datum) } else { task.reads(datum) };
    }
    if let Some(options) = head.options {
        task.with_extra(|extra| {
            extra.name = options.name.map(String::into_boxed_str);
            (extra.priority, extra.cost, extra.rank) = (options.priority, options.cost, options.rank);
            match options.limited {
                Some(limited) if limited.decides() && !shares_code => Err(WireError::Malformed(
                    "a client of another executable sends a function that decides on retries",
                )),
                Some(limited) => limited.give(extra),
                None => Ok(()),
            }
        })?;
    }
    if head.is_attended {
        record.attend();
    }
    if head.keeps_arguments {
        record.keep_arguments();
    }
    Ok((task, head.is_wanted))
}
