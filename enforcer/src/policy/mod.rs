//! Policy objects as the engine sees them: API objects to rules to verdict rows. Pure, no I/O.
