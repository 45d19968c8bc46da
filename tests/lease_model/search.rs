//! Breadth first through everything that can happen, so that the first violation found is a shortest one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Who makes a step happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The protocol: it will happen unless its supervisor is killed or held up for ever.
    Protocol,
    /// An operator, a kill, an I/O error: it may happen.
    Chance,
    /// Time.
    Time,
}

pub(crate) struct Next<S> {
    pub(crate) cause: Cause,
    pub(crate) what: &'static str,
    pub(crate) who: Option<u8>,
    pub(crate) state: Result<S, &'static str>,
}

pub(crate) trait Model {
    type State: Copy + Eq + Hash;
    fn first(&self) -> Self::State;
    fn next(&self, state: &Self::State, found: &mut Vec<Next<Self::State>>);
    fn tell(&self, before: &Self::State, step: &Next<Self::State>) -> String;
    /// Whether a supervisor waits here for what, by `served`, none has.
    fn waits(&self, state: &Self::State) -> bool;
    fn served(&self, state: &Self::State) -> bool;
}

/// `std`'s hasher is made for keys of strangers and is slow without optimisation; these are small numbers of our own.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.mix(word.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

pub(crate) struct Space<S> {
    pub(crate) states: Vec<S>,
    parents: Vec<u32>,
    numbers: HashMap<S, u32, BuildHasherDefault<Mixer>>,
    /// Every kind of step that happened somewhere.
    pub(crate) steps: Vec<&'static str>,
}

/// The violation that a circle without an owner is.
pub(crate) const STARVED: &str = "no supervisor ever gets the lease";

pub(crate) struct Violation {
    pub(crate) what: &'static str,
    pub(crate) path: Vec<String>,
}

impl Violation {
    pub(crate) fn story(&self) -> String {
        let lines: Vec<_> =
            (1..).zip(&self.path).map(|(number, line): (u32, _)| format!("{number:3}. {line}")).collect();
        format!("{}\n{}", self.what, lines.join("\n"))
    }
}

fn path_to<M: Model>(model: &M, space: &Space<M::State>, mut number: u32) -> Vec<String> {
    let mut path = Vec::new();
    while number > 0 {
        let (parent, state) = (space.parents[number as usize], space.states[number as usize]);
        let mut found = Vec::new();
        let before = space.states[parent as usize];
        model.next(&before, &mut found);
        path.extend(found.iter().find(|next| next.state == Ok(state)).map(|next| model.tell(&before, next)));
        number = parent;
    }
    path.reverse();
    path
}

/// Every reachable state, or a shortest way to a violation.
pub(crate) fn explore<M: Model>(model: &M) -> Result<Space<M::State>, Violation> {
    let first = model.first();
    let mut space = Space { states: vec![first], parents: vec![0], numbers: HashMap::default(), steps: Vec::new() };
    space.numbers.insert(first, 0);
    let (mut number, mut found) = (0, Vec::new());
    while let Some(state) = space.states.get(number as usize).copied() {
        found.clear();
        model.next(&state, &mut found);
        for next in &found {
            if !space.steps.contains(&next.what) {
                space.steps.push(next.what);
            }
            match next.state {
                Err(what) => {
                    let mut path = path_to(model, &space, number);
                    path.push(model.tell(&state, next));
                    return Err(Violation { what, path });
                }
                Ok(after) => {
                    let fresh = u32::try_from(space.states.len()).unwrap();
                    if *space.numbers.entry(after).or_insert(fresh) == fresh {
                        space.states.push(after);
                        space.parents.push(number);
                    }
                }
            }
        }
        number += 1;
    }
    Ok(space)
}

/// The steps that are sure to happen without interference: the protocol's own, and time once none is left.
fn sure<M: Model>(model: &M, space: &Space<M::State>, number: u32) -> Vec<u32> {
    let mut found = Vec::new();
    model.next(&space.states[number as usize], &mut found);
    for cause in [Cause::Protocol, Cause::Time] {
        let steps = found.iter().filter(|next| next.cause == cause);
        let targets: Vec<_> = steps.filter_map(|next| space.numbers.get(next.state.as_ref().ok()?).copied()).collect();
        if !targets.is_empty() {
            return targets;
        }
    }
    Vec::new()
}

/// From every reachable state with a waiting supervisor, whatever the order of the sure steps, one is served: returns
/// the largest number of steps that it takes. Otherwise there is a circle that never
/// leads there.
pub(crate) fn settle<M: Model>(model: &M, space: &Space<M::State>) -> Result<u32, Violation> {
    const NEW: u32 = u32::MAX;
    const OPEN: u32 = u32::MAX - 1;
    let mut longest = vec![NEW; space.states.len()];
    let done = |number: u32| {
        let state = &space.states[number as usize];
        model.served(state) || !model.waits(state)
    };
    for start in 0..u32::try_from(space.states.len()).unwrap() {
        let mut open: Vec<(u32, Vec<u32>, u32)> = Vec::new();
        let mut enter = Some(start);
        loop {
            if let Some(number) = enter.take() {
                if longest[number as usize] == NEW && done(number) {
                    longest[number as usize] = 0;
                } else if longest[number as usize] == NEW {
                    let targets = sure(model, space, number);
                    assert!(!targets.is_empty(), "time always goes on");
                    longest[number as usize] = OPEN;
                    open.push((number, targets, 0));
                }
            }
            let Some((number, targets, steps)) = open.last_mut() else { break };
            match targets.last().map(|target| (*target, longest[*target as usize])) {
                None => {
                    longest[*number as usize] = *steps;
                    open.pop();
                }
                Some((target, NEW)) => enter = Some(target),
                Some((target, OPEN)) => {
                    let mut path = path_to(model, space, target);
                    path.push("from here on, for ever:".to_owned());
                    let first = open.iter().position(|(number, ..)| *number == target).unwrap_or(0);
                    let ring: Vec<_> = open[first..].iter().map(|(number, ..)| *number).chain([target]).collect();
                    path.extend(ring.windows(2).filter_map(|pair| told(model, space, pair[0], pair[1])));
                    return Err(Violation { what: STARVED, path });
                }
                Some((_, known)) => {
                    *steps = (*steps).max(known + 1);
                    targets.pop();
                }
            }
        }
    }
    Ok(longest.into_iter().max().unwrap_or(0))
}

fn told<M: Model>(model: &M, space: &Space<M::State>, from: u32, to: u32) -> Option<String> {
    let (before, after) = (space.states[from as usize], space.states[to as usize]);
    let mut found = Vec::new();
    model.next(&before, &mut found);
    found.iter().find(|next| next.state == Ok(after)).map(|next| model.tell(&before, next))
}
