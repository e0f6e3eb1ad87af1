//! UDP, SCTP and echo: what answers what, and for how long.

use enforcer_common::{
    abi::Direction::{Egress, Ingress},
    reason::Reason,
};

use super::script::settings;
use crate::{
    lab::{DROP, FRIEND4, FRIEND6, Lab, PASS, POD4, POD6, all, row},
    packets::{Ip, echo, sctp},
};

const UDP: u8 = 17;

/// Friends may use UDP port 80 both ways.
fn lab() -> Lab {
    let rule = || row((2 << 16) + 80..(2 << 16) + 81);
    Lab::new([true, true], [rule(), rule()])
}

#[test]
fn a_datagram_is_answered_as_long_as_its_flow_lives() {
    let mut lab = lab();
    for setting in settings(UDP) {
        lab.start_over([true, true]);
        setting.run(&mut lab, "r . deny none\n o . new + -\n o . pass + -");
        setting.age(&mut lab, 29);
        setting.run(&mut lab, "r . pass + + E\n r . pass + + E\n o . pass + + E");
        setting.age(&mut lab, 59);
        setting.run(&mut lab, "r . pass + + E");
    }
}

#[test]
fn after_its_timeout_an_answer_is_a_datagram_of_its_own() {
    let mut lab = lab();
    for setting in settings(UDP) {
        for (script, silence) in [("o . new + -", 31), ("o . new + -\n r . pass + + E", 181)] {
            lab.start_over([true, true]);
            setting.run(&mut lab, script);
            setting.age(&mut lab, silence);
            let (direction, packet) = setting.packet(false, 0);
            lab.expect(direction, &packet, Reason::PolicyDenied, true);
            setting.run(&mut lab, "o . new + -");
            assert_eq!(lab.kernel.flows(1), Some((1, 0)), "{setting:?}");
        }
    }
}

#[test]
fn a_revoked_datagram_flow_is_silent_both_ways_and_a_dropped_datagram_prolongs_nothing() {
    let mut lab = lab();
    for setting in settings(UDP) {
        lab.start_over([true, true]);
        setting.run(&mut lab, "o . new + -\n r . pass + + E");
        lab.lose_friends([true, true]);
        setting.run(&mut lab, "o . deny + + E\n r . deny + + E");
        setting.age(&mut lab, 50);
        let before = setting.entry(&lab).unwrap().last_seen;
        setting.run(&mut lab, "o . deny + + E\n r . deny + + E");
        assert_eq!(setting.entry(&lab).unwrap().last_seen, before, "{setting:?}");
        lab.find_friends();
        setting.run(&mut lab, "o . pass + + E");
    }
}

fn pairs() -> [(Ip, Ip, [u8; 2]); 2] {
    [(POD4.into(), FRIEND4.into(), [8, 0]), (POD6.into(), FRIEND6.into(), [128, 129])]
}

#[test]
fn echo_goes_by_identifier_and_by_who_asked() {
    for (pod, friend, [request, reply]) in pairs() {
        // One direction open, one closed, and the other way round.
        for (asks, answers, rows) in
            [(Egress, Ingress, [row(0..1), all()]), (Ingress, Egress, [all(), row(0..1)])]
        {
            let isolated = [true, true];
            let closed = row((1 << 16) + 1..(1 << 16) + 2);
            let [into, out] = rows;
            let rows = if asks == Egress { [closed, out] } else { [into, closed] };
            let mut lab = Lab::new(isolated, rows);
            let (asker, asked) = if asks == Egress { (pod, friend) } else { (friend, pod) };
            let drop = Reason::PolicyDenied;
            lab.expect(answers, &echo(asked, asker, reply, 7), drop, true);
            lab.expect(asks, &echo(asker, asked, request, 7), Reason::Allowed, true);
            for _ in 0..3 {
                assert_eq!(lab.run(answers, &echo(asked, asker, reply, 7)).code, PASS);
                assert_eq!(lab.run(asks, &echo(asker, asked, request, 7)).code, PASS);
            }
            lab.expect(answers, &echo(asked, asker, reply, 8), drop, true);
            lab.expect(answers, &echo(asked, asker, request, 7), drop, true);
            // A reply that the asker sends is nobody's, though it may send requests: it is judged
            // for itself and leaves nothing that the other's requests could ride on.
            assert_eq!(lab.run(asks, &echo(asker, asked, reply, 9)).code, PASS);
            lab.expect(answers, &echo(asked, asker, request, 9), drop, true);
            lab.lose_friends(isolated);
            assert_eq!(lab.run(answers, &echo(asked, asker, reply, 7)).code, DROP);
            assert_eq!(lab.run(asks, &echo(asker, asked, request, 7)).code, DROP);
        }
    }
}

#[test]
fn sctp_answers_its_ports_and_nothing_else() {
    for (pod, friend, _) in pairs() {
        let rule = || row((3 << 16) + 80..(3 << 16) + 81);
        let mut lab = Lab::new([true, true], [rule(), rule()]);
        let drop = Reason::PolicyDenied;
        lab.expect(Ingress, &sctp(friend, pod, (80, 5_000)), drop, true);
        lab.expect(Egress, &sctp(pod, friend, (5_000, 80)), Reason::Allowed, true);
        assert_eq!(lab.run(Ingress, &sctp(friend, pod, (80, 5_000))).code, PASS);
        lab.expect(Ingress, &sctp(friend, pod, (80, 5_001)), drop, true);
        lab.expect(Ingress, &sctp(friend, pod, (81, 5_000)), drop, true);
        lab.lose_friends([true, true]);
        assert_eq!(lab.run(Ingress, &sctp(friend, pod, (80, 5_000))).code, DROP);
    }
}
