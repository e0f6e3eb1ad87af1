//! Every transition of a TCP connection, with the entry after each packet.

use enforcer_common::{
    abi::Direction,
    conntrack::{SECOND, timeout},
    reason::Reason,
};

use super::script::{Setting, settings};
use crate::lab::Lab;

const TCP: u8 = 6;

/// Up to an established connection.
const OPEN: &str = "
    o S  new  S -
    r SA pass S SA
    o A  pass SA SA E
";

const ISOLATED: [bool; 2] = [true, true];

/// Runs scripts one after the other, for each setting from the start.
fn run(lab: &mut Lab, scripts: &[&str]) {
    each(lab, |setting, lab| scripts.iter().for_each(|script| setting.run(lab, script)));
}

fn each(lab: &mut Lab, mut test: impl FnMut(Setting, &mut Lab)) {
    for setting in settings(TCP) {
        test(setting, lab);
        lab.start_over(ISOLATED);
    }
}

/// Asserts after how many seconds of silence the flow is forgotten.
fn lives(setting: Setting, lab: &Lab, seconds: u64) {
    let entry = setting.entry(lab).expect("a flow");
    assert_eq!(timeout(TCP, &entry), seconds * SECOND, "{setting:?}");
}

#[test]
fn a_handshake_counts_when_the_opener_acknowledges() {
    let lab = &mut Lab::strict();
    each(lab, |setting, lab| {
        setting.run(lab, "o S new S -");
        lives(setting, lab, 120);
        setting.run(lab, "r SA pass S SA");
        lives(setting, lab, 120);
        setting.run(lab, "o A pass SA SA E");
        lives(setting, lab, 432_000);
        setting.run(lab, "r A pass SA SA E\n o PA pass SA SA E\n r PUA pass SA SA E");
        assert_eq!(lab.kernel.flows(1), Some((0, 1)));
    });
}

