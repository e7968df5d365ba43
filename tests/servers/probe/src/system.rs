//! Questions to the Trace capability.

use crate::report::{line, verdict, wait_for_byte};
use tessera_rt::caps::ResetKind;
use tessera_rt::{AddressSpace, Trace, require};

/// Looks for pages that are writable and executable, in the kernel and here.
pub fn write_execute() {
    let trace = Trace::new(require("trace"));
    for (name, space) in [("wx-kernel", None), ("wx-server", Some(AddressSpace::OWN))] {
        match trace.check_wx(space) {
            Ok(report) if report.violations == 0 && report.pages > 0 => {
                line(format_args!("probe: {name} looked at {} pages", report.pages));
                verdict(name, None);
            }
            Ok(report) => {
                verdict(
                    name,
                    Some(format_args!(
                        "{} of {} pages, first {:#x}",
                        report.violations, report.pages, report.first
                    )),
                );
            }
            Err(error) => verdict(name, Some(format_args!("{}", error.text()))),
        }
    }
}

/// Panics the kernel when told to.
pub fn panic_kernel() {
    line(format_args!("probe: panic waits"));
    wait_for_byte();
    let answer = Trace::new(require("trace")).reset(ResetKind::Panic);
    verdict("panic", Some(format_args!("the kernel did not panic: {answer:?}")));
}
