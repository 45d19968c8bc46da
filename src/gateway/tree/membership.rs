//! What shows that a process is a member.

use crate::core::Layer;
use crate::platform::proc::Stat;
use crate::platform::process::Handle;

/// In the order in which a report names them.
const LAYERS: [Layer; 5] = [Layer::Cgroup, Layer::Group, Layer::Descent, Layer::Instance, Layer::Record];

/// The layers that show one process to be a member. None of them: it is no member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    layers: u8,
    is_born: bool,
}

impl Evidence {
    pub(super) fn of(layer: Layer) -> Self {
        Self { layers: 1 << layer as u8, is_born: false }
    }

    /// The same of a process that was certainly created in the tree: it descends from a leader that we started. All
    /// sessions that it can be in but our own were made in the tree, so all processes in them are members too.
    pub(super) fn born(self) -> Self {
        Self { is_born: true, ..self }
    }

    /// What it shows of a child.
    pub(super) fn inherited(self) -> Self {
        if self.is_none() { self } else { Self { is_born: self.is_born, ..Self::of(Layer::Descent) } }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { layers: self.layers | other.layers, is_born: self.is_born || other.is_born }
    }

    pub(super) fn is_of(self, layer: Layer) -> bool {
        self.layers & (1 << layer as u8) != 0
    }

    pub(super) fn is_none(self) -> bool {
        self.layers == 0
    }

    /// Whether nothing shows it but that it was seen before, if that.
    pub(super) fn is_recorded_only(self) -> bool {
        self.layers & !Self::of(Layer::Record).layers == 0
    }

    /// Whether all processes in its session are members too, unless that session is ours.
    pub(super) fn is_born(self) -> bool {
        self.is_born
    }
}

/// How many of them each layer shows.
pub(super) fn count(all: &[Evidence]) -> Vec<(Layer, u32)> {
    let shown_by = |layer| all.iter().filter(|evidence| evidence.is_of(layer)).count();
    let counts = LAYERS.into_iter().map(|layer| (layer, u32::try_from(shown_by(layer)).unwrap_or(u32::MAX)));
    counts.filter(|&(_, number)| number > 0).collect()
}

/// A member, and what shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TreeMember {
    pub(super) process: Stat,
    pub(super) evidence: Evidence,
}

/// A member that no later process of its pid can be taken for.
#[derive(Debug)]
pub(super) struct HeldMember {
    pub(super) handle: Handle,
    pub(super) member: TreeMember,
}

pub(super) fn processes(members: Vec<TreeMember>) -> Vec<Stat> {
    members.into_iter().map(|member| member.process).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_counts_for_every_layer_that_shows_it_and_a_layer_that_shows_none_is_left_out() {
        let both = Evidence::of(Layer::Group).born().and(Evidence::of(Layer::Record));
        let all = [both, both.inherited(), Evidence::of(Layer::Instance), Evidence::default().inherited()];
        let expected = [(Layer::Group, 1), (Layer::Descent, 1), (Layer::Instance, 1), (Layer::Record, 1)];
        assert_eq!(count(&all), expected);
        assert!(
            Evidence::of(Layer::Record).is_recorded_only()
                && Evidence::default().is_recorded_only()
                && !both.is_recorded_only()
        );
        assert!(both.inherited().is_born() && !all[2].inherited().is_born() && all[3].is_none());
    }
}