#[test]
fn what_is_repeated_changes_nothing() {
    let lab = &mut Lab::strict();
    run(
        lab,
        &["
        o S  new  S -
        o S  pass S -
        r SA pass S SA
        o S  pass S SA
        r SA pass S SA
        o A  pass SA SA E
        o A  pass SA SA E
        r SA pass SA SA E
        o A  pass SA SA E
        o FA pass SAF SA E
        o FA pass SAF SA E
        r FA pass SAF SAF E
        r FA pass SAF SAF E
        o A  pass SAF SAF E
    "],
    );
}

#[test]
fn both_may_open_at_once() {
    let lab = &mut Lab::strict();
    run(
        lab,
        &["
        o S  new  S -
        r S  pass S S
        r S  pass S S
        o SA pass SA S E
        r SA pass SA SA E
        o A  pass SA SA E
        r S  deny SA SA E
    "],
    );
    // Whoever acknowledges first.
    run(
        lab,
        &["
        o S  new  S -
        r S  pass S S
        r SA pass S SA
        r S  deny S SA
        o SA pass SA SA E
    "],
    );
}

#[test]
fn either_side_may_close_its_half_first_and_the_other_goes_on() {
    let lab = &mut Lab::strict();
    for (first, second, half, whole) in
        [("o", "r", "SAF SA E", "SAF SAF E"), ("r", "o", "SA SAF E", "SAF SAF E")]
    {
        each(lab, |setting, lab| {
            setting.run(lab, OPEN);
            setting.run(lab, &format!("{first} FA pass {half}"));
            lives(setting, lab, 3_600);
            let goes_on = format!("{second} A pass {half}\n{second} PA pass {half}");
            setting.run(lab, &goes_on);
            setting.run(lab, &format!("{first} A pass {half}"));
            setting.run(lab, &format!("{second} FA pass {whole}"));
            lives(setting, lab, 120);
            setting.run(lab, &format!("{first} A pass {whole}"));
            // The other side may not open a connection of its own on what is left.
            setting.run(lab, &format!("r S deny {whole}\n o S new S -"));
        });
    }
}

#[test]
fn a_reset_of_either_side_ends_it_unless_it_goes_on() {
    let lab = &mut Lab::strict();
    for (side, reset) in [("o", "SAR SA E"), ("r", "SA SAR E")] {
        each(lab, |setting, lab| {
            setting.run(lab, OPEN);
            setting.run(lab, &format!("{side} R pass {reset}\n{side} RA pass {reset}"));
            lives(setting, lab, 3_600);
            setting.run(lab, &format!("r S deny {reset}"));
            // A forged one: the next segment of the same side shows that it lives.
            setting.run(lab, &format!("{side} A pass SA SA E"));
            lives(setting, lab, 432_000);
            setting.run(lab, &format!("{side} RA pass {reset}\no S new S -"));
        });
    }
}

#[test]
fn a_refused_connection_may_be_tried_again_by_who_opened_it_only() {
    let lab = &mut Lab::strict();
    run(
        lab,
        &["
        o S  new  S -
        r RA pass S AR
        r S  deny S AR
        o S  new  S -
        r SA pass S SA
        o R  pass SR SA
        r S  deny SR SA
        o S  new  S -
    "],
    );
}

#[test]
fn a_syn_on_known_ports_is_a_new_connection_only_if_the_old_one_is_closing() {
    let lab = &mut Lab::strict();
    // By state: its script, and what the opener's SYN is then.
    let states = [
        ("o S new S -", "o S pass S -"),
        ("o S new S -\n r SA pass S SA", "o S pass S SA"),
        (OPEN, "o S pass SA SA E"),
        ("o FA pass SAF SA E", "o S new S -"),
        ("r SA pass S SA\n o A pass SA SA E\n r FA pass SA SAF E", "o S new S -"),
        (
            "r SA pass S SA\n o A pass SA SA E\n o FA pass SAF SA E\n r FA pass SAF SAF E",
            "o S new S -",
        ),
        ("r SA pass S SA\n o R pass SR SA", "o S new S -"),
        ("r RA pass S AR", "o S new S -"),
    ];
    each(lab, |setting, lab| {
        for (number, (state, syn)) in states.iter().enumerate() {
            if number < 3 {
                lab.start_over(ISOLATED);
            }
            setting.run(lab, state);
            setting.run(lab, syn);
        }
        // Of all those one flow is left, and counted once.
        assert_eq!(lab.kernel.flows(1), Some((1, 0)), "{setting:?}");
    });
}

#[test]
fn a_syn_of_the_other_side_rides_on_nothing_but_an_opening() {
    let lab = &mut Lab::strict();
    for (state, after) in [
        ("o S new S -\n r SA pass S SA", "S SA"),
        (OPEN, "SA SA E"),
        (&*format!("{OPEN} o FA pass SAF SA E"), "SAF SA E"),
        (&*format!("{OPEN} r FA pass SA SAF E"), "SA SAF E"),
        (&*format!("{OPEN} o FA pass SAF SA E\n r FA pass SAF SAF E"), "SAF SAF E"),
        (&*format!("{OPEN} o R pass SAR SA E"), "SAR SA E"),
    ] {
        run(lab, &[state, &format!("r S deny {after}\n r S deny {after}")]);
    }
}

#[test]
fn a_challenge_and_the_reset_that_answers_it_pass() {
    let lab = &mut Lab::strict();
    // The opener has restarted and uses its port again: its SYN is challenged (RFC 9293, 3.10.7.4),
    // its reset clears the way, and the next SYN is a connection of its own.
    each(lab, |setting, lab| {
        setting.run(lab, OPEN);
        setting.run(
            lab,
            "o S pass SA SA E
             r A pass SA SA E
             o R pass SAR SA E
             o S new S -
             r SA pass S SA
             o A pass SA SA E",
        );
    });
}

#[test]
fn a_segment_of_an_unknown_connection_speaks_for_itself_only() {
    let lab = &mut Lab::strict();
    // The way to the server's port is allowed in either direction, the way back is not.
    run(
        lab,
        &["
        o A   lone none
        o SA  lone none
        o FA  lone none
        o RA  lone none
        o R   lone none
        o .   lone none
        o FPU lone none
        r SA  deny none
        r A   deny none
        r FA  deny none
        r RA  deny none
        r .   deny none
    "],
    );
}

#[test]
fn syn_with_flags_that_contradict_it_opens_what_policy_allows_and_no_more() {
    let lab = &mut Lab::strict();
    each(lab, |setting, lab| {
        // No stack accepts it; what answers it is an answer all the same.
        setting.run(lab, "r SF deny none\n o SF new SF -");
        lab.start_over(ISOLATED);
        setting.run(lab, "r SR deny none\n o SR new SR -\n r S deny SR -");
    });
}

#[test]
fn an_idle_connection_lives_and_a_closed_one_is_forgotten() {
    let lab = &mut Lab::strict();
    each(lab, |setting, lab| {
        setting.run(lab, OPEN);
        // As long as the machine has been up, at most.
        setting.age(lab, 431_000);
        setting.run(lab, "r A pass SA SA E\n o FA pass SAF SA E\n r FA pass SAF SAF E");
        setting.age(lab, 119);
        setting.run(lab, "o A pass SAF SAF E");
        setting.age(lab, 121);
        // Forgotten: the other side's segments are strangers', the opener's speak for themselves.
        let (direction, packet) = setting.packet(false, 0x10);
        assert_eq!(lab.run(direction, &packet).code, crate::lab::DROP, "{setting:?}");
        let (direction, packet) = setting.packet(true, 0x10);
        let alone = lab.run(direction, &packet);
        assert_eq!(alone.counted, [(Reason::Allowed, direction, 1)], "{setting:?}");
    });
}

#[test]
fn half_open_ones_are_forgotten_after_two_minutes() {
    let lab = &mut Lab::strict();
    each(lab, |setting, lab| {
        setting.run(lab, "o S new S -");
        setting.age(lab, 119);
        setting.run(lab, "r SA pass S SA");
        setting.age(lab, 121);
        let (direction, packet) = setting.packet(false, 0x12);
        assert_eq!(lab.run(direction, &packet).code, crate::lab::DROP, "{setting:?}");
        setting.run(lab, "o S new S -");
        assert_eq!(lab.kernel.flows(1), Some((1, 0)));
    });
}

#[test]
fn in_every_state_a_flow_that_is_no_longer_allowed_stops_and_one_that_is_again_goes_on() {
    let lab = &mut Lab::strict();
    let states = [
        ("o S new S -", "S -"),
        ("o S new S -\n r SA pass S SA", "S SA"),
        (OPEN, "SA SA E"),
        (&*format!("{OPEN} o FA pass SAF SA E"), "SAF SA E"),
        (&*format!("{OPEN} r FA pass SA SAF E"), "SA SAF E"),
    ];
    for (script, state) in states {
        each(lab, |setting, lab| {
            setting.run(lab, script);
            lab.lose_friends([true, true]);
            for side in ["o", "r"] {
                // Neither ends it nor moves it on: nothing of this arrives.
                for flags in ["A", "FA", "RA", "SA"] {
                    setting.run(lab, &format!("{side} {flags} deny {state}"));
                }
            }
            lab.find_friends();
            setting.run(lab, &format!("o PA pass {}", with_ack(state)));
            let direction = if setting.by_pod { Direction::Egress } else { Direction::Ingress };
            assert_eq!(lab.run(direction, &setting.packet(true, 0x10).1).code, crate::lab::PASS);
        });
    }
}

/// A state after the opener's acknowledgement.
fn with_ack(state: &str) -> &str {
    match state {
        "S -" => "SA -",
        "S SA" => "SA SA E",
        other => other,
    }
}
