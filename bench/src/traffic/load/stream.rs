//! Bytes of one connection. The clock stops when the other side has read the last one.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener},
    time::Duration,
};

use enforcer_tests::LabError;

use super::{Ends, accept, connect, meter::Meter};
use crate::traffic::load::Turn;

/// What is written and read at once.
const BLOCK: usize = 128 * 1024;
/// Blocks before the clock starts, while the connection's windows open.
const WARM_UP: u32 = 32;

pub(super) fn turn(ends: &Ends<'_>, time: Duration) -> Result<Turn, LabError> {
    let listener = ends.listen()?;
    ends.both(
        move || drain(&listener),
        || {
            let mut stream = connect(ends.address)?;
            let block = vec![0; BLOCK];
            for _ in 0..WARM_UP {
                stream.write_all(&block)?;
            }
            let mut bytes = 0.0;
            let meter = Meter::start(time)?;
            while meter.goes_on() {
                stream.write_all(&block)?;
                bytes += BLOCK as f64;
            }
            stream.shutdown(Shutdown::Write)?;
            // The other side closes when it has read everything.
            stream.read_exact(&mut [0])?;
            meter.stop(bytes * 8.0 / 1e9)
        },
    )
}

fn drain(listener: &TcpListener) -> io::Result<()> {
    let mut stream = accept(listener)?;
    let mut block = vec![0; BLOCK];
    while stream.read(&mut block)? > 0 {}
    stream.write_all(&[0])
}
