//! From a disabled controller to one that works (Base 2.0, 3.5.1), step by step and without waiting.

use super::command::{Command, Pointer, Status, admin};
use super::identify::{self, ControllerInfo, NamespaceInfo};
use super::queue::{InFlight, MAX_TRANSFER, Queue};
use super::{MAX_QUEUES, Namespace, Nvme, QUEUE_SIZE, STEP, register};
use crate::controller::COMMAND_MS;
use alloc::{format, string::String};
use tessera_rt::log;

/// What the controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was told to stop; it has until this moment.
    Disabling(u64),
    /// It was told to start; it has until this moment.
    Enabling(u64),
    /// A command of the preparation is in flight; it has until this moment.
    Preparing(Step, u64),
    /// It works.
    Ready,
    /// It does not.
    Failed,
    /// It was taken away.
    Gone,
}

/// Commands that prepare a controller, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Identify the controller.
    Controller,
    /// Which namespaces there are.
    Namespaces,
    /// Identify a namespace: index in the list.
    Namespace(usize),
    /// How many I/O queues there will be.
    Queues,
    /// Create the completion queue of I/O queue `index`.
    Completions(usize),
    /// Create its submission queue.
    Submissions(usize),
}

impl Nvme {
    /// Stops the controller, which forgets everything.
    pub(super) fn disable(&mut self, now: u64) {
        self.registers.write32(register::CONFIGURATION, 0);
        self.phase = Phase::Disabling(now.saturating_add(self.patience));
        self.logs.reset();
    }

    /// Goes on with the way to readiness as far as it goes now.
    pub(super) fn advance(&mut self, now: u64) -> Result<(), String> {
        if self.is_gone() {
            return Err("it does not answer any more".into());
        }
        let ready = self.status() & 1 != 0;
        match self.phase {
            Phase::Disabling(_) if !ready => {
                self.platform.allow_memory_access()?;
                self.enable(now);
                Ok(())
            }
            Phase::Enabling(_) if ready => self.begin(Step::Controller, now),
            Phase::Disabling(deadline) | Phase::Enabling(deadline) | Phase::Preparing(_, deadline) if now >= deadline => {
                Err("it does not become ready in time".into())
            }
            Phase::Preparing(..) => match self.collect_admin(now) {
                Ok(outcome) => outcome,
                Err(_) => Err("it completes what it was not given".into()),
            },
            _ => Ok(()),
        }
    }

    fn enable(&mut self, now: u64) {
        self.admin.reset();
        let [submissions, completions] = self.admin.addresses();
        let size = u32::from(self.admin.size()) - 1;
        self.registers.write32(register::ADMIN_SIZES, size | size << 16);
        self.registers.write64(register::ADMIN_SUBMISSIONS, submissions);
        self.registers.write64(register::ADMIN_COMPLETIONS, completions);
        // Entries of 64 and 16 bytes, pages of 4 KiB, round-robin, NVM command set; enable.
        self.registers.write32(register::CONFIGURATION, 6 << 16 | 4 << 20 | 1);
        self.phase = Phase::Enabling(now.saturating_add(self.patience));
    }

    fn begin(&mut self, step: Step, now: u64) -> Result<(), String> {
        let command = self.command_of(step)?;
        let whose = InFlight {
            tag: STEP,
            sector: 0,
            since: now,
        };
        self.admin
            .submit(&command, &[], None, whose)
            .map_err(|_| "its admin queue is full")?;
        self.admin.ring(&*self.registers);
        self.phase = Phase::Preparing(step, now.saturating_add(COMMAND_MS));
        Ok(())
    }

    fn identify(&self, namespace: u32, structure: u32) -> Command {
        Command {
            opcode: admin::IDENTIFY,
            namespace,
            pointer: Pointer {
                list: false,
                words: [self.scratch.physical(), 0],
            },
            arguments: [structure, 0, 0, 0, 0, 0],
        }
    }

    /// I/O queues that will be asked for: one for each interrupt beside the admin queue's, and one that interrupts nobody.
    fn wanted_queues(&self) -> u16 {
        let silent = u16::from(self.interrupts > 0);
        self.interrupts.saturating_sub(1).clamp(1, MAX_QUEUES) + silent
    }

