//! The packet parser: what the hooks know of a packet, and where it stops being readable.
