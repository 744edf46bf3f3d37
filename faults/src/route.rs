//! The quick way to a step: run to an instruction where a breakpoint stops the child, then step the rest. Pure.
//!
//! A step costs some µs, in some virtual machines 20, and an operation may have 10^5 of them. An address that is
//! executed once is reached by one hit; in a loop, by as many hits as it was reached before, or by steps from an
//! address before the loop, whichever is less. Children of one nursery have their code at the same addresses.

use std::collections::HashMap;

/// What setting a breakpoint costs, in hits or steps.
const BREAKPOINT_COST: u64 = 3;

/// How each step of an operation is reached.
#[derive(Debug)]
pub(crate) struct Route(Vec<Leg>);

/// The way to one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leg {
    /// Where the breakpoint is.
    pub(crate) place: u64,
    /// How often it is hit; 0 if the way is steps only, from the beginning.
    pub(crate) hits: u32,
    /// Steps from there.
    pub(crate) steps: u64,
}

impl Leg {
    /// So many steps from the beginning.
    pub(crate) fn steps(steps: u64) -> Self {
        Self { steps, ..Self::default() }
    }
}

impl Route {
    /// The ways to all steps of an operation, by the address of the instruction that comes after each.
    pub(crate) fn new(places: &[u64]) -> Self {
        let mut visits: HashMap<u64, u32> = HashMap::new();
        let (mut leg, mut cost) = (Leg::default(), 0);
        let legs = places.iter().enumerate().map(|(step, &place)| {
            if step == 0 {
                return leg;
            }
            (leg.steps, cost) = (leg.steps + 1, cost + 1);
            // A repeated string instruction hits a breakpoint once; and the child stands at the first place already.
            if place != places[step - 1] && place != places[0] {
                let hits = visits.entry(place).or_default();
                *hits += 1;
                if u64::from(*hits) + BREAKPOINT_COST < cost {
                    (leg, cost) = (Leg { place, hits: *hits, steps: 0 }, u64::from(*hits) + BREAKPOINT_COST);
                }
            }
            leg
        });
        Self(legs.collect())
    }

    /// Steps of the whole operation.
    pub(crate) fn steps(&self) -> u64 {
        self.0.len() as u64
    }

    /// The way to `step`; none if the operation is over by then.
    pub(crate) fn to(&self, step: u64) -> Option<Leg> {
        self.0.get(usize::try_from(step).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks as a child would; returns the step it comes to.
    fn walk(places: &[u64], leg: Leg) -> usize {
        let mut step = 0;
        for _ in 0..leg.hits {
            step += 1;
            while places[step] != leg.place || places[step] == places[step - 1] {
                step += 1;
            }
        }
        step + leg.steps as usize
    }

    fn check(places: &[u64]) {
        let route = Route::new(places);
        for step in 0..places.len() {
            let leg = route.to(step as u64).unwrap();
            assert_eq!(walk(places, leg), step, "{leg:?}");
            assert!(u64::from(leg.hits) + leg.steps <= step as u64 + 1, "{leg:?} to {step}");
        }
        assert_eq!(route.to(places.len() as u64), None);
    }

    #[test]
    fn straight_code_is_one_hit() {
        let places: Vec<u64> = (100..1100).collect();
        check(&places);
        assert_eq!(Route::new(&places).to(900), Some(Leg { place: 1000, hits: 1, steps: 0 }));
    }

    #[test]
    fn loops_and_string_instructions_lead_to_the_right_step() {
        let before = 0..10;
        let turns = (0..50).flat_map(|_| 10..17);
        let copy = std::iter::repeat_n(20, 30);
        let after = 21..60;
        let places: Vec<u64> = before.chain(turns).chain(copy).chain(after).collect();
        check(&places);
        check(&places.repeat(3));
        assert_eq!(Route::new(&places).to(places.len() as u64 - 1).unwrap().hits, 1);
    }
}
