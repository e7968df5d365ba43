//! The `interface!` macro and what its output stands on.

use crate::{Call, CallError, Delivery, Failure, FailureKind, Transport, wire};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tessera_abi::Error;

/// How often an idempotent request is sent again when the server ended before it answered.
const RETRIES: u32 = 3;

/// An interface, for traces and the reference page.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// First byte of its requests; unique.
    pub number: u8,
    /// Name.
    pub name: &'static str,
    /// What it is for, line by line.
    pub doc: &'static [&'static str],
    /// What it can do.
    pub operations: &'static [Operation],
}

/// An operation of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Second byte of its requests; unique in the interface.
    pub number: u8,
    /// Name.
    pub name: &'static str,
    /// What it does, line by line.
    pub doc: &'static [&'static str],
    /// Whether doing it twice is the same as doing it once. Clients then repeat it by themselves when the server was restarted.
    pub idempotent: bool,
    /// Arguments in order.
    pub arguments: &'static [Argument],
    /// Type of the result.
    pub result: &'static str,
    /// Capabilities that travel with the request.
    pub takes: usize,
    /// Capabilities that travel with the reply.
    pub gives: usize,
}

/// An argument of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: &'static str,
}

/// One operation on its way out.
pub struct Attempt<'a> {
    /// Interface number.
    pub interface: u8,
    /// Operation number.
    pub operation: u8,
    /// May be repeated.
    pub idempotent: bool,
    /// Slots to send.
    pub send: &'a [u32],
    /// First slot for capabilities in the reply.
    pub receive: u32,
    /// How many the reply brings.
    pub receive_count: u32,
}

