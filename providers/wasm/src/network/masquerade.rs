//! Hides pods' addresses behind the node's where nobody else knows the way back to them.
//!
//! One table of nftables: what pods send to other machines leaves with the node's address. The table is owned by a socket
//! of this process, and the kernel removes it with that socket, so nothing is left however the process ends.

use std::io;

use ipnet::Ipv4Net;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::NetworkError;

/// The rule, as long as this is held.
pub(super) struct Masquerade {
    _owner: Socket,
}

impl std::fmt::Debug for Masquerade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Masquerade")
    }
}

impl Masquerade {
    /// Adds the rule to the namespace of the current thread. Needs Linux 5.12.
    pub(super) fn add(range: Ipv4Net, table: &str) -> Result<Self, NetworkError> {
        let add = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            let batch = batch(range, table);
            socket.send(&batch.bytes, 0)?;
            (0..batch.messages).try_for_each(|_| acknowledged(&socket))?;
            Ok(Self { _owner: socket })
        };
        add().map_err(|error: io::Error| {
            NetworkError::system("add a masquerading rule to nftables (which takes Linux 5.12)", error)
        })
    }
}

/// Reads the kernel's answer to one message. It is there as soon as the batch is sent.
fn acknowledged(socket: &Socket) -> io::Result<()> {
    const HEADER: usize = 16;
    let (answer, _) = socket.recv_from_full()?;
    let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::Error::other("nftables gave a short answer")),
    }
}

/// Numbers of linux/netfilter/nfnetlink.h and nf_tables.h.
mod nft {
    pub(super) const SUBSYSTEM: u16 = 10;
    pub(super) const BATCH_BEGIN: u16 = 0x10;
    pub(super) const BATCH_END: u16 = 0x11;
    pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub(super) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
    pub(super) const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

    pub(super) const TABLE_OWNED_BY_SOCKET: u32 = 2;
    pub(super) const HOOK_POSTROUTING: u32 = 4;
    /// Where source addresses are translated, after all filters.
    pub(super) const PRIORITY_SRCNAT: u32 = 100;
    pub(super) const NETWORK_HEADER: u32 = 1;
    pub(super) const REGISTER_1: u32 = 1;
    pub(super) const EQUAL: u32 = 0;
    pub(super) const NOT_EQUAL: u32 = 1;

    pub(super) const SOURCE_ADDRESS: u32 = 12;
    pub(super) const DESTINATION_ADDRESS: u32 = 16;
}

const CHAIN: &str = "postrouting";

/// The messages that make the table, which the kernel takes all or none of.
fn batch(range: Ipv4Net, table: &str) -> Batch {
    let mut batch = Batch::default();
    batch.message(nft::BATCH_BEGIN, nft::SUBSYSTEM, &[]);
    let owned = [text(1, table), number(2, nft::TABLE_OWNED_BY_SOCKET)];
    batch.message(nft::NEW_TABLE, 0, &owned);
    let hook = [number(1, nft::HOOK_POSTROUTING), number(2, nft::PRIORITY_SRCNAT)];
    batch.message(nft::NEW_CHAIN, 0, &[text(1, table), text(3, CHAIN), nested(4, &hook), text(7, "nat")]);
    let rule = |expressions: Vec<Attribute>| [text(1, table), text(2, CHAIN), nested(4, &expressions)];
    let is_from_pod = address_is(nft::SOURCE_ADDRESS, range, nft::EQUAL);
    let is_to_no_pod = address_is(nft::DESTINATION_ADDRESS, range, nft::NOT_EQUAL);
    let masquerade = vec![expression("masq", &[])];
    batch.message(nft::NEW_RULE, 0, &rule([is_from_pod, is_to_no_pod, masquerade].concat()));
    batch.message(nft::BATCH_END, nft::SUBSYSTEM, &[]);
    batch
}

/// Expressions that go on only if the address at this place of the IP header is, or is not, in a range.
fn address_is(offset: u32, range: Ipv4Net, comparison: u32) -> Vec<Attribute> {
    let value = |octets: [u8; 4]| attribute(1, &octets);
    let register = |kind| number(kind, nft::REGISTER_1);
    let load = [register(1), number(2, nft::NETWORK_HEADER), number(3, offset), number(4, 4)];
    let mask = [
        register(1),
        register(2),
        number(3, 4),
        nested(4, &[value(range.netmask().octets())]),
        nested(5, &[value([0; 4])]),
    ];
    let compare = [register(1), number(2, comparison), nested(3, &[value(range.network().octets())])];
    vec![expression("payload", &load), expression("bitwise", &mask), expression("cmp", &compare)]
}

fn expression(name: &str, data: &[Attribute]) -> Attribute {
    nested(1, &[text(1, name), nested(2, data)])
}

/// An encoded attribute: length, kind, value, and zeros up to a multiple of four bytes.
type Attribute = Vec<u8>;

fn attribute(kind: u16, value: &[u8]) -> Attribute {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend_from_slice(&(length as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn number(kind: u16, value: u32) -> Attribute {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Attribute {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn nested(kind: u16, attributes: &[Attribute]) -> Attribute {
    const NESTED: u16 = 1 << 15;
    attribute(kind | NESTED, &attributes.concat())
}

/// Messages to nftables, one after the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// How many of them the kernel acknowledges.
    messages: u32,
}

impl Batch {
    fn message(&mut self, kind: u16, resource: u16, attributes: &[Attribute]) {
        const REQUEST: u16 = 0x1;
        const ACKNOWLEDGE: u16 = 0x4;
        const CREATE: u16 = 0x400;
        const APPEND: u16 = 0x800;
        const IPV4: u8 = 2;
        let is_frame = matches!(kind, nft::BATCH_BEGIN | nft::BATCH_END);
        let (flags, family) =
            if is_frame { (REQUEST, 0) } else { (REQUEST | ACKNOWLEDGE | CREATE | APPEND, IPV4) };
        self.messages += u32::from(!is_frame);

        let payload = attributes.concat();
        let length = 20 + payload.len() as u32;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.messages.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(&payload);
    }
}
