//! The control queue (virtio 1.2, 5.1.6.5): what the card is to receive, and on how many queues. One command is in flight at a time, and nobody waits for it.

use alloc::{string::String, vec::Vec};
use tessera_device::{
    DmaBuffer,
    hardware::Platform,
    virtio::{Broken, Configuration, Ring, flags},
};

/// Addresses that are told to the card; with more it receives everything.
pub const MAX_ADDRESSES: usize = 64;
/// Descriptors that are used: a command and its answer.
const QUEUE_SIZE: u16 = 2;
/// Where the answer stands in the memory.
const ANSWER: usize = 2048;

/// What the card is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Receive everything.
    pub promiscuous: bool,
    /// Receive all multicasts.
    pub multicast: bool,
    /// Receive what is for these.
    pub addresses: Vec<[u8; 6]>,
    /// Pairs of queues; 1: nothing to say.
    pub pairs: u16,
}

/// Commands of which a wish consists: class, command.
const STEPS: [(u8, u8); 4] = [(4, 0), (0, 0), (0, 1), (1, 0)];

/// The queue.
pub struct Control {
    ring: Ring,
    memory: DmaBuffer,
    wish: Wish,
    /// The next step, and whether one is in flight.
    step: usize,
    flying: bool,
    /// A wish that came meanwhile: begin again.
    again: bool,
    /// Steps that the card refused, one bit each.
    pub refused: u8,
}

impl Control {
    /// Makes the queue with a number.
    pub fn new(configuration: &Configuration, platform: &dyn Platform, number: u16) -> Result<Self, String> {
        Ok(Self {
            ring: Ring::new(configuration, platform, number, QUEUE_SIZE)?,
            memory: platform.allocate(4096).ok_or(crate::drivers::NO_MEMORY)?,
            wish: Wish::default(),
            step: STEPS.len(),
            flying: false,
            again: false,
            refused: 0,
        })
    }

    /// Hands it to a device that was reset, and says everything again.
    pub fn reset(&mut self, configuration: &Configuration, accepted: u64) -> Result<(), String> {
        self.ring.reset(configuration, accepted, None)?;
        self.ring.interrupt(None);
        (self.step, self.flying, self.again) = (0, false, false);
        Ok(())
    }

    /// Changes the wish.
    pub fn wish(&mut self, wish: Wish) {
        if wish != self.wish {
            self.wish = wish;
            if self.flying {
                self.again = true;
            } else {
                self.step = 0;
            }
        }
    }

    /// Goes on.
    pub fn go_on(&mut self, configuration: &Configuration) -> Result<(), Broken> {
        if self.flying {
            if self.ring.look()? == 0 {
                return Ok(());
            }
            let used = self.ring.take().ok_or(Broken)?;
            if used.head != 0 {
                return Err(Broken);
            }
            if self.memory.read::<u8>(ANSWER) != 0 {
                self.refused |= 1 << self.step;
            }
            self.flying = false;
            self.step = if core::mem::take(&mut self.again) { 0 } else { self.step + 1 };
        }
        while let Some((class, command)) = STEPS.get(self.step).copied() {
            if class == 4 && self.wish.pairs <= 1 {
                self.step += 1;
                continue;
            }
            self.send(class, command, configuration);
            break;
        }
        Ok(())
    }

    fn send(&mut self, class: u8, command: u8, configuration: &Configuration) {
        let mut bytes = Vec::from([class, command]);
        match (class, command) {
            (4, _) => bytes.extend(self.wish.pairs.to_le_bytes()),
            (0, 0) => bytes.push(self.wish.promiscuous.into()),
            (0, _) => bytes.push(self.wish.multicast.into()),
            _ => {
                // Two tables (5.1.6.5.2): of single addresses, and of groups.
                for group in [false, true] {
                    let chosen = self.wish.addresses.iter().filter(|address| (address[0] & 1 != 0) == group);
                    bytes.extend((chosen.clone().count() as u32).to_le_bytes());
                    bytes.extend(chosen.flatten());
                }
            }
        }
        self.memory.copy_in(0, &bytes);
        self.memory.write(ANSWER, 0xffu8);
        let physical = self.memory.physical();
        self.ring.describe(0, physical, bytes.len() as u32, flags::NEXT, 1);
        self.ring.describe(1, physical + ANSWER as u64, 1, flags::WRITE, 0);
        self.ring.offer(0);
        self.ring.publish(configuration);
        self.flying = true;
    }

    /// Whether a command is in flight or to come.
    pub fn is_busy(&self) -> bool {
        self.flying || self.step < STEPS.len()
    }
}
