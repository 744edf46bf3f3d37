//! What a body has of its gang: who the members are, messages between them, and what they do together.

use crate::function::Data;
use crate::run::Wanted;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use tarragon_transport::{Group, GroupError, wire};

/// The members that run a task's function at once, as one of them sees them; by
/// [`Context::gang`](crate::Context::gang).
///
/// Members are counted from 0. Each runs the same function with the same arguments on a rank of its own, and finds its
/// share of the work by [`member`](Self::member) and [`size`](Self::size). Calls of all members together (`barrier`,
/// `broadcast`, `all_gather`, `all_reduce`) must be made by all, in the same order. What members send is written by
/// serde. Any of these calls fails once the task is cancelled, over its time, or one of its members has failed: a body
/// returns then, best by `?`.
///
/// ```
/// use tarragon_engine::{Batch, Context, GangError, tasks};
///
/// fn sum_of_squares(ctx: &Context, n: u64) -> Result<u64, GangError> {
///     let gang = ctx.gang();
///     let mine = (u64::from(gang.member())..n).step_by(gang.size() as usize);
///     gang.all_reduce(mine.map(|i| i * i).sum(), |a, b| a + b)
/// }
///
/// let batch = Batch::new()?;
/// // `.ranks(4)` under `mpirun -n 4`; here there is one rank.
/// let sum = batch.try_function(sum_of_squares, (100u64,)).ranks(1);
/// batch.compile(tasks![sum])?.run()?;
/// assert_eq!(sum.result().get()?, 328_350);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Gang {
    /// `None`: a gang of one.
    group: Option<Group>,
    wanted: Option<Wanted>,
    rank: u32,
    /// Of a gang of one: what it has sent to itself.
    own: Mutex<HashMap<u32, VecDeque<Vec<u8>>>>,
}

/// Why a call to other members of a gang did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GangError {
    /// The gang has no such member.
    #[error("there is no member {member}: the gang has {size}")]
    NoSuchMember {
        /// The member asked for.
        member: u32,
        /// Members there are.
        size: u32,
    },
    /// The result is not wanted any more: the task was cancelled or is over its time, or a member has failed.
    #[error("the gang has stopped: its task was cancelled or is over its time, or member {by} has failed")]
    Stopped {
        /// Who has stopped it; 0 also when the task was cancelled.
        by: u32,
    },
    /// A member has returned, and had not sent what this one waits for.
    #[error("member {member} has returned without this call: all members must make the same calls")]
    Returned {
        /// Who.
        member: u32,
    },
    /// A member makes another call of all together.
    #[error("member {member} makes another call: all members must make the same calls, in the same order")]
    Order {
        /// Who.
        member: u32,
    },
    /// What came is no value of the type that is wanted here, or serde cannot write what is to be sent.
    #[error("a value between members: {0}")]
    Value(#[from] wire::WireError),
    /// A member waits for what it has not sent to itself.
    #[error("member {member} waits for a value from itself, which it has not sent")]
    WaitsForItself {
        /// Who.
        member: u32,
    },
    /// A member's rank is lost, or there is no way to it.
    #[error("member {member} cannot be reached: {why}")]
    Lost {
        /// Who.
        member: u32,
        /// What is known of it.
        why: String,
    },
}

impl Gang {
    /// Of a task that one rank runs.
    pub(crate) fn alone(rank: u32) -> Gang {
        Gang { group: None, wanted: None, rank, own: Mutex::default() }
    }

    pub(super) fn of(group: Group, wanted: Wanted, rank: u32) -> Gang {
        Gang { group: Some(group), wanted: Some(wanted), rank, own: Mutex::default() }
    }

    pub(super) fn group(&self) -> &Group {
        self.group.as_ref().expect("a gang of several members has a group")
    }

    pub(super) fn close(&self) {
        self.group().close();
    }

    pub(super) fn is_over(&self) -> bool {
        self.wanted.as_ref().is_some_and(Wanted::is_over)
    }

    /// Which member this is, from 0; what member 0 returns is the result of the task.
    pub fn member(&self) -> u32 {
        self.group.as_ref().map_or(0, Group::member)
    }

    /// How many members there are.
    pub fn size(&self) -> u32 {
        self.group.as_ref().map_or(1, Group::size)
    }

    /// The rank of each member.
    pub fn ranks(&self) -> Vec<u32> {
        let all = |group: &Group| group.ranks().iter().map(|rank| rank.0).collect();
        self.group.as_ref().map_or_else(|| vec![self.rank], all)
    }

