//! Answers that are put off: a task makes them, and holds the caller's Reply meanwhile.

use crate::executor::Executor;
use alloc::{rc::Rc, vec::Vec};
use core::{
    cell::{Cell, RefCell},
    future::Future,
};
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::{Reply, Untyped, abi::syscall::MessageInfo, message::Message};

/// How a result becomes bytes: [`tessera_proto::answer`].
pub type Encode<T> = fn(&Result<T, Failure>, &mut Call, &mut [u8]) -> usize;

/// The Replies of a server that puts answers off.
pub struct Later {
    executor: Rc<Executor>,
    /// Takes the next caller.
    reply: Cell<Reply>,
    spare: Rc<RefCell<Vec<Reply>>>,
}

impl Later {
    /// Tasks run on `executor`.
    #[must_use]
    pub fn new(executor: Rc<Executor>) -> Self {
        Self {
            executor,
            reply: Cell::new(Reply::FIRST),
            spare: Rc::default(),
        }
    }

    /// The Reply for the next caller.
    #[must_use]
    pub fn reply(&self) -> Reply {
        self.reply.get()
    }

    /// Puts the answer off: `work` makes it. What is returned is not sent.
    ///
    /// # Errors
    /// Always, since there is no answer yet; or there is no memory for another Reply.
    pub fn answer<T: 'static>(
        &self,
        call: &mut Call,
        encode: Encode<T>,
        work: impl Future<Output = Result<T, Failure>> + 'static,
    ) -> Result<T, Failure> {
        // Who waits for news keeps one for as long as it lives, so there is no fixed number of them.
        let spare = self.spare.borrow_mut().pop().or_else(|| Untyped::OWN.reply().ok());
        let Some(spare) = spare else {
            return Err(Failure::new(FailureKind::Exhausted, "the server has too much to do: try again"));
        };
        let reply = self.reply.replace(spare);
        let replies = self.spare.clone();
        self.executor.spawn(async move {
            let result = work.await;
            send(reply, &result, encode);
            replies.borrow_mut().push(reply);
        });
        call.defer();
        Err(FailureKind::Internal.into())
    }
}

fn send<T>(reply: Reply, result: &Result<T, Failure>, encode: Encode<T>) {
    let mut message = Message::take();
    let length = encode(result, &mut Call::default(), message.bytes());
    let mut words = message.load(length);
    // BadState: the caller is gone, which is as good.
    let _ = reply.send(MessageInfo::new(length, 0), &mut words);
}
