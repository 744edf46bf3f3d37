//! What a library above does on the ranks of a world where nobody has called it: its messages need no program that
//! registers handlers first, and whoever has a world's number finds the world.
#![expect(unsafe_code, reason = "turns a distance back into a function of the same executable")]

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::code;
use crate::fabric::{Fabric, FabricError};
use crate::message::{HandlerId, Message};
use crate::rank::Rank;

const INTRODUCE: HandlerId = HandlerId(HandlerId::RESERVED.0 + 3);

/// Registers the handlers of a library with a rank; doing so again changes nothing.
pub type Install = fn(&Arc<Fabric>);

/// The worlds that this process is in, by number.
static WORLDS: Mutex<Vec<(u128, Weak<Fabric>)>> = Mutex::new(Vec::new());

/// What libraries keep with a fabric, one value of each type.
#[derive(Default)]
pub(crate) struct States(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl States {
    fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let state = {
            let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(states.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())))
        };
        state.downcast().expect("it is kept by its type")
    }
}

impl Fabric {
    /// What a library keeps with this rank: the only value of its type, made by the first call.
    pub fn state<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.states().get()
    }

    /// Has `install` called at a rank, there being no program that does, before anything that is sent to it later is
    /// delivered. Once per rank and library is enough.
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn introduce(self: &Arc<Self>, to: Rank, install: Install) -> Result<(), FabricError> {
        if to == self.rank() {
            install(self);
            return Ok(());
        }
        self.send(to, INTRODUCE, 0, &code::distance(install as *const ()).to_le_bytes())
    }

    /// The fabric of the world with this number, if this process is in it.
    pub fn of_world(uid: u128) -> Option<Arc<Fabric>> {
        let worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
        worlds.iter().find(|(other, _)| *other == uid).and_then(|(_, fabric)| fabric.upgrade())
    }
}

/// Lets libraries be introduced at this rank.
pub(super) fn register(fabric: &Arc<Fabric>) {
    let this = Arc::downgrade(fabric);
    fabric.on(INTRODUCE, move |_, message| {
        if let Some(fabric) = this.upgrade() {
            introduced(&fabric, message);
        }
    });
}

fn introduced(fabric: &Arc<Fabric>, message: &Message<'_>) {
    let distance = message.payload.try_into().map(i64::from_le_bytes).ok();
    let Some(address) = distance.and_then(code::address) else { return };
    // SAFETY: the same executable, which ranks compare before they join, took this distance from a function of this
    // type; a peer that lies is not defended against, as ranks trust each other.
    let install = unsafe { std::mem::transmute::<usize, Install>(address) };
    install(fabric);
}

/// The world has this number.
pub(super) fn enter(uid: u128, fabric: &Arc<Fabric>) {
    let mut worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
    worlds.retain(|(_, other)| other.strong_count() > 0);
    worlds.push((uid, Arc::downgrade(fabric)));
}
