//! Datagrams, some at a time: each must have come before the next are sent, so that all that are
//! counted went the whole way.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use enforcer_tests::LabError;

use super::{Ends, MESSAGE, PATIENCE, Turn, failed, meter::Meter};

/// Sent before they are read: well within what a socket keeps.
const TOGETHER: u32 = 32;

pub(super) fn turn(ends: &Ends<'_>, time: Duration) -> Result<Turn, LabError> {
    let far = ends.server.run(|| -> io::Result<_> {
        let socket = UdpSocket::bind(ends.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })?;
    let far = far.map_err(failed("listen"))?;
    ends.alone(move || {
        let near = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        near.connect(ends.address)?;
        let mut message = [0; MESSAGE];
        let mut pass = || -> io::Result<()> {
            for _ in 0..TOGETHER {
                near.send(&message)?;
            }
            for _ in 0..TOGETHER {
                far.recv(&mut message)?;
            }
            Ok(())
        };
        pass()?;
        let mut passed = 0.0;
        let meter = Meter::start(time)?;
        while meter.goes_on() {
            pass()?;
            passed += f64::from(TOGETHER);
        }
        meter.stop(passed)
    })
}
