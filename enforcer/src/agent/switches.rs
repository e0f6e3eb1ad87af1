//! What `enforcer disable` needs and does, on the owning task's side.

use std::sync::Arc;

use tracing::warn;

use super::{core::Core, endpoints_file::EndpointRecord};
use crate::dataplane::{self, Disabled};

impl Core {
    /// Writes down which pod has which endpoint, if that has changed.
    pub(super) fn write_endpoints(&mut self) {
        let status = self.index.status();
        let records = status.endpoints.into_iter().filter_map(|endpoint| {
            Some(EndpointRecord {
                pod: format!("{}/{}", endpoint.pod.namespace, endpoint.pod.name),
                slot: self.kernel.slot(endpoint.ifindex)?,
                ifindex: endpoint.ifindex,
                interface: endpoint.interface,
            })
        });
        if let Err(error) = self.endpoints_file.write(records.collect()) {
            warn!(%error, "the names of endpoints cannot be written: `enforcer disable --pod` needs them");
        }
    }

    /// Looks whether somebody has switched enforcement off, or it has come back.
    pub(super) fn look_at_switches(&mut self) {
        let disabled = self.kernel.disabled(dataplane::monotonic());
        if disabled == Disabled::default() && self.break_glass.failure().is_none() {
            return;
        }
        let status = self.index.status();
        self.break_glass.look(&disabled, |ifindex| {
            let endpoint = status.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex);
            endpoint.map_or_else(
                || Arc::from(format!("interface {ifindex}")),
                |endpoint| Arc::from(format!("{}/{}", endpoint.pod.namespace, endpoint.pod.name)),
            )
        });
    }
}
