//! What rank 0 decides, and what a rank makes of it.

use super::*;
use crate::message::HandlerId;

const LIMIT: Duration = Duration::from_secs(10);

fn judge(size: u32, limit: Option<Duration>) -> (Judge, impl Fn(u64) -> Instant) {
    let begin = Instant::now();
    let mut judge = Judge::new(size, begin);
    judge.begin(limit, begin);
    (judge, move |second| begin + Duration::from_secs(second))
}

/// Declares all who are to be.
fn verdicts(judge: &mut Judge, now: Instant) -> Vec<(u32, Why)> {
    let mut all = Vec::new();
    while let Some((rank, why)) = judge.verdict(now) {
        judge.lose(rank);
        all.push((rank.0, why));
    }
    all
}

#[test]
fn who_is_silent_for_the_limit_is_lost() {
    let (mut judge, at) = judge(3, Some(LIMIT));
    assert_eq!(verdicts(&mut judge, at(4)), []);
    judge.sign(Rank(1), 0, at(5));
    assert_eq!(verdicts(&mut judge, at(9)), []);
    assert_eq!(judge.next_silence(), Some(at(10)));
    assert_eq!(verdicts(&mut judge, at(10)), [(2, Why::Silent)]);
    assert_eq!(verdicts(&mut judge, at(14)), []);
    assert_eq!(verdicts(&mut judge, at(15)), [(1, Why::Silent)]);
    assert_eq!(judge.next_silence(), None);
}

/// Else all would be lost that were stopped together with rank 0.
#[test]
fn who_was_stopped_itself_has_not_heard_of_anybody() {
    let (mut judge, at) = judge(2, Some(LIMIT));
    for second in [100, 103, 109] {
        assert_eq!(verdicts(&mut judge, at(second)), [], "{second}");
    }
    // One that is always late decides all the same.
    assert_eq!(verdicts(&mut judge, at(116)), [(1, Why::Silent)]);
}

#[test]
fn without_a_limit_silence_is_nothing() {
    let (mut judge, at) = judge(2, None);
    assert_eq!((verdicts(&mut judge, at(100_000)), judge.next_silence()), (vec![], None));
    judge.find(Rank(1), Why::Ended);
    assert_eq!(verdicts(&mut judge, at(100_000)), [(1, Why::Ended)]);
}

#[test]
fn who_has_left_is_not_lost() {
    let (mut judge, at) = judge(2, Some(LIMIT));
    judge.leave(Rank(1));
    judge.find(Rank(1), Why::Broken);
    assert_eq!(verdicts(&mut judge, at(100)), []);
    assert!(judge.is_settled(5), "nobody is left to acknowledge");
}

#[test]
fn an_accusation_alone_is_no_loss_until_both_show_signs() {
    let (mut judge, at) = judge(4, Some(LIMIT));
    judge.accuse(Rank(2), Rank(1), at(1));
    assert_eq!(verdicts(&mut judge, at(2)), []);
    judge.sign(Rank(1), 0, at(3));
    assert_eq!(verdicts(&mut judge, at(3)), []);
    judge.sign(Rank(2), 0, at(4));
    // As often accused as accuser: the higher one.
    assert_eq!(verdicts(&mut judge, at(4)), [(2, Why::Apart)]);
    assert_eq!(verdicts(&mut judge, at(4)), [], "the accusation went with the accuser");
}

#[test]
fn who_stands_in_more_accusations_is_lost() {
    let (mut judge, at) = judge(4, Some(LIMIT));
    judge.accuse(Rank(1), Rank(2), at(1));
    judge.accuse(Rank(1), Rank(3), at(1));
    for rank in 1..4 {
        judge.sign(Rank(rank), 0, at(2));
    }
    assert_eq!(verdicts(&mut judge, at(2)), [(1, Why::Apart)]);
}

/// Ranks 1 and 2 give signs.
fn both_live(judge: &mut Judge, now: Instant) {
    for rank in 1..3 {
        judge.sign(Rank(rank), 0, now);
    }
}

/// Looks and signs come every third of the limit; whom rank 1 does not hear that says so each time.
#[test]
fn a_doubt_counts_when_it_is_repeated_after_the_doubted_has_shown_that_it_lives() {
    let (mut judge, at) = judge(3, Some(LIMIT));
    for second in [1, 4] {
        judge.doubt(Rank(1), Rank(2), at(second));
        assert_eq!(verdicts(&mut judge, at(second)), [], "{second}");
        both_live(&mut judge, at(second + 1));
        assert_eq!(verdicts(&mut judge, at(second + 1)), [], "{second}");
    }
    judge.doubt(Rank(1), Rank(2), at(7));
    assert_eq!(verdicts(&mut judge, at(7)), [(2, Why::Apart)]);
}

/// As when all were stopped, and it woke up last: it is heard again.
#[test]
fn a_doubt_that_is_not_repeated_is_forgotten() {
    let (mut judge, at) = judge(3, Some(LIMIT));
    judge.doubt(Rank(1), Rank(2), at(1));
    for second in [2, 5, 8, 11, 14] {
        both_live(&mut judge, at(second));
        assert_eq!(verdicts(&mut judge, at(second)), [], "{second}");
    }
    judge.doubt(Rank(1), Rank(2), at(15));
    assert_eq!(verdicts(&mut judge, at(15)), [], "a new one");
}

