//! What kube-proxy does on a node in ipvs mode: virtual addresses on a device of their own, and their
//! backends in the kernel's table, by turns. IPv4 only: the table's older interface has no more.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd as _,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::{Lab, LabError, Protocol, Service, ip};

/// `IP_VS_SO_SET_ADD` and `IP_VS_SO_SET_ADDDEST` (`include/uapi/linux/ip_vs.h`).
const ADD_SERVICE: libc::c_int = 64 + 1024 + 64 + 2;
const ADD_BACKEND: libc::c_int = 64 + 1024 + 64 + 7;

/// `struct ip_vs_service_user`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    protocol: u16,
    address: u32,
    port: u16,
    mark: u32,
    scheduler: [u8; 16],
    flags: u32,
    timeout: u32,
    netmask: u32,
}

/// A Service of the table and one of its backends, as the kernel takes them.
#[repr(C)]
struct Pair(Table, Target);

/// `struct ip_vs_dest_user`; flags of 0 mean that addresses are translated.
#[repr(C)]
#[derive(Clone, Copy)]
struct Target {
    address: u32,
    port: u16,
    flags: u32,
    weight: i32,
    upper: u32,
    lower: u32,
}

/// Serves the Services' cluster addresses.
///
/// # Errors
/// If the kernel has no IPVS, or refuses.
pub fn serve(lab: &Lab, services: &[Service]) -> Result<(), LabError> {
    let mut lines = vec!["link add kube-ipvs0 type dummy".to_owned()];
    for address in services.iter().flat_map(|service| &service.cluster_ips) {
        if address.is_ipv4() {
            lines.push(format!("addr add {address}/32 dev kube-ipvs0"));
        }
    }
    ip::batch(Some(lab.node()), &lines)?;
    lab.node().run(|| {
        services.iter().try_for_each(write).map_err(LabError::io("write to the table of IPVS"))
    })?
}

fn v4(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
}

fn write(service: &Service) -> io::Result<()> {
    let Some(address) = v4(&service.cluster_ips) else { return Ok(()) };
    for port in &service.ports {
        let mut scheduler = [0; 16];
        scheduler[..2].copy_from_slice(b"rr");
        let protocol = match port.protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
        };
        let table = Table {
            protocol: u16::try_from(protocol).map_err(io::Error::other)?,
            address: u32::from(address).to_be(),
            port: port.number.to_be(),
            mark: 0,
            scheduler,
            flags: 0,
            timeout: 0,
            netmask: u32::MAX,
        };
        set(ADD_SERVICE, &table)?;
        for backend in &service.backends {
            let Some(address) = v4(&backend.addresses) else { continue };
            let target = Target {
                address: u32::from(address).to_be(),
                port: backend.port.to_be(),
                flags: 0,
                weight: 1,
                upper: 0,
                lower: 0,
            };
            set(ADD_BACKEND, &Pair(table, target))?;
        }
    }
    Ok(())
}

fn set<T>(option: libc::c_int, value: &T) -> io::Result<()> {
    // Any socket of the family takes the option.
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the value lives through the call, and its length is given.
    let code = unsafe {
        libc::setsockopt(
            any.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    Errno::result(code).map(|_| ()).map_err(io::Error::from)
}
