//! Memory that two servers share. It is init's, so that neither takes it from the other by ending: what a server maps stays there.

use crate::buddy::Block;
use crate::process::{Granted, Source, trouble};
use crate::root::Root;
use alloc::format;
use alloc::vec::Vec;
use tessera_abi::PAGE_SIZE;
use tessera_abi::object::{ObjectKind, Rights};
use tessera_manifest::Resource;
use tessera_proto::{Failure, FailureKind};
use tessera_rt::{CNode, Untyped, slots};

/// A piece of shared memory, made when the first of the two servers starts.
#[derive(Debug)]
pub struct Share {
    /// Index of the server in whose grants it stands.
    server: usize,
    /// Place of the grant.
    grant: usize,
    slot: u32,
    _block: Block,
}

impl Root {
    /// The frame behind a grant, which is made when it is not there yet.
    fn share(&mut self, server: usize, grant: usize, length: u64) -> Result<Source, Failure> {
        let found = self.shares.iter().find(|share| share.server == server && share.grant == grant);
        let slot = match found {
            Some(share) => share.slot,
            None => {
                let pages = length / PAGE_SIZE as u64;
                let exhausted = || Failure::new(FailureKind::Exhausted, "there is no memory for two servers to share");
                let block = self.machine.take(pages.next_power_of_two().ilog2()).ok_or_else(exhausted)?;
                let slot = slots::take().map_err(trouble("init has no slot left"))?;
                Untyped::new(block.slot)
                    .retype(ObjectKind::Frame, pages, CNode::OWN, slot, 1)
                    .map_err(trouble("making memory for two servers to share"))?;
                self.machine.own_pages += block.pages();
                self.shares.push(Share {
                    server,
                    grant,
                    slot,
                    _block: block,
                });
                slot
            }
        };
        Ok(Source::Copy {
            slot,
            rights: Rights::READ | Rights::WRITE,
            badge: 0,
        })
    }

    /// What a server shares with others: by its own grants, and by theirs.
    ///
    /// # Errors
    /// Memory is used up.
    pub fn resolve_shares(&mut self, index: usize, granted: &mut Vec<Granted>) -> Result<(), Failure> {
        for other in 0..self.servers.len() {
            if self.servers[other].vm.is_some() {
                continue;
            }
            let declared = self.servers[other].server;
            for place in 0..self.manifest.servers[declared].grants.len() {
                let grant = &self.manifest.servers[declared].grants[place];
                let Resource::Share { server, length } = &grant.resource else {
                    continue;
                };
                let name = if other == index {
                    grant.name.clone()
                } else if *server == self.servers[index].name {
                    format!("shared.{}.{}", other + 1, grant.name)
                } else {
                    continue;
                };
                let length = *length;
                let source = self.share(other, place, length)?;
                granted.push(Granted {
                    name,
                    source,
                    length,
                    large: false,
                });
            }
        }
        Ok(())
    }
}
