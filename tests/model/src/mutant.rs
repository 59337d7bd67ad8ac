//! Mutants: the protocol with one step replaced. Each names the rule that it breaks and the smallest family that must catch it.

use crate::family::{Family, Setup};

macro_rules! mutants {
    ($($variant:ident $name:literal [$($family:ident),*] $size:expr, $doc:literal;)*) => {
        /// One step replaced.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mutant {
            $(#[doc = $doc] $variant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The search that must catch it.
            #[must_use]
            pub fn setup(self) -> Setup {
                let (families, (combiners, changes, faults)): (&[Family], (u8, u8, u8)) = match self {
                    $(Self::$variant => (&[$(Family::$family),*], $size),)*
                };
                Setup::of(families).sized(combiners, changes, faults)
            }
        }
    };
}

/// Combiners, changes, faults of the agent.
const SMALL: (u8, u8, u8) = (1, 2, 1);
const RACING: (u8, u8, u8) = (2, 2, 1);
const THREE: (u8, u8, u8) = (1, 3, 1);
const TWO_FAULTS: (u8, u8, u8) = (1, 2, 2);

mutants! {
    // The accept rule.
    IncarnationIgnored "rule 1: a newer incarnation is judged by its offsets" [Incarnation] SMALL,
        "Records of a topic made anew are compared with the old one's offsets.";
    OldIncarnationStops "rule 1: an older incarnation stops the batch" [Incarnation] SMALL,
        "What a frozen function brings of a topic that is gone raises an alarm.";
    ReplacedTopicIsRedelivery "rule 2: a covered offset is dropped, whatever it holds" [Incarnation] SMALL,
        "A topic that was replaced behind everybody's back is not seen.";
    FencedTaken "rule 3: an older epoch is judged on" [Agent] TWO_FAULTS,
        "Records of a fenced agent are taken.";
    DensityUnchecked "rule 4: numbers of an epoch need not be dense" [Reset] THREE,
        "A number that is missing inside of an epoch is not seen.";
    FirstOfEpochUnchecked "rule 4: an epoch need not begin at 1" [Reset] THREE,
        "An epoch of which the first records are missing is not seen.";
    PredecessorUnchecked "rule 4: a predecessor beyond the frontier is passed over" [Reset] SMALL,
        "An epoch of which the predecessor is missing is not seen.";
    PredecessorMustBeEqual "rule 4: a predecessor must be the frontier itself" [Agent] SMALL,
        "An aborted attempt that was seen makes what follows it a gap.";
    PositionUnchecked "rule 5: positions do not count" [Agent] SMALL,
        "What an agent sends again is a row again.";
    DuplicateDoesNotMove "rule 5: a duplicate by position moves nothing" [Agent] SMALL,
        "What follows a duplicate is a gap.";
    // What the agent owes.
    EpochKeptAfterAbort "an abort or a restart keeps the epoch" [Agent] SMALL,
        "Numbers begin anew in an epoch that is under way.";
    EpochClaimedBeforeFencing "an epoch is claimed before the predecessor is fenced" [Agent] TWO_FAULTS,
        "The session that fences last may have the lower epoch.";
    PseqCountedBeforeAccepted "a number is used before the queue accepts its record" [Agent] SMALL,
        "A refusal leaves a hole.";
    PredecessorIsTheLastSent "a predecessor is the last record sent, not the last committed" [Agent] SMALL,
        "Who reads committed records only misses it.";
    ProgressOutsideOfTransaction "progress is written outside of the transaction" [Agent] SMALL,
        "Progress may say what was aborted.";
    SourceAcknowledgedBeforeCommit "the source is acknowledged before the commit" [Agent] SMALL,
        "The source forgets what was aborted.";
    MapRaisedWithoutRepeating "the map is raised at the last committed position" [Agent, Map] SMALL,
        "An aborted attempt that was seen in the old partition is sent to the new one.";
    RaiseDecidedAnew "each attempt at a map decides anew where it begins" [Agent, Map] SMALL,
        "The barrier of an aborted attempt lets the new map through too early.";
    PartitionBeginsAtTheFirstMap "a partition begins at the first map, not at the one that brought it" [Map] SMALL,
        "Nothing holds back what it has of the larger map.";
    // Stage.
    AcknowledgedBeforeSlotWon "a batch is acknowledged before its slot is won" [] SMALL,
        "A crash in between loses it.";
    SlotNamedByFirstOffset "a slot is named by its batch's first offset" [] SMALL,
        "Markers take offsets, so that the chain breaks.";
    SlotOverwritten "a slot is written without a condition" [] SMALL,
        "A batch that was acknowledged is overwritten.";
    ForeignSlotReadAsOurs "a slot that another won is taken for ours" [] SMALL,
        "A longer batch is acknowledged that is nowhere.";
    TakenSlotNotJudgedAgain "after a lost race the same rows go into the next slot" [] SMALL,
        "Rows that the winner holds come twice.";
    LostSlotAppendedAgain "a lost answer is a failure: the same rows go into the next slot under another id" [Lost] SMALL,
        "Rows of a slot that was won come twice.";
    BatchWithoutRowsWinsNoSlot "a batch without rows wins no slot" [Agent] SMALL,
        "Numbers that a duplicate used are missing to what follows.";
    GapBelievedWithoutWalking "a gap is believed before the chain is walked" [] SMALL,
        "A warm function calls what another staged missing.";
    TailKeptOverADay "a warm tail is used after its time" [Removal] SMALL,
        "A removed slot is won again, behind the frontier.";
    AcknowledgedBeforeRegistered "a partition is acknowledged before the state holds it" [Map] SMALL,
        "Nobody walks its chain.";
    // Combine.
    SwapUnconditional "the pointer is moved without comparing" [] RACING,
        "A combiner undoes another's commit.";
    SlotSkipped "a combiner passes over a slot" [] SMALL,
        "Its rows are behind the frontier.";
    FrontierWrittenAfterTheData "data and frontier are two writes" [] SMALL,
        "A crash in between commits rows twice.";
    CoverageByHeadSummary "coverage is judged by the head's summary" [Foreign] SMALL,
        "A stranger's snapshot has none.";
    UnknownSwapAppendedAgain "a commit of which the answer was lost is appended again" [Lost] SMALL,
        "It may have happened.";
    FilesOfUnknownSwapRemoved "the files of a commit of which the answer was lost are removed" [Lost] SMALL,
        "It may have happened, or happen yet.";
    SwapRetriedBelow "the client repeats the swap by itself" [Lost] SMALL,
        "The second try is a conflict with the first, and the files of what happened are removed.";
    SchemaUnchecked "an intent is committed before the table has its schema" [Schema] SMALL,
        "Readers do not know the file's columns.";
    RollbackUnnoticed "a table that was rolled back is committed to" [Rollback] SMALL,
        "What the user rolled back is missing, and nothing says so.";
    ChainNotDrained "a new incarnation begins before the old chain is sealed" [Incarnation] SMALL,
        "What is staged in the old chain is never combined.";
    BarrierIgnored "the new map's records are combined at once" [Map] SMALL,
        "A key that moved is behind itself.";
    // Maintain.
    UncoveredSlotRemoved "a day-old slot is removed before it is covered" [Removal] SMALL,
        "It was acknowledged.";
    YoungSlotRemoved "a covered slot is removed at once" [Removal] SMALL,
        "A function that loaded the table before wins it again.";
    SlotRemovedWhenCoveredAndOld "a slot is removed when it is covered and a day old" [Removal] SMALL,
        "It may be covered only now: a function that loaded the table before wins it again.";
    ReplayedAlthoughSlotsAreGone "a rollback is replayed although its slots were removed" [Removal, Rollback] SMALL,
        "The frontier goes back to where nothing leads on from.";
    NoteKeptOverAReplay "maintain's note of a frontier outlives a replay" [Removal, Rollback] SMALL,
        "A function that loaded the table after the replay wins a removed slot again.";
}
