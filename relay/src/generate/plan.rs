//! What event `k` of a seed is to be, before anything is written or signed: its sort, who signs it, what it answers,
//! and whether it is late, from the future or forged.
//!
//! Cheap (some tens of nanoseconds) and a pure function of the settings and `k`, so that an event finds the one it
//! answers by planning backwards instead of remembering.

use super::keys::Signer;
use super::random::Random;
use super::{Fault, Generate};

/// How far back an answer looks for what it answers, in events of its seed.
const REACH: u64 = 600;
/// Every so many-th stretch of events starts with one that draws half of all answers: popular posts.
const POPULAR_EVERY: u64 = 64;

/// The sort of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Kind 1 that answers nothing; what others answer.
    Root,
    /// Kind 1 in answer to a root.
    Reply,
    Reaction,
    DirectMessage,
    Profile,
    Follows,
    Repost,
    Deletion,
    ZapReceipt,
    GiftWrap,
    RelayList,
    JobRequest(u16),
    JobResult,
    JobFeedback,
    Article,
    Comment,
    Other(u16),
}

impl Sort {
    /// Whether such an event points at another one.
    pub(crate) const fn answers(self) -> bool {
        matches!(
            self,
            Self::Reply
                | Self::Reaction
                | Self::Repost
                | Self::Deletion
                | Self::ZapReceipt
                | Self::Comment
                | Self::JobResult
                | Self::JobFeedback
        )
    }
}

/// Shares in ten-thousandths. Kinds 1, 7, 4, 0, 3, 6, 5, 9735, 1059 and 10002 as counted over 208.5 million events of
/// the network (BigBrotr); the rest is divided by judgement, with enough DVM traffic for a demo.
const MIX: [(u64, Sort); 32] = [
    (2_150, Sort::Root),
    (1_750, Sort::Reply),
    (1_900, Sort::Reaction),
    (560, Sort::DirectMessage),
    (470, Sort::Profile),
    (450, Sort::Follows),
    (440, Sort::Repost),
    (310, Sort::Deletion),
    (280, Sort::ZapReceipt),
    (220, Sort::GiftWrap),
    (190, Sort::RelayList),
    (70, Sort::JobRequest(5_300)),
    (20, Sort::JobRequest(5_050)),
    (10, Sort::JobRequest(5_100)),
    (4, Sort::JobRequest(5_002)),
    (3, Sort::JobRequest(5_250)),
    (3, Sort::JobRequest(5_999)),
    (90, Sort::JobResult),
    (60, Sort::JobFeedback),
    (60, Sort::Article),
    (160, Sort::Comment),
    (120, Sort::Other(30_078)),
    (100, Sort::Other(24_133)),
    (110, Sort::Other(42)),
    (90, Sort::Other(30_166)),
    (80, Sort::Other(20_001)),
    (70, Sort::Other(10_050)),
    (60, Sort::Other(1_984)),
    (50, Sort::Other(10_000)),
    (50, Sort::Other(30_000)),
    (50, Sort::Other(1_063)),
    (20, Sort::Other(31_990)),
];

/// The plan of one event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) index: u64,
    pub(crate) sort: Sort,
    pub(crate) signer: Signer,
    pub(crate) fault: Fault,
    /// Index of the event that this one answers.
    pub(crate) target: Option<u64>,
}

/// Plans event `index`.
pub(crate) fn plan(settings: &Generate, index: u64) -> Plan {
    let (sort, fault, mut random) = outline(settings, index);
    let target = match sort {
        Sort::JobResult | Sort::JobFeedback => {
            find_back(settings, index, &mut random, |sort| matches!(sort, Sort::JobRequest(_)))
        }
        _ if sort.answers() => find_back(settings, index, &mut random, |sort| sort == Sort::Root),
        _ => None,
    };
    let signer = match (sort, target) {
        // Only its author can delete an event.
        (Sort::Deletion, Some(target)) => plan(settings, target).signer,
        (Sort::ZapReceipt, _) => Signer::Wallet(random.zipf(5)),
        (Sort::GiftWrap, _) => Signer::OneTime(index),
        (Sort::JobResult | Sort::JobFeedback, _) => Signer::Dvm(random.zipf(20)),
        _ => Signer::Author(random.zipf(settings.authors)),
    };
    Plan { index, sort, signer, fault, target }
}

fn outline(settings: &Generate, index: u64) -> (Sort, Fault, Random) {
    let mut random = Random::of(settings.seed, index, 1);
    let mut left = random.below(MIX.iter().map(|(share, _)| share).sum());
    let mut sort = Sort::Root;
    for (share, candidate) in MIX {
        if left < share {
            sort = candidate;
            break;
        }
        left -= share;
    }
    let draw = random.unit();
    let (forged, future) = (settings.forged, settings.forged + settings.future);
    let fault = match draw {
        draw if draw < forged && random.chance(0.5) => Fault::BadSignature,
        draw if draw < forged => Fault::WrongId,
        draw if draw < future => Fault::Future,
        draw if draw < future + settings.late => Fault::Late,
        _ => Fault::None,
    };
    (sort, fault, random)
}

/// The nearest fitting event at or before a random distance back; forged ones are not answered, for nobody keeps them.
fn find_back(settings: &Generate, index: u64, random: &mut Random, fits: impl Fn(Sort) -> bool) -> Option<u64> {
    let mut start = index.checked_sub(random.log_uniform(1, REACH))?;
    if random.chance(0.5) {
        start -= start % POPULAR_EVERY;
    }
    (start.saturating_sub(REACH)..=start).rev().find(|&candidate| {
        let (sort, fault, _) = outline(settings, candidate);
        fits(sort) && !fault.forged()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_adds_up() {
        assert_eq!(MIX.iter().map(|(share, _)| share).sum::<u64>(), 10_000);
    }

    #[test]
    fn answers_point_back_at_what_can_be_answered() {
        let settings = Generate::default();
        let mut answers = 0;
        for index in 0..5_000 {
            let plan_of = plan(&settings, index);
            let Some(target) = plan_of.target else { continue };
            assert!(target < index);
            let answered = plan(&settings, target);
            assert!(matches!(answered.sort, Sort::Root | Sort::JobRequest(_)) && !answered.fault.forged());
            assert!(plan_of.sort != Sort::Deletion || plan_of.signer == answered.signer);
            answers += 1;
        }
        assert!(answers > 2_000, "{answers}");
    }
}