    /// Sends a value to a member, this one maybe, that receives it by the same tag. Values to one member by one tag are
    /// received in order. Does not wait for that, but while another member has 4 MiB or more of this one's to receive:
    /// two that send each other more than that before they receive wait until the task is stopped.
    ///
    /// # Errors
    /// `NoSuchMember`, `Value`, `Lost`; `Stopped` if it waits.
    pub fn send<T: Data>(&self, to: u32, tag: u32, value: &T) -> Result<(), GangError> {
        let bytes = wire::encode(value)?;
        match &self.group {
            Some(group) => {
                let sent = group.send(to, u64::from(tag), &bytes, &|| self.is_over());
                sent.map_err(|error| self.error(to, error))
            }
            None if to == 0 => {
                self.own.lock().entry(tag).or_default().push_back(bytes);
                Ok(())
            }
            None => Err(GangError::NoSuchMember { member: to, size: 1 }),
        }
    }

    /// Waits for the next value that a member has sent with this tag. Uses next to no CPU meanwhile.
    ///
    /// # Errors
    /// All of [`GangError`] but `Order`.
    pub fn receive<T: Data>(&self, from: u32, tag: u32) -> Result<T, GangError> {
        let bytes = match &self.group {
            Some(group) => group
                .receive(from, u64::from(tag), &|| self.is_over())
                .map_err(|error| self.error(from, error))?,
            None if from == 0 => {
                let own = self.own.lock().get_mut(&tag).and_then(VecDeque::pop_front);
                own.ok_or(GangError::WaitsForItself { member: 0 })?
            }
            None => return Err(GangError::NoSuchMember { member: from, size: 1 }),
        };
        Ok(wire::decode(&bytes)?)
    }

    /// Returns when all members have called it.
    ///
    /// # Errors
    /// `Stopped`, `Returned`, `Order`, `Lost`.
    pub fn barrier(&self) -> Result<(), GangError> {
        let Some(group) = &self.group else { return Ok(()) };
        group.barrier(&|| self.is_over()).map_err(|error| self.error(0, error))
    }

    /// Returns the value of member `root` at every member; those of others are not looked at.
    ///
    /// # Errors
    /// All of [`GangError`].
    pub fn broadcast<T: Data>(&self, root: u32, value: T) -> Result<T, GangError> {
        let group = match &self.group {
            Some(group) => group,
            None if root == 0 => return Ok(value),
            None => return Err(GangError::NoSuchMember { member: root, size: 1 }),
        };
        let bytes = if root == self.member() { wire::encode(&value)? } else { Vec::new() };
        let told = group.broadcast(root, &bytes, &|| self.is_over());
        let told = told.map_err(|error| self.error(root, error))?;
        if root == self.member() { Ok(value) } else { Ok(wire::decode(&told)?) }
    }

    /// Returns the values of all members, in their order, at every member.
    ///
    /// # Errors
    /// All of [`GangError`] but `NoSuchMember`.
    pub fn all_gather<T: Data>(&self, value: T) -> Result<Vec<T>, GangError> {
        let Some(group) = &self.group else { return Ok(vec![value]) };
        let all = group.all_gather(&wire::encode(&value)?, &|| self.is_over());
        let all = all.map_err(|error| self.error(0, error))?;
        Ok(all.iter().map(|bytes| wire::decode(bytes)).collect::<Result<_, _>>()?)
    }

    /// Combines the values of all members in their order, two neighbours at a time, and returns what comes of it at
    /// every member: the same everywhere and each time, also where `combine` rounds.
    ///
    /// # Errors
    /// All of [`GangError`] but `NoSuchMember`.
    pub fn all_reduce<T: Data>(&self, value: T, mut combine: impl FnMut(T, T) -> T) -> Result<T, GangError> {
        let Some(group) = &self.group else { return Ok(value) };
        let mut wrong = None;
        let mut both = |first: Vec<u8>, second: Vec<u8>| {
            let combined = wire::decode(&first).and_then(|first| Ok((first, wire::decode(&second)?)));
            let combined = combined.and_then(|(first, second)| wire::encode(&combine(first, second)));
            combined.unwrap_or_else(|error| {
                wrong = Some(error);
                first
            })
        };
        let all = group.all_reduce(wire::encode(&value)?, &mut both, &|| self.is_over());
        if let Some(error) = wrong {
            return Err(error.into());
        }
        Ok(wire::decode(&all.map_err(|error| self.error(0, error))?)?)
    }

    fn error(&self, member: u32, error: GroupError) -> GangError {
        match error {
            GroupError::NoSuchMember { member, size } => GangError::NoSuchMember { member, size },
            GroupError::Closed { by } => GangError::Stopped { by },
            GroupError::Over => GangError::Stopped { by: 0 },
            GroupError::Left { member } => GangError::Returned { member },
            GroupError::Order { member } => GangError::Order { member },
            GroupError::Fabric(error) => {
                let of_member = |rank: &u32| error.rank().is_some_and(|lost| lost.0 == *rank);
                let lost = self.ranks().iter().position(of_member);
                GangError::Lost { member: lost.map_or(member, |lost| lost as u32), why: error.to_string() }
            }
        }
    }
}
