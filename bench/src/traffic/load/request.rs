//! Requests and answers on one connection.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use enforcer_tests::LabError;

use super::{Ends, MESSAGE, Turn, accept, ask, connect, meter::Meter};

/// Before the clock starts.
const WARM_UP: u32 = 50;

pub(super) fn turn(ends: &Ends<'_>, time: Duration) -> Result<Turn, LabError> {
    let listener = ends.listen()?;
    ends.both(
        move || answer(&listener),
        || {
            let mut stream = connect(ends.address)?;
            for _ in 0..WARM_UP {
                ask(&mut stream)?;
            }
            let mut asked = 0.0;
            let meter = Meter::start(time)?;
            while meter.goes_on() {
                ask(&mut stream)?;
                asked += 1.0;
            }
            meter.stop(asked)
        },
    )
}

/// Answers until the client has closed.
fn answer(listener: &TcpListener) -> io::Result<()> {
    let mut stream = accept(listener)?;
    let mut message = [0; MESSAGE];
    loop {
        // A request is one segment, so there is no part of one.
        match stream.read(&mut message)? {
            0 => return Ok(()),
            read => stream.write_all(&message[..read])?,
        }
    }
}