/// Client side of every operation: encodes, sends, repeats if allowed, decodes.
///
/// # Errors
/// See [`CallError`].
pub fn invoke<T: Transport, A: Serialize, R: DeserializeOwned>(
    transport: &mut T,
    attempt: &Attempt<'_>,
    arguments: &A,
) -> Result<R, CallError> {
    let mut tries = 0;
    loop {
        let mut result = Err(CallError::BadReply);
        let outcome = transport.exchange(
            attempt.send,
            attempt.receive,
            attempt.receive_count,
            &mut |buffer| {
                let Some((header, body)) = buffer.split_first_chunk_mut::<2>() else {
                    return Err(CallError::RequestTooLarge);
                };
                *header = [attempt.interface, attempt.operation];
                wire::encode(arguments, body)
                    .map(|length| length + 2)
                    .ok_or(CallError::RequestTooLarge)
            },
            &mut |reply, delivery: Delivery| {
                result = match wire::decode_owned::<Result<R, Failure>>(reply) {
                    Some(Ok(value)) if delivery.caps == attempt.receive_count as usize => Ok(value),
                    Some(Err(failure)) => Err(CallError::Failed(failure)),
                    _ => Err(CallError::BadReply),
                };
            },
        );
        match outcome {
            Ok(()) => return result,
            Err(CallError::Kernel(Error::ServerDied)) if attempt.idempotent && tries < RETRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The operation number of a request for `interface`.
#[must_use]
pub fn operation_of(interface: u8, request: &[u8]) -> Option<u8> {
    match request {
        [number, operation, ..] if *number == interface => Some(*operation),
        _ => None,
    }
}

/// Server side: the arguments of a request.
///
/// # Errors
/// [`FailureKind::BadRequest`] if they cannot be decoded or other capabilities came than the operation takes.
pub fn arguments<'a, A: Deserialize<'a>>(call: &Call, takes: usize, request: &'a [u8]) -> Result<A, Failure> {
    if call.caps != takes {
        return Err(Failure::new(
            FailureKind::BadRequest,
            "the request came with the wrong number of capabilities",
        ));
    }
    request
        .get(2..)
        .and_then(wire::decode)
        .ok_or(Failure::from(FailureKind::BadRequest))
}

/// Server side: encodes a result. One that does not fit becomes [`FailureKind::TooLarge`]; capabilities go along with a success only.
pub fn answer<T: Serialize>(call: &mut Call, gives: usize, result: &Result<T, Failure>, reply: &mut [u8]) -> usize {
    if result.is_err() {
        call.take_back();
    } else if call.given().len() != gives {
        call.take_back();
        return refuse(FailureKind::Internal, reply);
    }
    wire::encode(result, reply).unwrap_or_else(|| {
        call.take_back();
        refuse(FailureKind::TooLarge, reply)
    })
}

/// Server side: the answer to a request that no operation matches.
pub fn unknown_operation(reply: &mut [u8]) -> usize {
    refuse(FailureKind::UnknownOperation, reply)
}

/// Server side: the answer to a request that is not even looked at.
pub fn refuse(kind: FailureKind, reply: &mut [u8]) -> usize {
    wire::encode(&Err::<(), Failure>(kind.into()), reply).unwrap_or(0)
}

/// Declares an interface. See any of the interface files for how it reads: operation number, `idempotent` or `once`, signature, and the numbers of capabilities that travel
/// with the request (`takes`) and with the reply (`gives`).
macro_rules! interface {
    (
        $(#[doc = $doc:literal])*
        $interface:ident = $number:literal;
        $(
            $(#[doc = $operation_doc:literal])*
            $operation_number:literal $repeat:ident fn $operation:ident($($argument:ident: $kind:ty),* $(,)?)
                $(takes $takes:literal)? $(gives $gives:literal)? -> $result:ty;
        )*
    ) => {
        /// The interface, for traces and the reference page.
        pub const INTERFACE: $crate::Interface = $crate::Interface {
            number: $number,
            name: stringify!($interface),
            doc: &[$($doc),*],
            operations: &[$($crate::Operation {
                number: $operation_number,
                name: stringify!($operation),
                doc: &[$($operation_doc),*],
                idempotent: interface!(@repeat $repeat),
                arguments: &[$($crate::Argument { name: stringify!($argument), kind: stringify!($kind) }),*],
                result: stringify!($result),
                takes: 0 $(+ $takes)?,
                gives: 0 $(+ $gives)?,
            }),*],
        };

        $(#[doc = $doc])*
        ///
        /// Calls a server of this interface.
        #[derive(Clone, Copy, Debug)]
        pub struct Client<T>(pub T);

        #[allow(clippy::extra_unused_lifetimes, clippy::too_many_arguments)]
        impl<T: $crate::Transport> Client<T> {
            $(
                $(#[doc = $operation_doc])*
                ///
                /// # Errors
                /// The server's refusal, or that it could not be reached.
                pub fn $operation<'a>(
                    &mut self,
                    $(send: [u32; $takes],)?
                    $($argument: $kind,)*
                    $(receive: $crate::Slots<$gives>,)?
                ) -> Result<$result, $crate::CallError> {
                    #[allow(unused_mut)]
                    let mut attempt = $crate::Attempt {
                        interface: $number,
                        operation: $operation_number,
                        idempotent: interface!(@repeat $repeat),
                        send: &[],
                        receive: 0,
                        receive_count: 0,
                    };
                    $(
                        const _: usize = $takes;
                        attempt.send = &send;
                    )?
                    $(
                        attempt.receive = receive.0;
                        attempt.receive_count = $gives;
                    )?
                    $crate::invoke(&mut self.0, &attempt, &($($argument,)*))
                }
            )*
        }

        $(#[doc = $doc])*
        ///
        /// What a server of this interface implements; [`dispatch`] calls it.
        #[allow(clippy::extra_unused_lifetimes, clippy::too_many_arguments, clippy::missing_errors_doc)]
        pub trait Server {
            $(
                $(#[doc = $operation_doc])*
                fn $operation<'a>(&mut self, call: &mut $crate::Call, $($argument: $kind),*) -> Result<$result, $crate::Failure>;
            )*
        }

        /// Decodes a request, has `server` carry it out, and encodes the answer into `reply` (which holds [`crate::MAX_MESSAGE`] bytes). Returns its length.
        #[allow(clippy::needless_lifetimes)]
        pub fn dispatch<'a, S: Server + ?Sized>(server: &mut S, call: &mut $crate::Call, request: &'a [u8], reply: &mut [u8]) -> usize {
            match $crate::operation_of($number, request) {
                $(Some($operation_number) => {
                    let result = match $crate::arguments::<($($kind,)*)>(call, 0 $(+ $takes)?, request) {
                        Ok(($($argument,)*)) => server.$operation(call, $($argument),*),
                        Err(failure) => Err(failure),
                    };
                    $crate::answer(call, 0 $(+ $gives)?, &result, reply)
                })*
                _ => $crate::unknown_operation(reply),
            }
        }
    };
    (@repeat idempotent) => { true };
    (@repeat once) => { false };
}
pub(crate) use interface;