    fn command_of(&mut self, step: Step) -> Result<Command, String> {
        Ok(match step {
            Step::Controller => self.identify(0, 1),
            Step::Namespaces => self.identify(0, 2),
            Step::Namespace(index) => self.identify(self.namespaces.get(index).map_or(0, |namespace| namespace.number), 0),
            Step::Queues => {
                let count = u32::from(self.wanted_queues()) - 1;
                Command {
                    opcode: admin::SET_FEATURES,
                    arguments: [7, count | count << 16, 0, 0, 0, 0],
                    ..Command::default()
                }
            }
            Step::Completions(index) => {
                let size = QUEUE_SIZE.min(self.most_entries);
                let number = index as u16 + 1;
                if self.queues.len() <= index {
                    let queue = Queue::new(&*self.platform, number, size, self.stride);
                    self.queues.push(
                        queue.ok_or("there is no memory for its queues: raise `device-memory` of the storage server in the manifest")?,
                    );
                }
                self.queues[index].reset();
                let vector = u32::from(if number < self.interrupts { number } else { 0 });
                let interrupts = u32::from(self.interrupts > 0 && self.silent != Some(index)) << 1;
                let [_, completions] = self.queues[index].addresses();
                create(admin::CREATE_CQ, completions, number, size, interrupts | vector << 16)
            }
            Step::Submissions(index) => {
                let queue = self.queues.get(index).ok_or("a queue is missing")?;
                let number = index as u16 + 1;
                create(
                    admin::CREATE_SQ,
                    queue.addresses()[0],
                    number,
                    queue.size(),
                    u32::from(number) << 16,
                )
            }
        })
    }

    /// The command of the present step has completed.
    pub(super) fn step_completed(&mut self, status: Status, result: u32, now: u64) -> Result<(), String> {
        let Phase::Preparing(step, _) = self.phase else { return Ok(()) };
        if !status.is_ok() {
            return Err(format!(
                "it refuses a command of its preparation ({step:?}, status {:#x})",
                status.0
            ));
        }
        let mut bytes = alloc::vec![0; identify::LENGTH];
        self.scratch.copy_out(0, &mut bytes);
        let after = |index: usize, nvme: &Self| {
            if index < nvme.namespaces.len() {
                Step::Namespace(index)
            } else {
                Step::Queues
            }
        };
        let next = match step {
            Step::Controller => {
                self.info = ControllerInfo::parse(&bytes, MAX_TRANSFER);
                // After a reset the namespaces are those that others know by their numbers.
                if self.namespaces.is_empty() {
                    Step::Namespaces
                } else {
                    after(0, self)
                }
            }
            Step::Namespaces => {
                let numbers = identify::namespaces(&bytes);
                self.namespaces.extend(numbers.into_iter().map(|number| Namespace {
                    number,
                    info: NamespaceInfo::default(),
                }));
                after(0, self)
            }
            Step::Namespace(index) => after(self.namespace(index, &bytes), self),
            Step::Queues => {
                // Zero-based: submission queues in the low half, completion queues in the high one.
                let granted = (result & 0xffff).min(result >> 16).min(u32::from(MAX_QUEUES)) as u16 + 1;
                self.granted = usize::from(granted.min(self.wanted_queues()));
                self.silent = (self.interrupts > 0 && self.granted > 1).then(|| self.granted - 1);
                Step::Completions(0)
            }
            Step::Completions(index) => Step::Submissions(index),
            Step::Submissions(index) if index + 1 < self.granted => Step::Completions(index + 1),
            Step::Submissions(_) => {
                self.phase = Phase::Ready;
                return Ok(());
            }
        };
        self.begin(next, now)
    }

    /// Takes what a namespace tells. Answers the index of the next.
    fn namespace(&mut self, index: usize, bytes: &[u8]) -> usize {
        let first_time = self
            .namespaces
            .get(index)
            .is_some_and(|namespace| namespace.info == NamespaceInfo::default());
        match NamespaceInfo::parse(bytes) {
            Ok(info) => {
                if let Some(namespace) = self.namespaces.get_mut(index) {
                    namespace.info = info;
                }
                index + 1
            }
            Err(reason) if first_time => {
                let namespace = self.namespaces.remove(index);
                log::warn!("{}: namespace {} cannot be used: {reason}", self.name, namespace.number);
                index
            }
            // It keeps what it told before: its requests will fail.
            Err(_) => index + 1,
        }
    }
}

/// Creates a queue: identity and size less one; contiguous; the rest differs.
fn create(opcode: u8, address: u64, number: u16, size: u16, rest: u32) -> Command {
    Command {
        opcode,
        pointer: Pointer {
            list: false,
            words: [address, 0],
        },
        arguments: [u32::from(number) | (u32::from(size) - 1) << 16, 1 | rest, 0, 0, 0, 0],
        ..Command::default()
    }
}
