//! A connection for each request. The server closes first: what then waits for stray segments is on
//! its side, and the client does not run out of ports.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use enforcer_tests::LabError;

use super::{Ends, MESSAGE, PATIENCE, Turn, meter::Meter};

/// First byte of the last request.
const LAST: u8 = 2;
/// Before the clock starts.
const WARM_UP: u32 = 20;

pub(super) fn turn(ends: &Ends<'_>, time: Duration) -> Result<Turn, LabError> {
    let listener = ends.listen()?;
    ends.both(
        move || {
            while serve(&listener)? != LAST {}
            Ok(())
        },
        || {
            for _ in 0..WARM_UP {
                once(ends, 1)?;
            }
            let mut made = 0.0;
            let meter = Meter::start(time)?;
            while meter.goes_on() {
                once(ends, 1)?;
                made += 1.0;
            }
            let turn = meter.stop(made);
            once(ends, LAST)?;
            turn
        },
    )
}

/// One connection at the server; the first byte of its request.
fn serve(listener: &TcpListener) -> io::Result<u8> {
    let (mut stream, _) = listener.accept()?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)?;
    Ok(message[0])
}

/// One connection of the client, until the server has closed it.
fn once(ends: &Ends<'_>, first: u8) -> io::Result<()> {
    let mut stream = TcpStream::connect(ends.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = [0; MESSAGE];
    message[0] = first;
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    if stream.read(&mut message)? != 0 {
        return Err(io::Error::other("more came than was asked for"));
    }
    Ok(())
}