#[test]
fn who_is_doubted_and_gives_no_sign_is_silent() {
    let (mut judge, at) = judge(3, Some(LIMIT));
    for second in [3, 6, 9] {
        judge.sign(Rank(1), 0, at(second));
        judge.doubt(Rank(1), Rank(2), at(second));
        assert_eq!(verdicts(&mut judge, at(second)), [], "{second}");
    }
    assert_eq!(verdicts(&mut judge, at(12)), [(2, Why::Silent)]);
}

#[test]
fn a_broken_connection_is_more_than_a_doubt() {
    let (mut judge, at) = judge(3, Some(LIMIT));
    judge.doubt(Rank(1), Rank(2), at(1));
    judge.accuse(Rank(1), Rank(2), at(2));
    judge.doubt(Rank(1), Rank(2), at(3));
    both_live(&mut judge, at(4));
    assert_eq!(verdicts(&mut judge, at(4)), [(2, Why::Apart)]);
    judge.doubt(Rank(1), Rank(2), at(5));
    judge.sign(Rank(1), 0, at(6));
    assert_eq!(verdicts(&mut judge, at(9)), [], "it is lost already");
}

#[test]
fn an_epoch_is_settled_when_all_who_are_left_know_of_it() {
    let (mut judge, at) = judge(4, Some(LIMIT));
    judge.lose(Rank(3));
    assert!(judge.is_settled(0) && !judge.is_settled(1));
    assert!(judge.sign(Rank(1), 1, at(1)), "news");
    assert!(!judge.is_settled(1) && !judge.sign(Rank(2), 0, at(1)));
    judge.lose(Rank(2));
    assert!(judge.is_settled(1), "the dead need not know");
    assert!(!judge.is_settled(2) && judge.sign(Rank(1), 2, at(2)) && judge.is_settled(2));
}

fn members(own: u32, losses: Losses) -> Members {
    let members = Members::new(Rank(own), 4);
    members.begin(losses, ["a", "b", "c", "d"].map(str::to_owned).into());
    members
}

fn header(source: u32, epoch: u32) -> Header {
    Header { epoch, ..Header::new(Rank(source), HandlerId(1), 0, 0) }
}

#[test]
fn losses_are_known_in_order_and_their_messages_refused() {
    let members = members(1, Losses::from_environment().survived());
    assert!(!members.refuses(&header(2, 0)) && !members.is_gone(Rank(2)));
    members.lose(2, Rank(2), Why::Silent);
    assert_eq!(members.epoch(), 0, "the first is still to come");
    assert!(members.is_gone(Rank(2)) && members.refuses(&header(2, 1)));
    members.lose(1, Rank(3), Why::Ended);
    members.lose(1, Rank(3), Why::Ended);
    assert_eq!(members.epoch(), 2);
    assert!(members.refuses(&header(3, 0)) && !members.refuses(&header(0, 0)));
    assert_eq!(members.stale(), 2);
    let log: Vec<String> = members.lock().log.iter().map(Loss::to_string).collect();
    assert_eq!(log[0], "rank 3 on host d is lost (epoch 1): its process has ended");
    assert!(
        log[1].starts_with("rank 2 on host c is lost (epoch 2): it has given no sign of life"),
        "{log:?}"
    );
    assert_eq!(members.error_of(Rank(3)).to_string(), log[0]);
}

#[test]
fn where_a_loss_ends_the_world_its_last_messages_count() {
    let members = members(1, Losses::from_environment());
    members.lose(1, Rank(2), Why::Ended);
    assert!(members.is_gone(Rank(2)) && !members.refuses(&header(2, 0)));
    assert!(matches!(members.error_of(Rank(2)), FabricError::PeerDead { rank: Rank(2) }));
}

#[test]
fn who_is_cast_out_reaches_nobody_and_hears_nobody() {
    let members = members(3, Losses::from_environment().survived());
    members.lose(1, Rank(3), Why::Silent);
    assert_eq!(members.cast_out(), Some(CastOut::Declared));
    assert!(members.is_gone(Rank(0)) && members.refuses(&header(0, 0)));
    assert!(!members.is_gone(Rank(3)) && !members.refuses(&header(3, 0)), "it still talks to itself");
    let error = members.error_of(Rank(0)).to_string();
    assert!(error.contains("rank 3 is of the world no longer: rank 0 has declared it lost"), "{error}");
    assert!(!members.found(Rank(0), Why::Broken), "it is out already");
}

#[test]
fn what_is_said_of_losses_comes_over() {
    let losses = [
        Losses::from_environment(),
        Losses::from_environment().survived().limit(Duration::from_millis(2500)),
        Losses::from_environment().limit(Duration::ZERO),
    ];
    losses.into_iter().for_each(|losses| assert_eq!(Losses::decode(&losses.encode()), Some(losses)));
    assert_eq!(losses[2].limit, None);
    assert_eq!(losses[0].limit(Duration::from_millis(1)).limit, Some(Duration::from_millis(LIMIT_MS_MIN)));
    assert_eq!(Losses::decode(b"short"), None);
}
