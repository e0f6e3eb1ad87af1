//! Tables and chains of nftables (`NFNL_SUBSYS_NFTABLES`, `linux/netfilter/nf_tables.h`): their
//! names only. Chains of iptables' nft variant are among them.

use super::{
    error::NetlinkError,
    socket::{Family, Requests},
    wire::{Attributes, DUMP, Message, Request, text},
};

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_NEWTABLE`: a table of a dump.
const NEW_TABLE: u16 = SUBSYSTEM;
/// `NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = SUBSYSTEM | 1;
/// `NFT_MSG_NEWCHAIN`: a chain of a dump.
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
/// `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = SUBSYSTEM | 4;
/// `NFTA_TABLE_NAME` and `NFTA_CHAIN_TABLE`.
const TABLE: u16 = 1;
/// `NFTA_CHAIN_NAME`.
const CHAIN: u16 = 3;
/// `struct nfgenmsg`: every family, version 0, no resource.
const HEADER: [u8; 4] = [0; 4];

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Its family, as `nft` names it.
    pub family: &'static str,
    /// Its name.
    pub name: String,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// Where it is.
    pub table: Table,
    /// Its name.
    pub name: String,
}

/// All tables and chains in the calling thread's network namespace.
///
/// # Errors
/// If the kernel does not answer; one without nftables refuses.
pub fn tables_and_chains() -> Result<(Vec<Table>, Vec<Chain>), NetlinkError> {
    let mut requests = Requests::open(Family::Netfilter)?;
    let tables = Request::new(GET_TABLE, DUMP, &HEADER);
    let chains = Request::new(GET_CHAIN, DUMP, &HEADER);
    Ok((
        requests.dump("list the tables of nftables", &tables, table)?,
        requests.dump("list the chains of nftables", &chains, chain)?,
    ))
}

fn table(message: &Message<'_>) -> Option<Table> {
    (message.kind == NEW_TABLE).then(|| place(message)).flatten()
}

fn chain(message: &Message<'_>) -> Option<Chain> {
    let name = attributes(message).find(CHAIN).filter(|_| message.kind == NEW_CHAIN)?;
    Some(Chain { table: place(message)?, name: text(name) })
}

/// The table that a message is about; chains name theirs as tables name themselves.
fn place(message: &Message<'_>) -> Option<Table> {
    let family = family(*message.payload.first()?);
    Some(Table { family, name: text(attributes(message).find(TABLE)?) })
}

fn attributes<'a>(message: &Message<'a>) -> Attributes<'a> {
    Attributes::after(message.payload, HEADER.len())
}

/// `NFPROTO_*` (`linux/netfilter.h`).
fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Namespace, keep_only_net_admin, sh},
        *,
    };

    #[test]
    fn tables_and_chains_are_listed_with_net_admin_alone() {
        let namespace = Namespace::new();
        let (tables, chains) = namespace.run(|| {
            sh("nft 'add table inet one; add chain inet one first; add table ip6 two; \
                add table ip filter; add chain ip filter KUBE-NWPLCY-X'");
            keep_only_net_admin();
            tables_and_chains().unwrap()
        });
        let table = |family, name: &str| Table { family, name: name.to_owned() };
        let chain = |table, name: &str| Chain { table, name: name.to_owned() };
        let sorted = |mut tables: Vec<Table>| {
            tables.sort();
            tables
        };
        let expected = [table("inet", "one"), table("ip", "filter"), table("ip6", "two")];
        assert_eq!(sorted(tables), expected);
        let mut chains = chains;
        chains.sort();
        let expected =
            [chain(table("inet", "one"), "first"), chain(table("ip", "filter"), "KUBE-NWPLCY-X")];
        assert_eq!(chains, expected);
    }

    #[test]
    fn a_namespace_without_any_has_none() {
        let found = Namespace::new().run(|| tables_and_chains().unwrap());
        assert_eq!(found, (Vec::new(), Vec::new()));
    }

    #[test]
    fn many_chains_come_in_several_parts() {
        let count = Namespace::new().run(|| {
            sh("(echo 'table ip filter {'; for i in $(seq 3000); do \
                echo \"chain cali-pi-a-long-name-of-a-policy-$i {}\"; done; echo '}') | nft -f -");
            tables_and_chains().unwrap().1.len()
        });
        assert_eq!(count, 3000);
    }
}
