//! `ping`: whether somebody answers the host's management port.

use super::{Command, Context, Doing, Failure, number, shorten};
use crate::terminal::Style;
use alloc::format;

/// The command.
pub struct Ping;

/// Requests unless something else is said, and the most.
const COUNT: u32 = 4;
const MOST: u32 = 1000;
/// Bytes of data in each.
const BYTES: u16 = 56;
/// Milliseconds that an answer may take: hostd looks for one neighbour a second.
const WAIT_MS: u32 = 2000;

/// Milliseconds with three digits of what is less.
fn milliseconds(microseconds: u64) -> alloc::string::String {
    format!("{}.{:03} ms", microseconds / 1000, microseconds % 1000)
}

impl Command for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn summary(&self) -> &'static str {
        "ask another machine for an answer, from the management port"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["ping ADDRESS [COUNT]"]
    }

    fn help(&self) -> &'static str {
        "Sends COUNT (4) ICMP echo requests from the host's management port to an IPv4 or IPv6 address, or to a name that the management port's name servers know, each after the answer to the one before or two seconds without. Shows how long answers took.\nThe server `hostd` sends them: without it, or without an address of the management port, there is nobody who could."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        let (to, count) = match *arguments {
            [to] => (to, COUNT),
            [to, count] => (to, number(self, "the number of requests", count)?),
            [] => return Err(Failure::usage(self, "`ping` needs an address")),
            [_, _, other, ..] => {
                return Err(Failure::usage(self, format!("`ping` takes no argument `{}`", shorten(other))));
            }
        };
        if count == 0 || count > MOST {
            return Err(Failure::usage(self, format!("the number of requests is 1 to {MOST}, not {count}")));
        }
        let (mut answers, mut least, mut most, mut sum) = (0, u64::MAX, 0, 0);
        for sequence in 0..count {
            let echo = context
                .host
                .ping(to, sequence as u16, BYTES, WAIT_MS)
                .doing(&format!("ping {}", shorten(to)))?;
            match echo.microseconds.map(u64::from) {
                Some(time) => {
                    answers += 1;
                    (least, most, sum) = (least.min(time), most.max(time), sum + time);
                    context.out.line(&format!(
                        "{} answered request {} in {}",
                        echo.address,
                        sequence + 1,
                        milliseconds(time)
                    ));
                }
                None => context.out.styled_line(
                    Style::Faint,
                    &format!("{} did not answer request {} within {WAIT_MS} ms", echo.address, sequence + 1),
                ),
            }
        }
        let mut total = format!("{count} requests, {answers} answers");
        if let Some(mean) = sum.checked_div(answers) {
            let times = [least, mean, most].map(milliseconds);
            total += &format!("; least {}, mean {}, most {}", times[0], times[1], times[2]);
        }
        context.out.line(&total);
        Ok(())
    }
}
