//! What is requested, and the requester. Intent only hardens: after a stop, nothing softer counts.

use super::event::Requester;

/// What the supervisor is to do once the present gateway is gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Intent {
    /// Keep one gateway running.
    #[default]
    Run,
    /// Replace it by a new one.
    Restart(Requester),
    /// Leave it and go.
    Detach(Requester),
    /// End it and go.
    Stop(Requester),
    /// The same, asked for twice: without waiting for its drain.
    StopNow(Requester),
}

impl Intent {
    fn hardness(&self) -> u8 {
        match self {
            Self::Run => 0,
            Self::Restart(_) => 1,
            Self::Detach(_) => 2,
            Self::Stop(_) => 3,
            Self::StopNow(_) => 4,
        }
    }

    /// A second stop: no more patience. Says whether it is the first of its kind.
    pub fn hurry(&mut self) -> bool {
        match self {
            Self::Stop(by) => {
                *self = Self::StopNow(by.clone());
                true
            }
            Self::Run | Self::Restart(_) | Self::Detach(_) | Self::StopNow(_) => false,
        }
    }

    /// Gives it away; what is left is to run.
    #[must_use]
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    /// Takes the other intent if it is harder than this one, and says whether it did.
    pub fn harden(&mut self, other: Self) -> bool {
        let harder = other.hardness() > self.hardness();
        if harder {
            *self = other;
        }
        harder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    fn by(how: &str) -> Requester {
        Requester { how: how.to_owned(), pid: None, uid: None, command: None, inside: None }
    }

    #[test]
    fn intent_never_softens_whatever_the_order() {
        let all = [Intent::Run, Intent::Restart(by("a")), Intent::Detach(by("b")), Intent::Stop(by("c"))];
        for (i, first) in all.iter().enumerate() {
            for (j, second) in all.iter().enumerate() {
                let mut intent = first.clone();
                assert_eq!(intent.harden(second.clone()), j > i);
                assert_eq!(intent, all[i.max(j)]);
            }
        }
    }
}
