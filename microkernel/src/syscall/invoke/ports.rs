//! Operations on I/O ports.

use tessera_abi::Error;
use tessera_abi::object::{Rights, io_ports as op};
use x86_64::instructions::port::Port;

use super::{Request, Results};
use crate::object::slot::Cap;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let cap = request.slot.cap();
    let (first, count) = (cap.object, u64::from(cap.extra));
    let [port, width, value, index, rights, _] = request.words;
    match request.operation {
        op::IN | op::OUT => {
            let is_in = request.operation == op::IN;
            request.rights(if is_in { Rights::READ } else { Rights::WRITE })?;
            if !matches!(width, 1 | 2 | 4) || port < first || port.checked_add(width).is_none_or(|end| end > first + count) {
                return Err(Error::BadArgument);
            }
            let port = port as u16;
            // SAFETY: whoever holds the capability was given these ports; what a device does with them is confined by that choice.
            let result = unsafe {
                match (is_in, width) {
                    (true, 1) => u64::from(Port::<u8>::new(port).read()),
                    (true, 2) => u64::from(Port::<u16>::new(port).read()),
                    (true, _) => u64::from(Port::<u32>::new(port).read()),
                    (false, 1) => {
                        Port::<u8>::new(port).write(value as u8);
                        0
                    }
                    (false, 2) => {
                        Port::<u16>::new(port).write(value as u16);
                        0
                    }
                    (false, _) => {
                        Port::<u32>::new(port).write(value as u32);
                        0
                    }
                }
            };
            Ok([result, 0, 0, 0, 0, 0])
        }
        op::SLICE => {
            let (from, length, table) = (port, width, value);
            if length == 0 || from < first || from.checked_add(length).is_none_or(|end| end > first + count) {
                return Err(Error::BadArgument);
            }
            let part = Cap { rights: cap.rights & Rights::from_bits_truncate(rights as u8), object: from, extra: length as u32, ..cap };
            request.destination(table, index)?.insert(&part, Some(request.slot))?;
            Ok([0; 6])
        }
        _ => Err(Error::UnknownOperation),
    }
}
