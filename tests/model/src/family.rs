//! The families of faults, and how large a search is.
//!
//! The core is always there: workers that crash or freeze at every step and go on later, batches delivered again, stale and
//! overlapping, to two functions at once, combiners that race. A family adds what else may happen.

/// What else may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Answers of conditional writes are lost, and abandoned writes land late.
    Lost,
    /// The agent aborts, crashes, hears nothing of a commit, and is doubled; pollers show aborted records or not.
    Agent,
    /// Days pass; slots are removed.
    Removal,
    /// A stranger commits, which keeps properties and has no summary of ours.
    Foreign,
    /// A record needs a newer schema of the table.
    Schema,
    /// A user rolls the table back; an operator says `accept` or `replay`.
    Rollback,
    /// The topic is deleted and made anew, with a new incarnation or behind everybody's back.
    Incarnation,
    /// The partition map is raised.
    Map,
    /// The table is dropped and made anew.
    Recreated,
    /// Consumer offsets are moved ahead.
    Reset,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Agent,
        Self::Removal,
        Self::Foreign,
        Self::Schema,
        Self::Rollback,
        Self::Incarnation,
        Self::Map,
        Self::Recreated,
        Self::Reset,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost answers",
            Self::Agent => "agent",
            Self::Removal => "removed slots",
            Self::Foreign => "foreign commits",
            Self::Schema => "schema change",
            Self::Rollback => "rollback",
            Self::Incarnation => "topic made anew",
            Self::Map => "partition map",
            Self::Recreated => "table made anew",
            Self::Reset => "offsets reset",
        }
    }
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// One call of one worker.
    Call,
    /// One invocation, up to a call that others can see: what `lib.rs` says of it is why nothing is lost.
    Invocation,
}

/// A search: families and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    families: u16,
    /// Combiners that may race; ingests are two.
    pub combiners: u8,
    /// Row changes at the source.
    pub changes: u8,
    /// Faults of the agent in one log.
    pub agent_faults: u8,
    /// What a step is.
    pub grain: Grain,
}

impl Setup {
    /// Families together, at the size of a pair: two ingests, one combiner, two changes.
    #[must_use]
    pub fn of(families: &[Family]) -> Self {
        let bits = families.iter().map(|family| 1 << (*family as u16));
        Self {
            families: bits.sum(),
            combiners: 1,
            changes: 2,
            agent_faults: 1,
            grain: Grain::Call,
        }
    }

    /// The same at another size.
    #[must_use]
    pub const fn sized(self, combiners: u8, changes: u8, agent_faults: u8) -> Self {
        Self {
            combiners,
            changes,
            agent_faults,
            ..self
        }
    }

    /// The same with other steps.
    #[must_use]
    pub const fn by(self, grain: Grain) -> Self {
        Self { grain, ..self }
    }

    /// Whether a family is in.
    #[must_use]
    pub const fn has(&self, family: Family) -> bool {
        self.families & (1 << (family as u16)) != 0
    }

    /// The families' names, or the core's.
    #[must_use]
    pub fn name(&self) -> String {
        let names: Vec<&str> = Family::ALL
            .iter()
            .filter(|family| self.has(**family))
            .map(|family| family.name())
            .collect();
        if names.is_empty() {
            "core".to_owned()
        } else {
            names.join(" + ")
        }
    }
}
