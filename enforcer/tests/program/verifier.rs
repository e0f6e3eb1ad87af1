//! The verifier's work on each program, with room to spare: it gives up at a million instructions,
//! and another kernel may take other ways.

use enforcer::dataplane::{Release, VerifyError, verify_all};

/// Half of what ends the verifier.
const INSTRUCTIONS: u32 = 500_000;
/// Half of a chain's stack for one function.
const FRAME: u32 = 256;
/// Where netfilter takes programs from.
const NETFILTER: Release = Release { major: 6, minor: 4 };

#[test]
fn the_verifier_takes_every_program_and_is_far_from_its_limits() {
    let all = verify_all().unwrap();
    assert_eq!(all.len(), 4);
    for verified in all {
        match verified {
            Ok(verified) => {
                let frame = verified.frames.iter().copied().max().unwrap();
                println!(
                    "verifier: {:12} {:7} instructions, {:3} functions, stack of the largest {frame}, \
                     of all {}, loaded in {:.2} s",
                    verified.program,
                    verified.instructions,
                    verified.frames.len(),
                    verified.frames.iter().sum::<u32>(),
                    verified.took.as_secs_f64(),
                );
                assert!(verified.instructions < INSTRUCTIONS, "{verified:?}");
                assert!(frame <= FRAME, "{verified:?}");
            }
            Err(error @ VerifyError::NoSuchKind(_)) => {
                println!("verifier: {error}");
                assert!(Release::running().unwrap() < NETFILTER, "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
