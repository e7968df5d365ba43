//! `nic show`.

use super::{link, state};
use crate::{commands::Context, format, terminal::Style};
use alloc::{format, vec::Vec};
use tessera_proto::network::NicInfo;

/// Shows everything about a card.
pub fn show(context: &mut Context<'_>, nic: &NicInfo) {
    let (text, style) = state(nic);
    let out = &mut context.out;
    out.styled_line(Style::Heading, &nic.name);
    out.styled_line(style, &format!("  state        {text}"));
    let style = if nic.link.up { Style::Plain } else { Style::Warning };
    out.styled_line(style, &format!("  link         {}", link(nic)));
    out.prose(&format!("  model        {}", nic.model), 15);
    out.line(&format!("  driver       {} at {}, queues: {}", nic.driver, nic.address, nic.queues));
    let receives = if nic.promiscuous { ", receives everything" } else { "" };
    out.line(&format!("  address      {}{receives}", format::mac(nic.mac)));
    out.line(&format!("  MTU          {}", nic.mtu));
    let does = &nic.offloads;
    let does = [
        (does.checksum, "checksums"),
        (does.tcp4, "TCP segmentation over IPv4"),
        (does.tcp6, "over IPv6"),
        (does.udp, "UDP segmentation"),
        (does.vlan, "VLAN tags"),
        (does.verifies, "checks of what it receives"),
        (does.joins, "joining of what it receives"),
    ];
    let does: Vec<&str> = does.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    if !does.is_empty() {
        out.prose(&format!("  does         {}", does.join(", ")), 15);
    }
    let statistics = &nic.statistics;
    out.line(&format!(
        "  received     {} in {} packets",
        format::bytes(statistics.received_bytes),
        format::count(statistics.received)
    ));
    out.line(&format!(
        "  sent         {} in {} packets",
        format::bytes(statistics.sent_bytes),
        format::count(statistics.sent)
    ));
    out.line(&format!(
        "  events       {} interrupts, {} resets, {} changes of the link",
        format::count(statistics.interrupts),
        statistics.resets,
        statistics.link_changes
    ));
    let lost = [
        (statistics.received_missed, "missed"),
        (statistics.received_errors, "arrived broken"),
        (statistics.sent_full, "not sent since the queue was full"),
        (statistics.sent_errors, "lost in the card"),
    ];
    for (number, what) in lost.into_iter().filter(|(number, _)| *number > 0) {
        out.styled_line(Style::Warning, &format!("  lost         {} {what}", format::count(number)));
    }
    if !nic.last_error.is_empty() {
        out.prose(&format!("  last error   {}", nic.last_error), 15);
    }
}
